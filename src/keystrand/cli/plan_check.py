"""keystrand plan check"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from keystrand.cli import exits
from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_estate import ESTATE, finding_rows, tally
from keystrand.cli.terminal import complain, say

if TYPE_CHECKING:
    from keystrand.plan.estate import Estate
    from keystrand.plan.finding import Finding

WIDTH: Final = 100


@click.command()
@ESTATE
@click.option("--all", "all_", is_flag=True, help="Notes too, and every place of a finding.")
@json_option
def command(estate_file: Path, all_: bool, as_json: bool) -> int:
    """Tell every fault of ESTATE with its line, and then what the plan lacks: blocking findings, warnings and notes.

    Exit status 4 for a fault, 1 for a blocking finding.
    """
    from keystrand.config.load import estate_faults
    from keystrand.plan.check import findings
    from keystrand.plan.finding import blocking

    faults = estate_faults(estate_file)
    for fault in faults:
        complain(str(fault), fault.hint)
    if faults:
        return exits.CONFIG
    from keystrand.cli.plan_estate import estate_of

    estate = estate_of(estate_file)
    found = findings(estate)
    if as_json:
        for row in finding_rows(found):
            print_json(row)
    else:
        _show(estate, found, all_=all_)
    return exits.REFUSED if blocking(found) else exits.OK


def _show(estate: Estate, found: list[Finding], *, all_: bool) -> None:
    """Findings of one kind together, so that a large estate still fits a screen."""
    from keystrand.plan.finding import Severity

    groups: dict[tuple[Severity, str, str, str], list[str]] = {}
    for finding in found:
        if all_ or finding.severity is not Severity.NOTE:
            kind = (finding.severity, finding.requirement, finding.says, finding.hint)
            groups.setdefault(kind, []).append(finding.place)
    for (severity, row, says, hint), places in groups.items():
        shown = places if all_ else places[:3]
        more = f" and {len(places) - len(shown)} more" if len(places) > len(shown) else ""
        click.echo(_wrapped(f"{severity:<8}  {row}  {says}", 16))
        click.echo(_wrapped(f"at {', '.join(shown)}{more}", 16, first=16))
        if hint:
            click.echo(_wrapped(f"hint: {hint}", 16, first=16))
    tally(found)
    say(f"{estate.name}: {len(estate.sites)} sites, {len(estate.links)} links, {len(estate.classes)} data classes")


def _wrapped(text: str, indent: int, *, first: int = 0) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=" " * first, subsequent_indent=" " * indent, break_on_hyphens=False
    )
