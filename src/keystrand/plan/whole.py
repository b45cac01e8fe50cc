"""A whole plan from an estate: every link classified, held against physics, decided and priced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from keystrand.plan.cost import Costs, bill_of, cost
from keystrand.plan.equipment import Equipment
from keystrand.plan.estate import Estate
from keystrand.plan.fact import Unknown
from keystrand.plan.feasibility import NOBODYS, Feasibility
from keystrand.plan.outcome import Outcome, Plan
from keystrand.plan.pattern import Pattern
from keystrand.plan.pilots import Plan as Decided
from keystrand.plan.pilots import decide_all

PRICED: Final = (Pattern.CLASSICAL, Pattern.PQC, Pattern.PQC_QKD)
"""What is priced for every link, to compare, besides what was decided."""


def whole(estate: Estate, own: Mapping[str, Equipment] = NOBODYS) -> Plan:
    """The plan of an estate. `own`: device profiles from the user's files, by name.

    QKD stands on the pilots only, and there only once their gates are open; a candidate that waits has PQC, and says so.
    """
    decided = decide_all(estate, own)
    return Plan(estate, tuple(_outcome(estate, name, own, decided) for name in estate.links))


def _outcome(estate: Estate, name: str, own: Mapping[str, Equipment], decided: Decided) -> Outcome:
    decision, feasibility, pattern = decided.decisions[name], decided.feasibilities[name], decided.now(name)
    told = (decision.led, *decision.against)
    reasons = [f"{fired.rule.asks} {fired.answer}: {fired.evidence} ({fired.rule.requirement})" for fired in told]
    reasons += map(str, decided.waits.get(name, ()))
    return Outcome(
        estate=estate,
        name=name,
        classified=decided.classified[name],
        feasibility=feasibility,
        pattern=pattern,
        meant=decided.meant(name),
        reasons=tuple(reasons),
        own=own,
        costs={each: _cost(estate, name, each, feasibility) for each in (*PRICED, decision.pattern)},
    )


def _cost(estate: Estate, name: str, pattern: Pattern, feasibility: Feasibility) -> Costs | Unknown:
    bill = bill_of(estate.links[name], pattern, feasibility.hops)
    return bill if isinstance(bill, Unknown) else cost(estate, bill)
