"""keystrand plan roadmap"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli import exits
from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_equipment import own_equipment
from keystrand.cli.plan_estate import ESTATE, estate_of, finding_rows
from keystrand.cli.terminal import complain, say

if TYPE_CHECKING:
    from keystrand.plan.roadmap import Leg


@click.command()
@ESTATE
@json_option
def command(estate_file: Path, as_json: bool) -> int:
    """Print the steps in the one order that is accepted: inventory, post-quantum first, key manager, then a pilot or two.

    Exit status 1 where the estate's own dates, or the stage that it says it is in, break that order.
    """
    from keystrand.plan.whole import whole

    estate = estate_of(estate_file)
    found = whole(estate, own_equipment(estate)).roadmap
    if as_json:
        for leg in found.legs:
            print_json(_told(leg))
        print_json({"rejected": found.is_rejected, "findings": finding_rows(found.findings)})
        return exits.REFUSED if found.is_rejected else exits.OK
    for leg in found.legs:
        after = f"after {', '.join(leg.step.after)}" if leg.step.after else ""
        click.echo(f"{leg.step.name:14} {_dates(leg):22} {after}".rstrip())
        click.echo(f"    {leg.step.says}" + (f": {', '.join(leg.links)}" if leg.step.qkd else ""))
    for finding in found.findings:
        complain(f"{finding.requirement} {finding.says}", finding.hint or None)
    shut = [gate for gate in found.gates if not gate.is_open]
    for gate in shut:
        say(f"the gate into {gate.into} is shut by {len(gate.blocks)} findings: keystrand plan gates {estate_file}")
    return exits.REFUSED if found.is_rejected else exits.OK


def _dates(leg: Leg) -> str:
    planned = leg.planned
    return f"{planned.starts or '?'}/{planned.ends or '?'}" if planned.starts or planned.ends else "not dated"


def _told(leg: Leg) -> dict[str, Any]:
    return {
        "step": leg.step.name,
        "stage": leg.step.stage.value,
        "says": leg.step.says,
        "after": leg.step.after,
        "links": leg.links,
        "starts": leg.planned.starts,
        "ends": leg.planned.ends,
    }
