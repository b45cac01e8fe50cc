"""keystrand plan verify"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli import exits
from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_equipment import own_equipment
from keystrand.cli.plan_estate import ESTATE, estate_of
from keystrand.cli.plan_figures import numbers
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.verify import Line, Word

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
    """Hold the plan against what running sites measure and say.

    Figures: key rate, error rate, time to empty, age of the pool, rotation, delivery. Facts: protection of keys and tunnels,
    what the policy asks, suites, relays that keys passed, and their owners.

    A site's link is the estate's link of the same name, or else the only one between the same two sites. Exit status 1 where
    anything has drifted from the plan, or a site has a link that the estate does not know.
    """
    from keystrand.plan.fact import Unknown
    from keystrand.plan.measured import measured_of
    from keystrand.plan.verify import compared, paired
    from keystrand.plan.whole import whole

    estate = estate_of(estate_file)
    plan = whole(estate, own_equipment(estate))
    lines: list[Line | Word] = []
    strangers = []
    for site in sites:
        for measured in measured_of(*_read(site)):
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
    return exits.REFUSED if strangers or any(line.verdict.is_drift for line in lines) else exits.OK


def _read(site: str) -> tuple[dict[str, Any], str]:
    """Status and metrics of a site. Raises Unavailable, or ConfigError where the file has no [status]."""
    import msgspec

    from keystrand.cli.options import site_of
    from keystrand.core.errors import ConfigError
    from keystrand.net.plain import fetch

    if site.startswith(HTTP):
        name, _, number = site.removeprefix(HTTP).rstrip("/").rpartition(":")
        host, port = (name, int(number)) if name else (number, PORT)
    else:
        config = site_of(Path(site))
        if config.status is None:
            raise ConfigError("this site has no [status]", path=site, hint='add [status] listen = "127.0.0.1:8443"')
        host, port = config.status.listen.host, config.status.listen.port
    status: dict[str, Any] = msgspec.json.decode(fetch(host, port))
    return status, fetch(host, port, "/metrics").decode()


def _row(line: Line | Word) -> tuple[str, ...]:
    from keystrand.plan.verify import Word

    missing = line.planned is None
    if isinstance(line, Word):
        planned, measured = line.planned, line.measured
    else:
        planned = None if line.planned is None else _worded(line, line.planned.low, line.planned.high)
        measured = None if line.measured is None else _worded(line, line.measured, line.measured)
    seen = "-" if measured is None else f"{measured} ({line.basis})"
    verdict = f"{line.verdict}: {line.why}" if missing and line.why else line.verdict.value
    return (line.link, line.site, line.figure, planned or "unknown", seen, verdict)


def _worded(line: Line, low: float, high: float) -> str:
    from keystrand.plan.fact import Span
    from keystrand.plan.page import lasting, ranged

    if line.unit == "s":
        told = lasting(high) if high >= 1 else f"{1e3 * high:.3g} ms"
        return told if low == high else f"up to {told}"
    if not line.unit:
        return f"{high:.2%}" if low == high else f"up to {high:.2%}"
    return ranged(Span(low, low, high), line.unit)


def _told(line: Line | Word) -> dict[str, Any]:
    from keystrand.plan.fact import Span

    planned = line.planned
    return {
        "link": line.link,
        "site": line.site,
        "figure": line.figure,
        "unit": getattr(line, "unit", ""),
        "planned": numbers(planned) if isinstance(planned, Span) else planned,
        "measured": line.measured,
        "basis": line.basis.value,
        "verdict": line.verdict.value,
        "why": line.why,
    }
