"""keystrand network maintain"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

import click

from keystrand.cli import exits
from keystrand.cli.admin_client import REASON, AdminClient, Order, admin_options, propose_or_tell
from keystrand.cli.options import json_option, print_json
from keystrand.cli.tables import moment, show_table, span
from keystrand.cli.terminal import say

ANSWERS_S: Final = 10.0  # until every site has said what its links hold
DRAIN_S: Final = 120.0
POLL_S: Final = 0.5
WINDOW: Final = click.argument("window_id", metavar="WINDOW")


@click.group("maintain")
def command() -> None:
    """Take this site, or a hop of it, out of a network for a while: pools are filled and checked, routes go around, and back.

    Asks the running site that is to be maintained. See docs/runbooks/maintenance.md.
    """


def instant(text: str) -> float:
    """Unix seconds of an ISO 8601 moment; UTC where it names no zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is not a moment such as 2030-01-31T18:00") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


@command.command("plan")
@click.option("--from", "since", required=True, help="When it begins (ISO 8601, UTC unless it names a zone).")
@click.option("--to", "until", required=True, help="When the site is back at the latest.")
@click.option("--hop", default="", metavar="NEIGHBOUR", help="Only the hop to this site.  [default: the whole site]")
@REASON
@admin_options
@json_option
def plan(since: str, until: str, hop: str, reason: str, order: Order, as_json: bool) -> int:
    """Plan a window; pools fill for it from now on. Exit status 1 while they do not suffice."""
    wish = {"neighbour": hop, "from_s": instant(since), "until_s": instant(until), "reason": reason}
    with order.client() as client:
        window = client.post("/maintenance", wish)
        window = _wait(client, window, lambda now: all(check["site"] for check in now["checks"]), ANSWERS_S)
    _show(window, as_json=as_json)
    if not window["ready"]:
        say("it cannot begin yet: see it again with `keystrand network maintain show`")
        return exits.REFUSED
    say(f"ready; when it is time: keystrand network maintain begin {window['window_id']}")
    return exits.OK


@command.command("list")
@admin_options
@json_option
def list_windows(order: Order, as_json: bool) -> None:
    """List the windows of this site."""
    with order.client() as client:
        windows = sorted(client.get("/network")["windows"], key=lambda one: float(one["from_s"]))
    if as_json:
        for one in windows:
            print_json(one)
        return
    rows = [
        (
            one["window_id"],
            one["neighbour"] or "the site",
            f"{moment(one['from_s'])[5:-4]} to {moment(one['until_s'])[5:-4]}",
            "yes" if one["ready"] else "no",
            one["stand"],
        )
        for one in windows
    ]
    show_table(("window", "of", "from, to (UTC)", "pools suffice", "stand"), rows)


@command.command("show")
@WINDOW
@admin_options
@json_option
def show(window_id: str, order: Order, as_json: bool) -> int:
    """Show what each link holds and needs for a window; exit status 1 where it does not suffice."""
    with order.client() as client:
        window = _get(client, window_id)
    _show(window, as_json=as_json)
    return exits.OK if window["ready"] else exits.REFUSED


@command.command("begin")
@WINDOW
@REASON
@click.option("--accept-shortfall", is_flag=True, help="Propose to begin although pools do not suffice.")
@admin_options
@json_option
def begin(
    window_id: str,
    reason: str,
    accept_shortfall: bool,
    order: Order,
    as_json: bool,
) -> int:
    """Drain, and wait until nothing is under way. Refused with the shortfall where pools do not suffice."""
    with order.client() as client:
        _get(client, window_id)
        if accept_shortfall:
            propose_or_tell(client.post(f"/maintenance/{window_id}/force", {"reason": reason}))
            return exits.OK
        window = client.post(f"/maintenance/{window_id}/begin", {"reason": reason})
        say("draining: no route begins here any more")
        window = _wait(client, window, lambda now: now["stand"] == "drained", DRAIN_S)
    if as_json:
        print_json(window)
    if window["stand"] != "drained":
        say(f"{window['under_way']} shares are still under way")
        return exits.REFUSED
    say("drained: it may be switched off")
    return exits.OK


@command.command("end")
@WINDOW
@REASON
@admin_options
def end(window_id: str, reason: str, order: Order) -> None:
    """Take it back into use, or off the plan."""
    with order.client() as client:
        _get(client, window_id)
        client.post(f"/maintenance/{window_id}/end", {"reason": reason})
    say("back in use: neighbours hear of it at once")


def _get(client: AdminClient, window_id: str) -> dict[str, Any]:
    found = [one for one in client.get("/network")["windows"] if one["window_id"] == window_id]
    if not found:
        raise click.UsageError(f"{window_id} is no window of this site: see `keystrand network maintain list`")
    window: dict[str, Any] = found[0]
    return window


def _wait(client: AdminClient, window: dict[str, Any], done: Any, limit_s: float) -> dict[str, Any]:
    """The window once `done` holds of it, or as it is after limit_s."""
    end_s = time.monotonic() + limit_s
    while not done(window) and time.monotonic() < end_s:
        time.sleep(POLL_S)
        window = _get(client, window["window_id"])
    return window


def _show(window: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(window)
        return
    click.echo(window["window_id"])
    rows = [
        (check["link"], check["site"] or "-", check["held_bits"], check["needed_bits"], _word(check))
        for check in window["checks"]
    ]
    show_table(("link", "says", "holds bits", "needs", "stand"), rows)
    if window["cut"]:
        say(f"no new keys meanwhile for: {', '.join(window['cut'])}")


def _word(check: dict[str, Any]) -> str:
    if not check["site"]:
        return "nobody answers for it"
    if check["ready"]:
        return "goes around" if not check["needed_bits"] else "ready"
    when = f"filled in {span(check['fill_s'])} at best" if check["fill_s"] >= 0 else "no hop fills it"
    return f"{check['short_bits']} bits short, {when}"
