"""What operators say of a network to a running site: windows of maintenance, and sites that are broken into.

Both are papers in the store, so that they outlive restarts.
"""

from __future__ import annotations

from typing import Final

import msgspec

from keystrand.core.clock import Clock, SystemEntropy, new_uuid
from keystrand.core.errors import BadRequest, IllegalTransition, UnknownKey
from keystrand.kme.site import Site
from keystrand.relay.maintenance import WINDOW_S_MAX, RelayedStand, WindowStand
from keystrand.relay.relay import Relay
from keystrand.store.papers import SqlPapers
from keystrand.wire.relay import WINDOWS_MAX, Window

PAPER: Final = "maintenance"
BARRED: Final = "barred"


class WindowPaper(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a window, and who asked for it."""

    window: Window
    actor: str
    reason: str


class Upkeep:
    """Within one transaction of the engine. Every order is recorded; the relay reads the papers with its next tick."""

    def __init__(self, papers: SqlPapers, relay: Relay, clock: Clock) -> None:
        self._papers, self._relay, self._clock = papers, relay, clock

    def windows(self) -> tuple[Window, ...]:
        return tuple(paper.window for paper in self._all())

    def _all(self) -> list[WindowPaper]:
        return [msgspec.json.decode(kept, type=WindowPaper) for kept in self._papers.all(PAPER)]

    def stands(self) -> list[WindowStand]:
        """Each window as it stands, with what every link says of it."""
        return [
            WindowStand(
                window=paper.window,
                stand=self._relay.maintenance.stand(paper.window),
                under_way=self._relay.under_way(paper.window.neighbour),
                checks=tuple(self._relay.maintenance.checks(paper.window)),
                cut=tuple(self._relay.maintenance.cut(paper.window)),
                actor=paper.actor,
                reason=paper.reason,
            )
            for paper in self._all()
        ]

    def relayed(self) -> list[RelayedStand]:
        """Relayed links that begin here."""
        relay, stands = self._relay, []
        for name, supply in relay.sender.supplies.items():
            wanted = relay.sender.fill.target_bits(supply.level.demand_bps, relay.maintenance.wanted_bits(name))
            stands.append(
                RelayedStand(
                    link=name,
                    target=supply.link.target,
                    held_bits=supply.level.held_bits,
                    wanted_bits=wanted,
                    demand_bps=supply.level.demand_bps,
                    reach_bps=relay.maintenance.reach_bps(supply.link),
                    share_bps=sum(relay.sender.sharing.plan.get(name, {}).values()),
                    routes=tuple(relay.sender.routes(supply.link)),
                )
            )
        return stands

    def relayed_links(self) -> frozenset[str]:
        """Names of the relayed links that end here."""
        return frozenset(name for name, link in self._relay.atlas.links.items() if self._relay.site in link.ends)

    def of_hop(self, neighbour: str) -> WindowPaper | None:
        """The window of this hop, if there is one."""
        return next((paper for paper in self._all() if paper.window.neighbour == neighbour), None)

    def _get(self, window_id: str) -> WindowPaper:
        kept = self._papers.get(PAPER, window_id)
        if kept is None:
            raise UnknownKey("no such window", hint="see `keystrand network maintain list`")
        return msgspec.json.decode(kept, type=WindowPaper)

    def plan(self, site: Site, *, neighbour: str, from_s: float, until_s: float, actor: str, reason: str) -> str:
        """A window's ID; pools begin to fill for it. Raises BadRequest."""
        now_s = self._clock.now_s()
        if neighbour and neighbour not in self._relay.atlas.neighbours(site.name):
            near = ", ".join(self._relay.atlas.neighbours(site.name))
            raise BadRequest(f"no hop leads from {site.name} to {neighbour}", hint=f"neighbours: {near or 'none'}")
        if not max(from_s, now_s) < until_s:
            raise BadRequest("a window ends after it begins, and not in the past")
        if until_s - from_s > min(WINDOW_S_MAX, site.limits.block_ttl_s) or from_s > now_s + WINDOW_S_MAX:
            hint = "bits that wait longer than limits.block_ttl_s are destroyed; plan at most 7 days ahead"
            raise BadRequest("no pool can be filled for so long", hint=hint)
        if len(self._all()) >= WINDOWS_MAX:
            raise BadRequest("there are too many windows already", hint="end one of them")
        window = Window(new_uuid(SystemEntropy()), neighbour, int(from_s), int(until_s), draining=False)
        self._put(window, actor, reason)
        site.note(
            "maintenance.planned",
            window=window.window_id,
            hop=neighbour,
            from_s=window.from_s,
            until_s=window.until_s,
            actor=actor,
            reason=reason,
        )
        return window.window_id

    def begin(self, site: Site, window_id: str, *, actor: str, reason: str, short: bool) -> None:
        """Drain: routes go around from now on. Raises IllegalTransition with the shortfall, unless `short` accepts it."""
        paper = self._get(window_id)
        if paper.window.draining:
            raise IllegalTransition("it drains already", hint="see `keystrand network maintain list`")
        missing = [check for check in self._relay.maintenance.checks(paper.window) if not check.is_ready]
        if missing and not short:
            told = ", ".join(f"{check.link}: {check.words()}" for check in missing[:8])
            hint = "wait until the pools are filled, move the window, or have the shortfall approved"
            raise IllegalTransition(f"pools do not suffice for the window: {told}", hint=hint)
        self._put(msgspec.structs.replace(paper.window, draining=True), paper.actor, paper.reason)
        bits = sum(check.short_bits for check in missing)
        site.note("maintenance.draining", window=window_id, hop=paper.window.neighbour, actor=actor, reason=reason)
        if missing:
            links = ", ".join(check.link for check in missing)
            site.note("maintenance.short", window=window_id, links=links, bits=bits, actor=actor, reason=reason)

    def end(self, site: Site, window_id: str, *, actor: str, reason: str) -> None:
        """Back into use, or not to be at all."""
        window = self._get(window_id).window
        self._papers.drop(PAPER, window_id)
        site.note("maintenance.ended", window=window_id, hop=window.neighbour, actor=actor, reason=reason)

    def end_old(self, site: Site) -> None:
        """Windows that are over: others count them as such already."""
        for paper in self._all():
            if paper.window.until_s <= self._clock.now_s():
                self.end(site, paper.window.window_id, actor="clock", reason="the window is over")

    # sites that are broken into

    def barred(self) -> frozenset[str]:
        return frozenset(self._papers.all(BARRED))

    def bar(self, site: Site, name: str, *, actor: str, reason: str) -> None:
        """No block of links that begin here goes over this site, or to it, until `admit`. Raises UnknownKey."""
        if name not in self._relay.atlas.sites or name == site.name:
            raise UnknownKey(f"{name} is no other site of this network")
        self._papers.put(BARRED, name, self._clock.now_s(), name)
        site.note("relay.barred", relay=name, actor=actor, reason=reason)

    def admit(self, site: Site, name: str, *, actor: str, reason: str) -> None:
        """It may relay again. Raises UnknownKey where it is not barred."""
        if self._papers.get(BARRED, name) is None:
            raise UnknownKey(f"{name} is not barred")
        self._papers.drop(BARRED, name)
        site.note("relay.admitted", relay=name, actor=actor, reason=reason)

    def _put(self, window: Window, actor: str, reason: str) -> None:
        kept = msgspec.json.encode(WindowPaper(window=window, actor=actor, reason=reason)).decode()
        self._papers.put(PAPER, window.window_id, self._clock.now_s(), kept)
