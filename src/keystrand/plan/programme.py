"""The chapters about the programme: roadmap and gates, people and risks, dates of agencies."""

from __future__ import annotations

from keystrand.plan.cost import hardware_findings
from keystrand.plan.duties import raci, skills
from keystrand.plan.fact import Unknown, figure
from keystrand.plan.finding import Finding
from keystrand.plan.outcome import Plan
from keystrand.plan.page import Section, Table, lasting, ranged, row, shown
from keystrand.plan.register import Entry, register
from keystrand.plan.roadmap import Leg

STANDARD = frozenset({"etsi014", "etsi004", "skip"})
DUTY_COLUMNS = ("accountable", "responsible", "consulted", "informed")


def way(plan: Plan) -> Section:
    """Roadmap and gates."""
    found = [*plan.roadmap.findings, *budget(plan)]
    wrong = tuple(f"{f.says} ({f.requirement})" for f in found)
    return Section(
        name="roadmap",
        title="Roadmap",
        paragraphs=wrong or ("The estate's own dates keep to this order.",),
        parts=(_steps(plan), _exits(plan), _open(plan)),
    )


def budget(plan: Plan) -> tuple[Finding, ...]:
    """Money for hardware while questions of governance are open (R011)."""
    costs, shut = plan.budget, [finding for gate in plan.gates for finding in gate.blocks]
    return () if isinstance(costs, Unknown) else hardware_findings(costs, shut)


def _steps(plan: Plan) -> Table:
    rows = tuple(
        row(leg.step.name, leg.step.says, ", ".join(leg.step.after) or "–", _dates(leg), ", ".join(leg.links) or "all")
        for leg in plan.roadmap.legs
    )
    return Table(name="steps", title="Steps in order", columns=("step", "what", "after", "planned", "links"), rows=rows)


def _dates(leg: Leg) -> str:
    planned = leg.planned
    return f"{planned.starts or '?'} to {planned.ends or '?'}" if planned.starts or planned.ends else "not dated"


def _exits(plan: Plan) -> Table:
    rows = tuple(
        row(
            f"into {gate.into}",
            e.criterion.says,
            e.criterion.bound,
            shown(e.reached, "", why="nobody has measured it"),
            "yes" if e.is_met else "no",
        )
        for gate in plan.gates
        for e in gate.exits
    )
    columns = ("gate", "figure", "asked", "reached", "met")
    return Table(name="exits", title="Figures that open the gates", columns=columns, rows=rows)


def _open(plan: Plan) -> Table:
    rows = tuple(
        row(f"into {gate.into}", f.requirement, f.says, f.hint or "–") for gate in plan.gates for f in gate.findings
    )
    return Table(name="open", title="Open points", columns=("gate", "row", "what", "next"), rows=rows)


def people(plan: Plan) -> Section:
    """Duties, skills and the risk register."""
    return Section(
        name="people",
        title="People and risks of the programme",
        parts=(_risks(plan), *((_skills(plan),) if plan.pilots else ()), _raci(plan)),
    )


def register_of(plan: Plan) -> list[Entry]:
    """The risk register, each risk with its figure of this plan and the person who owns it."""
    governance = plan.estate.governance
    holders = {role: name for name, person in governance.people.items() for role in person.roles}
    holders |= {name: reply.by for name, reply in governance.replies.items() if reply.by}
    return register(measures(plan), holders)


def _risks(plan: Plan) -> Table:
    rows = tuple(row(e.risk.name, e.risk.says, e.stands, e.risk.mitigation, e.owner) for e in register_of(plan))
    columns = ("risk", "what", "stands at", "answer to it", "owner")
    return Table(name="risks", title="Risk register", columns=columns, rows=rows)


def _skills(plan: Plan) -> Table:
    rows = tuple(
        row(s.skill.name, s.skill.says, ", ".join(s.people) or "nobody", str(s.gap))
        for s in skills(plan.estate, relays=_relays(plan))
    )
    return Table(
        name="skills", title="Skills of a pilot", columns=("skill", "what", "who", "people missing"), rows=rows
    )


def _relays(plan: Plan) -> int:
    return max((o.relays for o in plan.pilots), default=0)


def _raci(plan: Plan) -> Table:
    told = [(duty, duty.plain()) for duty in raci(plan.estate)]
    rows = tuple(row(duty.kind, duty.name, *(plain[c] or "nobody" for c in DUTY_COLUMNS)) for duty, plain in told)
    return Table(name="raci", title="Who does what", columns=("kind", "name", *DUTY_COLUMNS), rows=rows)


def measures(plan: Plan) -> dict[str, str]:
    """The figures by which the risks of the register stand, in words."""
    estate, qkd, share = plan.estate, plan.pilots, qkd_share(plan)
    closed = [name for name, device in estate.devices.items() if not set(device.interfaces) & STANDARD]
    out = [o for o in plan.outcomes if not o.pattern.has_qkd and o.feasibility.relays != 0]
    stores = [o.feasibility.store.exposure_s for o in qkd if o.feasibility.store]
    floor = figure(estate.assumptions.endpoint).span.times(100)
    with_pilot = {
        "components_per_pilot": f"{2 + _relays(plan)} sites with modules",
        "skill_gaps": f"{sum(s.gap for s in skills(estate, relays=_relays(plan)))} people missing",
        "relays": f"{sum(o.relays for o in qkd)} trusted nodes",
        "longest_key_residence": lasting(max(stores)) if stores else "unknown: no store is planned",
    }
    return {
        "qkd_share_of_cost": share,
        "open_questions": f"{sum(len(gate.blocks) for gate in plan.gates)} open points; QKD hardware: {share}",
        "links_out_of_reach": f"{len(out)} of {len(plan.outcomes)} links",
        "devices_without_standard_interface": f"{len(closed)} of {len(estate.devices)} devices",
        "claims_refused": "0 in this report: one that claims too much is not printed",
        "endpoint_floor": f"{ranged(floor, '%')} in every figure",
        **{name: text if qkd else "no link has QKD" for name, text in with_pilot.items()},
    }


def qkd_share(plan: Plan) -> str:
    """What quantum hardware takes of the cost of all that is meant, in words (R011)."""
    costs = plan.budget
    if isinstance(costs, Unknown):
        return str(costs)
    return f"{costs.hardware_share:.0%} of {ranged(costs.total, costs.currency)} in {costs.years:g} years"


def dates(plan: Plan) -> Section:
    """Every date of an agency that speaks to a link."""
    found: dict[tuple[str, str], list[str]] = {}
    for outcome in plan.outcomes:
        for deadline in outcome.deadlines:
            position = deadline.position
            says = f"{position.body}, {position.document} ({position.binding}): {position.says}"
            found.setdefault((f"{position.due}", says), []).append(f"{outcome.name} ({deadline.standing})")
    rows = tuple(row(due, says, ", ".join(names)) for (due, says), names in sorted(found.items()))
    table = Table(name="dates", title="Dates", columns=("due", "who says what", "links"), rows=rows)
    return Section(
        name="dates",
        title="Dates that agencies have set",
        paragraphs=() if rows else ("No date in the catalogue speaks to a site of this estate.",),
        parts=(table,) if rows else (),
    )
