"""keystrand plan explain"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_decide import told
from keystrand.cli.plan_equipment import cell, own_equipment
from keystrand.cli.plan_estate import ESTATE, chosen, estate_of
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.estate import Estate
    from keystrand.plan.flips import Flip
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
    found, rows = flips(estate, name, own), _trades(plan, name)
    if as_json:
        print_json(
            {**told(estate, plan, name), "flips": [_flip(each) for each in found], "trades": [_trade(r) for r in rows]}
        )
        return
    _decision(estate, plan, name)
    if rows:
        click.echo()
        show_table(("relays", "hop km", "hop dB", "key bit/s", "enough"), [_trade_row(row) for row in rows])
    click.echo()
    show_table(("change", "from", "to", "then"), [(f.field, f.now, f.then, f.pattern) for f in found])
    if not found:
        say("no single input changes the answer; all that keeps QKD out would have to change together")


def _decision(estate: Estate, plan: Plan, name: str) -> None:
    from keystrand.plan.decide import change

    decision = plan.decisions[name]
    made = change(estate.links[name], decision.pattern)
    say(f"{name}: {decision.pattern}" + ("" if plan.now(name) is decision.pattern else f"; for now {plan.now(name)}"))
    if decision.interaction:
        say(f"QKD and PQC: {decision.interaction}")
    say(f"keeps {', '.join(made.keeps) or 'nothing that is stated'}; adds {', '.join(made.adds) or 'nothing'}")
    rows = [(f.rule.key, f.rule.requirement, f.answer, f.evidence) for f in decision.fired]
    show_table(("rule", "row", "answer", "evidence"), rows)
    for finding in decision.findings:
        say(f"{finding.severity}: {finding.place}: {finding.says} ({finding.requirement})")


def _trades(plan: Plan, name: str) -> list[Trade]:
    return plan.feasibilities[name].trades(RELAYS_SHOWN)


def _trade_row(row: Trade) -> tuple[object, ...]:
    km = "unknown" if row.hop_km is None else f"{row.hop_km:.4g}"
    return row.relays, km, cell(row.hop_db), cell(row.skr_bps), row.enough


def _trade(row: Trade) -> dict[str, Any]:
    rate = row.skr_bps
    return {
        "relays": row.relays,
        "hop_km": row.hop_km,
        "hop_db": [row.hop_db.low, row.hop_db.likely, row.hop_db.high],
        "skr_bps": None if rate is None else [rate.low, rate.likely, rate.high],
        "enough": row.enough,
    }


def _flip(each: Flip) -> dict[str, Any]:
    return {"field": each.field, "now": each.now, "then": each.then, "pattern": each.pattern, "factor": each.factor}
