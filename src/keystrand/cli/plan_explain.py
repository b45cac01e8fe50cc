"""keystrand plan explain"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_decide import told
from keystrand.cli.plan_equipment import cell, own_equipment
from keystrand.cli.plan_estate import ESTATE, chosen, estate_of
from keystrand.cli.plan_figures import numbers
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.estate import Estate
    from keystrand.plan.fact import Span
    from keystrand.plan.pilots import Plan
    from keystrand.plan.relays import Trade

RELAYS_SHOWN = 4


@click.command()
@ESTATE
@click.argument("link")
@json_option
def command(estate_file: Path, link: str, as_json: bool) -> None:
    """Say which rules decided about LINK, on which evidence, and what would change the answer."""
    from keystrand.plan.flips import flips
    from keystrand.plan.pilots import decide_all

    estate = estate_of(estate_file)
    (name,) = chosen(estate, (link,))
    own = own_equipment(estate)
    plan = decide_all(estate, own)
    found, rows = flips(estate, name, own), _trades(estate, plan, name)
    if as_json:
        print_json({**told(estate, plan, name), "flips": found, "trades": [_trade(r) for r in rows]})
        return
    _decision(estate, plan, name)
    if rows:
        click.echo()
        headings = ("relays", "hop km", "hop dB", "key bit/s", "enough", *(heading for heading, _ in rows[0].more))
        show_table(headings, [_trade_row(row) for row in rows])
    click.echo()
    show_table(("change", "from", "to", "then"), [(f.field, f.now, f.then, f.pattern) for f in found])
    if not found:
        say("no single input changes the answer; all that keeps QKD out would have to change together")


def _decision(estate: Estate, plan: Plan, name: str) -> None:
    from keystrand.plan.decide import change

    decision = plan.decisions[name]
    made = change(estate.links[name], decision.pattern)
    say(f"{name}: {decision.pattern}" + ("" if plan.now(name) is decision.pattern else f"; for now {plan.now(name)}"))
    for wait in plan.waits.get(name, ()):
        say(str(wait))
    if decision.interaction:
        say(f"QKD and PQC: {decision.interaction}")
    say(f"keeps {', '.join(made.keeps) or 'nothing that is stated'}; adds {', '.join(made.adds) or 'nothing'}")
    rows = [(f.rule.key, f.rule.requirement, f.answer, f.evidence) for f in decision.fired]
    show_table(("rule", "row", "answer", "evidence"), rows)
    for finding in decision.findings:
        say(f"{finding.severity}: {finding.place}: {finding.says} ({finding.requirement})")


def _trades(estate: Estate, plan: Plan, name: str) -> list[Trade]:
    """Reach against trust and money: QKD with PQC, and QKD alone to compare, with so many relays."""
    from keystrand.plan.cost import bill_of, cost
    from keystrand.plan.fact import Figure, Span, Unknown
    from keystrand.plan.pattern import Pattern
    from keystrand.plan.residual import Build, corners

    found, link = plan.feasibilities[name], estate.links[name]
    dry = found.store.starvation if found.store else None
    starved = None if dry is None else Figure(Span(0.0, dry, dry))
    worlds = corners(estate, plan.classified[name].horizon_years, starved)

    def left(relays: int, alone: bool) -> str:
        if isinstance(worlds, Unknown):
            return "unknown"
        build = Build(pattern=Pattern.PQC_QKD, relays=(relays,), on_exhaustion=link.on_exhaustion, qkd_alone=alone)
        return shares(worlds.residual(build))

    def priced(relays: int) -> str:
        bill = bill_of(link, Pattern.PQC_QKD, relays + 1)
        total = bill if isinstance(bill, Unknown) else cost(estate, bill)
        return "unknown" if isinstance(total, Unknown) else f"{cell(total.total)} {total.currency}"

    columns = (
        ("residual risk", lambda relays: left(relays, False)),
        ("QKD alone", lambda relays: left(relays, True)),
        ("cost", priced),
    )
    return found.trades(RELAYS_SHOWN, columns)


def shares(span: Span) -> str:
    """`2.1-8%`"""
    return f"{100 * span.low:.2g}-{100 * span.high:.2g}%"


def _trade_row(row: Trade) -> tuple[object, ...]:
    km = "unknown" if row.hop_km is None else f"{row.hop_km:.4g}"
    return row.relays, km, cell(row.hop_db), cell(row.skr_bps), row.enough, *(text for _, text in row.more)


def _trade(row: Trade) -> dict[str, Any]:
    rate = row.skr_bps
    return {
        "relays": row.relays,
        "hop_km": row.hop_km,
        "hop_db": numbers(row.hop_db),
        "skr_bps": None if rate is None else numbers(rate),
        "enough": row.enough,
        **dict(row.more),
    }
