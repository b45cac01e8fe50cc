"""keystrand plan verify"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli import exits
from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_equipment import own_equipment
from keystrand.cli.plan_estate import ESTATE, estate_of
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.verify import Line

HTTP = "http://"
PORT = 80


@click.command()
@ESTATE
@click.option(
    "--site",
    "sites",
    multiple=True,
    required=True,
    metavar="URL|CONFIG",
    help="A running site: the address of its status page, or its configuration file; may be repeated.",
)
@json_option
def command(estate_file: Path, sites: tuple[str, ...], as_json: bool) -> int:
    """Hold the plan against what running sites measure: key rate, time to empty, exposure window, rotation.

    A site's link is the estate's link of the same name, or else the only one between the same two sites. Exit status 1 where a
    figure has drifted out of its predicted range, or a site has a link that the estate does not know.
    """
    from keystrand.plan.fact import Unknown
    from keystrand.plan.verify import compared, measured_of, paired
    from keystrand.plan.whole import whole

    estate = estate_of(estate_file)
    plan = whole(estate, own_equipment(estate))
    lines: list[Line] = []
    strangers = []
    for site in sites:
        for measured in measured_of(_status(site)):
            outcome = paired(plan.outcomes, measured)
            if isinstance(outcome, Unknown):
                strangers.append(str(outcome))
            else:
                lines += compared(outcome, measured)
    if as_json:
        for line in lines:
            print_json(_told(line))
    else:
        show_table(("link", "site", "figure", "planned", "measured", "verdict"), [_row(line) for line in lines])
    for words in strangers:
        say(words)
    return exits.REFUSED if strangers or any(line.has_drifted for line in lines) else exits.OK


def _status(site: str) -> dict[str, Any]:
    """Raises Unavailable, or ConfigError where the file has no [status]."""
    import msgspec

    from keystrand.cli.options import site_of
    from keystrand.cli.status import fetch
    from keystrand.core.errors import ConfigError

    if site.startswith(HTTP):
        host, _, port = site.removeprefix(HTTP).rstrip("/").rpartition(":")
        body = fetch(host or port, int(port) if host else PORT)
    else:
        config = site_of(Path(site))
        if config.status is None:
            raise ConfigError("this site has no [status]", path=site, hint='add [status] listen = "127.0.0.1:8443"')
        body = fetch(config.status.listen.host, config.status.listen.port)
    status: dict[str, Any] = msgspec.json.decode(body)
    return status


def _row(line: Line) -> tuple[str, ...]:
    from keystrand.plan.page import lasting, ranged

    def words(low: float, high: float) -> str:
        if line.unit == "s":
            return lasting(low) if low == high else f"up to {lasting(high)}"
        from keystrand.plan.fact import Span

        return ranged(Span(low, low, high), line.unit)

    planned = "unknown" if line.planned is None else words(line.planned.low, line.planned.high)
    measured = "-" if line.measured is None else f"{words(line.measured, line.measured)} ({line.basis})"
    verdict = f"{line.verdict}: {line.why}" if line.planned is None and line.why else line.verdict.value
    return (line.link, line.site, line.figure, planned, measured, verdict)


def _told(line: Line) -> dict[str, Any]:
    planned = line.planned
    return {
        "link": line.link,
        "site": line.site,
        "figure": line.figure,
        "unit": line.unit,
        "planned": None if planned is None else [planned.low, planned.likely, planned.high],
        "measured": line.measured,
        "basis": line.basis.value,
        "verdict": line.verdict.value,
        "why": line.why,
    }
