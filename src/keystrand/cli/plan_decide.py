"""keystrand plan decide"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_equipment import own_equipment
from keystrand.cli.plan_estate import ESTATE, LINK, chosen, estate_of, finding_rows, tally
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.estate import Estate
    from keystrand.plan.pilots import Plan

SHOWN = 2
HEADINGS = ("link", "now", "later", "by", "no QKD because of")


@click.command()
@ESTATE
@LINK
@click.option("--everywhere", is_flag=True, help="Also say what QKD on every link would be.")
@json_option
def command(estate_file: Path, links: tuple[str, ...], everywhere: bool, as_json: bool) -> None:
    """Decide what protects each link: hardening, PQC, or PQC with QKD on top, by rules that `plan explain` tells.

    `now` is what to build first: QKD comes in pilots, the best candidates first, and waits with PQC for its turn, for
    answers and for figures: `plan gates` names each.
    """
    from keystrand.plan.pilots import decide_all

    estate = estate_of(estate_file)
    names = chosen(estate, links)
    plan = decide_all(estate, own_equipment(estate))
    if as_json:
        for name in names:
            print_json(told(estate, plan, name))
    else:
        show_table(HEADINGS, [_row(plan, name) for name in names])
        _summary(plan)
    if everywhere:
        _everywhere(estate, plan, as_json)


def _row(plan: Plan, name: str) -> tuple[object, ...]:
    decision, now = plan.decisions[name], plan.now(name)
    later = "" if decision.pattern is now else decision.pattern
    led = decision.led.rule
    waits = dict.fromkeys(f"waits: {wait.key}" for wait in plan.waits.get(name, ()))
    shut = [f.rule.key for f in decision.against] or [*waits]
    more = f", +{len(shut) - SHOWN}" if len(shut) > SHOWN else ""
    return name, now, later, f"{led.key} {led.requirement}", ", ".join(shut[:SHOWN]) + more


def _summary(plan: Plan) -> None:
    for place, each in enumerate(plan.ranked, 1):
        kind = "later" if each.link not in plan.pilots else "waits" if plan.waits[each.link] else "pilot"
        met = ", ".join(f"{name}: {answer}" for name, answer in each.criteria)
        say(f"{place}. {each.link} ({kind}; {met})")
        for wait in plan.waits[each.link]:
            say(f"   {wait}")
    for finding in plan.findings:
        say(f"{finding.severity}: {finding.says} ({finding.requirement})")
    tally(finding for decision in plan.decisions.values() for finding in decision.findings)


def told(estate: Estate, plan: Plan, name: str) -> dict[str, Any]:
    """Everything, for machines."""
    from keystrand.plan.decide import change, removed

    decision = plan.decisions[name]
    made = change(estate.links[name], decision.pattern)
    return {
        "link": name,
        "now": plan.now(name),
        "pattern": decision.pattern,
        "layers": decision.pattern.layers,
        "keeps": made.keeps,
        "adds": made.adds,
        "removes": removed(estate.links[name], made),
        "pilot": name in plan.pilots,
        "waits": [{"for": w.key, "requirement": w.requirement, "says": w.says} for w in plan.waits.get(name, ())],
        "interaction": decision.interaction,
        "qkd_alone_accepted_by": decision.qkd_alone or None,
        "led_by": decision.led.rule.key,
        "against_qkd": [fired.rule.key for fired in decision.against],
        "fired": [
            {
                "rule": fired.rule.key,
                "requirement": fired.rule.requirement,
                "asks": fired.rule.asks,
                "answer": fired.answer,
                "evidence": fired.evidence,
            }
            for fired in decision.fired
        ],
        "findings": finding_rows(decision.findings),
    }


def _everywhere(estate: Estate, plan: Plan, as_json: bool) -> None:
    from keystrand.plan.pilots import everywhere, priced

    found = everywhere(estate, plan.feasibilities)
    if as_json:
        print_json(
            {
                "everywhere": found.links,
                "feasible": found.feasible,
                "infeasible": found.infeasible,
                "unknown": found.unknown,
                "relays": found.relays,
                "cost": priced(found.cost),
            }
        )
        return
    say(
        f"QKD on all {found.links} links: {found.feasible} feasible with {found.relays} relays, "
        f"{found.infeasible} infeasible, {found.unknown} unknown; cost {priced(found.cost)}"
    )
