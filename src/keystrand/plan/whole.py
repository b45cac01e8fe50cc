"""A whole plan from an estate: every link classified, held against physics, decided and priced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from keystrand.plan.classify import classify
from keystrand.plan.cost import Costs, bill_of, cost
from keystrand.plan.decide import decide
from keystrand.plan.equipment import Equipment
from keystrand.plan.estate import Estate
from keystrand.plan.fact import Unknown
from keystrand.plan.feasibility import NOBODYS, Feasibility, feasible
from keystrand.plan.outcome import Outcome, Plan
from keystrand.plan.pattern import Pattern

PRICED: Final = (Pattern.CLASSICAL, Pattern.PQC, Pattern.PQC_QKD)
"""What is priced for every link, to compare, besides what was decided."""


def whole(estate: Estate, own: Mapping[str, Equipment] = NOBODYS) -> Plan:
    """The plan of an estate. `own`: device profiles from the user's files, by name."""
    return Plan(estate, tuple(_outcome(estate, name, own) for name in estate.links))


def _outcome(estate: Estate, name: str, own: Mapping[str, Equipment]) -> Outcome:
    classified, feasibility = classify(estate, name), feasible(estate, name, own)
    decision = decide(estate, name, classified, feasibility)
    told = (decision.led, *decision.against)
    return Outcome(
        estate=estate,
        name=name,
        classified=classified,
        feasibility=feasibility,
        pattern=decision.pattern,
        reasons=tuple(
            f"{fired.rule.asks} {fired.answer}: {fired.evidence} ({fired.rule.requirement})" for fired in told
        ),
        own=own,
        costs={pattern: _cost(estate, name, pattern, feasibility) for pattern in (*PRICED, decision.pattern)},
    )


def _cost(estate: Estate, name: str, pattern: Pattern, feasibility: Feasibility) -> Costs | Unknown:
    bill = bill_of(estate.links[name], pattern, feasibility.hops)
    return bill if isinstance(bill, Unknown) else cost(estate, bill)
