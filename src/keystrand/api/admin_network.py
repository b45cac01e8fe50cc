"""Handlers of the administration API for a network of relays: its links, and planned maintenance of the site or of a hop."""

from __future__ import annotations

from keystrand.api import admin_network_forms as shapes
from keystrand.api.admin_approvals import SiteContent, WindowContent, propose
from keystrand.api.admin_call import Call, Result
from keystrand.api.admin_desk import Declined, Desk
from keystrand.govern.roles import Operation as Op
from keystrand.relay.maintenance import WindowStand


def network(desk: Desk, call: Call) -> Result:
    links = [shapes.RelayedFacts.of(stand, routes=[list(route) for route in stand.routes]) for stand in desk.relayed()]
    windows = [_facts(stand) for stand in desk.windows()]
    return Result(form=shapes.NetworkFacts(links=links, windows=windows, barred=sorted(desk.barred())))


def bar(desk: Desk, call: Call) -> Result:
    desk.bar_site(call.path["site"], actor=call.principal.name, reason=call.body.reason)
    return network(desk, call)


def admit(desk: Desk, call: Call) -> Result:
    """Propose to let a site relay again."""
    if call.path["site"] not in desk.barred():
        raise Declined(404, "no such site is barred")
    return propose(desk, call, Op.NETWORK_ADMIT, SiteContent(site=call.path["site"]))


def plan(desk: Desk, call: Call) -> Result:
    body = call.body
    window_id = desk.plan_window(
        body.neighbour, body.from_s, body.until_s, actor=call.principal.name, reason=body.reason
    )
    return _shown(desk, window_id)


def begin(desk: Desk, call: Call) -> Result:
    """Refused with the shortfall where pools do not suffice."""
    window_id = call.path["window_id"]
    desk.begin_window(window_id, actor=call.principal.name, reason=call.body.reason, short=False)
    return _shown(desk, window_id)


def force(desk: Desk, call: Call) -> Result:
    """Propose to begin although pools do not suffice."""
    window_id = call.path["window_id"]
    _find(desk, window_id)
    return propose(desk, call, Op.MAINTENANCE_FORCE, WindowContent(window_id=window_id))


def end(desk: Desk, call: Call) -> Result:
    stand = _find(desk, call.path["window_id"])
    desk.end_window(stand.window.window_id, actor=call.principal.name, reason=call.body.reason)
    return Result(form=_facts(stand, "ended"))


def _shown(desk: Desk, window_id: str) -> Result:
    return Result(form=_facts(_find(desk, window_id)))


def _find(desk: Desk, window_id: str) -> WindowStand:
    found = [stand for stand in desk.windows() if stand.window.window_id == window_id]
    if not found:
        raise Declined(404, "no such window")
    return found[0]


def _facts(stand: WindowStand, word: str = "") -> shapes.WindowFacts:
    return shapes.WindowFacts.of(
        stand.window,
        stand=word or stand.stand,
        under_way=stand.under_way,
        ready=all(check.is_ready for check in stand.checks),
        checks=[shapes.LinkCheck.of(check, ready=check.is_ready) for check in stand.checks],
        cut=list(stand.cut),
        actor=stand.actor,
        reason=stand.reason,
    )
