"""keystrand plan classify"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_estate import ESTATE, LINK, chosen, estate_of, finding_rows
from keystrand.cli.plan_figures import interval
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.classify import Classified

HEADINGS: Final = ("link", "impact", "horizon", "path", "control", "stability", "starts from")
SHORT: Final = {
    "classical hardening": "hardening",
    "PQC": "PQC",
    "PQC + QKD refresh": "PQC+QKD",
    "PQC + QKD refresh, several sources": "PQC+QKD, several",
    "PQC + QKD refresh + one-time pad": "PQC+QKD+OTP",
}


@click.command()
@ESTATE
@LINK
@click.option("--why", is_flag=True, help="What impact and horizon of each link rest on.")
@json_option
def command(estate_file: Path, links: tuple[str, ...], why: bool, as_json: bool) -> None:
    """Show what each link is by what it carries: impact, horizon, path, control, stability, and where it starts from.

    `+` marks a floor: some class of the link states no horizon. All figures are the estate's own statements or templates; none
    is measured. Where a link starts from is no decision yet: that is `keystrand plan decide`.
    """
    from keystrand.plan.classify import classify

    estate = estate_of(estate_file)
    found = [classify(estate, name) for name in chosen(estate, links)]
    if as_json:
        for each in found:
            print_json(_told(each))
        return
    show_table(HEADINGS, [_row(each) for each in found])
    for each in found if why else ():
        for words in (*each.provenance, f"{each.path}: {each.default.why}"):
            click.echo(textwrap.fill(f"{each.link}: {words}", 100, subsequent_indent="    ", break_on_hyphens=False))
    spared = [each.link for each in found if each.no_quantum_treatment]
    if spared:
        say(f"no quantum treatment, all they carry is stale within a day: {', '.join(spared)}")
    gaps = sum(len(each.findings) for each in found)
    if gaps:
        say(f"{gaps} findings; keystrand plan check tells them")


def _row(each: Classified) -> tuple[object, ...]:
    start = "no quantum treatment" if each.no_quantum_treatment else SHORT[each.default.pattern]
    return each.link, each.impact or "unknown", _horizon(each), each.path, each.control, each.stability, start


def _horizon(each: Classified) -> str:
    if each.horizon_years is None:
        return "unknown"
    span = each.horizon_years.span
    years = f"{span.low:.3g}" if span.low == span.high else f"{span.low:.3g}-{span.high:.3g}"
    return f"{years} y{'+' if each.partial else ''}"


def _told(each: Classified) -> dict[str, Any]:
    horizon = each.horizon_years
    return {
        "link": each.link,
        "impact": each.impact,
        "horizon_years": interval(horizon),
        "horizon_basis": horizon.basis if horizon else None,
        "horizon_source": horizon.source.words if horizon else None,
        "is_floor": each.partial,
        "lifetime": each.lifetime,
        "no_quantum_treatment": each.no_quantum_treatment,
        "carries": each.carries,
        "path": each.path,
        "control": each.control,
        "stability": each.stability,
        "starts_from": each.default.pattern,
        "transports": each.default.transports,
        "why": each.default.why,
        "provenance": each.provenance,
        "findings": finding_rows(each.findings),
    }
