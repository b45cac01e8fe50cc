"""keystrand plan gates"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli import exits
from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_equipment import own_equipment
from keystrand.cli.plan_estate import ESTATE, estate_of, finding_rows
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.estate import Estate
    from keystrand.plan.gates import Exit, Gate
    from keystrand.plan.outcome import Plan

SHOWN = ("gates", "raci", "skills", "risks")


@click.command()
@ESTATE
@click.option("--show", type=click.Choice(SHOWN), default="gates", show_default=True, help="What to print.")
@json_option
def command(estate_file: Path, show: str, as_json: bool) -> int:
    """Print what keeps each gate shut, with the text of every open question and the figures that are asked and reached.

    --show raci: who is accountable for each component and alarm. --show skills: who can do what a pilot needs. --show risks:
    the register of the programme. Exit status 1 where the gate after the estate's stage is shut, or somebody is missing.
    """
    from keystrand.plan.whole import whole

    estate = estate_of(estate_file)
    plan = whole(estate, own_equipment(estate))
    shows = {"gates": _gates, "raci": _raci, "skills": _skills, "risks": _risks}
    return exits.OK if shows[show](plan, as_json) else exits.REFUSED


def _gates(plan: Plan, as_json: bool) -> bool:
    for gate in plan.gates:
        if as_json:
            print_json(_told(gate))
            continue
        click.echo(f"into {gate.into}: {'open' if gate.is_open else f'shut by {len(gate.blocks)}'}")
        for exit_ in gate.exits:
            click.echo(
                f"  {'met    ' if exit_.is_met else 'NOT MET'} {exit_.criterion.bound:>8}  {exit_.criterion.says}"
            )
        measured = {exit_.criterion.measure for exit_ in gate.exits}
        for finding in gate.findings:
            if finding.where[-1] not in measured:
                click.echo(f"  {finding.requirement} {finding.severity:8}  {finding.says}")
    return _next_is_open(plan.estate, plan.gates)


def _next_is_open(estate: Estate, gates: tuple[Gate, ...]) -> bool:
    """The gate after the stage that the estate says it is in."""
    from keystrand.plan.stages import Stage

    after = [gate for gate in gates if gate.into.rank > Stage(estate.governance.stage).rank]
    return not after or after[0].is_open


def _told(gate: Gate) -> dict[str, Any]:
    exits_ = [_exit(exit_) for exit_ in gate.exits]
    return {"into": gate.into.value, "open": gate.is_open, "exits": exits_, "findings": finding_rows(gate.findings)}


def _exit(exit_: Exit) -> dict[str, Any]:
    reached = exit_.reached
    return {
        "measure": exit_.criterion.measure,
        "asked": exit_.criterion.bound,
        "reached": None if reached is None else [reached.span.low, reached.span.high],
        "basis": None if reached is None else reached.basis.value,
        "met": exit_.is_met,
    }


def _raci(plan: Plan, as_json: bool) -> bool:
    from keystrand.plan.duties import raci, unowned

    rows = [row.plain() for row in raci(plan.estate)]
    if as_json:
        for row in rows:
            print_json(row)
    else:
        columns = ("kind", "name", "accountable", "responsible", "consulted", "informed")
        show_table(columns, [[row[column] or "-" for column in columns] for row in rows])
    found = list(unowned(plan.estate))
    for finding in found:
        say(f"{finding.requirement} {finding.says}")
    return not found


def _skills(plan: Plan, as_json: bool) -> bool:
    from keystrand.plan.duties import skill_gaps, skills

    most = max((outcome.relays for outcome in plan.pilots), default=0)
    staffed = skills(plan.estate, relays=most)
    if as_json:
        for each in staffed:
            print_json({"skill": each.skill.name, "people": each.people, "missing": each.gap})
    else:
        show_table(
            ("skill", "missing", "who", "what"),
            [(each.skill.name, each.gap, ", ".join(each.people) or "nobody", each.skill.says) for each in staffed],
        )
    found = [f for outcome in plan.pilots for f in skill_gaps(plan.estate, outcome.name, relays=outcome.relays)]
    for finding in found:
        say(f"{finding.requirement} {finding.says}")
    return not found


def _risks(plan: Plan, as_json: bool) -> bool:
    from keystrand.plan.programme import register_of

    for entry in register_of(plan):
        if as_json:
            risk = entry.risk
            told = {"risk": risk.name, "says": risk.says, "stands": entry.stands, "mitigation": risk.mitigation}
            print_json(told | {"owner": entry.owner})
        else:
            click.echo(f"{entry.risk.name} ({entry.owner}): {entry.risk.says}")
            click.echo(f"  stands at: {entry.stands}")
            click.echo(f"  answer:    {entry.risk.mitigation}")
    return True
