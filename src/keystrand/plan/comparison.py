"""The five approaches beside each other, as facts and with the numbers of each link (R148)."""

from __future__ import annotations

from typing import Final

import msgspec

from keystrand.plan.board import cost_of
from keystrand.plan.fact import Unknown
from keystrand.plan.outcome import Outcome, Plan
from keystrand.plan.page import Cell, Section, Table, chance, merged, ranged
from keystrand.plan.pattern import Pattern
from keystrand.plan.shelf import shipped_rows

QKD, PQC, HARDENING, APPLIANCE, RELAYS = range(5)
SIMPLE: Final = {HARDENING: Pattern.CLASSICAL, PQC: Pattern.PQC}
HEADINGS: Final = ("approach", "gives", "fits best", "is limited by", "complexity to run")


class Approach(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of facts."""

    name: str
    gives: str
    fits: str
    limited_by: str
    complexity: str


def approaches() -> tuple[Approach, ...]:
    return shipped_rows("approaches", "approaches", Approach)


def comparison(plan: Plan) -> Section:
    """The table of facts, and one row of numbers for each link."""
    facts = tuple(
        tuple(Cell(text) for text in (a.name, a.gives, a.fits, a.limited_by, a.complexity)) for a in approaches()
    )
    numbers = merged((Cell(o.name), *(instance(o, number) for number in range(len(facts)))) for o in plan.outcomes)
    return Section(
        name="comparison",
        title="The approaches, and what each would mean here",
        paragraphs=(
            "Approaches are layers to add to each other, not a choice of one. Chances are of today's traffic being read.",
        ),
        parts=(
            Table(name="approaches", title="Five approaches", columns=HEADINGS, rows=facts),
            Table(
                name="instances",
                title="The same five, with the numbers of each link",
                columns=("link", *(a.name for a in approaches())),
                rows=numbers,
            ),
        ),
    )


def instance(o: Outcome, approach: int) -> Cell:
    """What an approach would mean on a link: rate and risk, risk, risk, boxes, relays."""
    if approach == APPLIANCE:
        return Cell(_boxes(o))
    if isinstance(o.worlds, Unknown):
        return Cell(str(o.worlds))
    if approach in SIMPLE:
        simple = chance(o.worlds.residual(o.build(SIMPLE[approach])), o.risk_basis)
        return Cell(f"{simple.text}; {cost_of(o, SIMPLE[approach]).text}", o.risk_basis)
    found = o.feasibility
    if found.skr_bps is None:
        return Cell(f"not possible: {why_not(o)}")
    if found.skr_bps.span.high <= 0:
        return Cell("not possible: no key arrives over this loss, or beside this light")
    risk = chance(o.worlds.residual(o.build(Pattern.PQC_QKD)), o.risk_basis).text
    if approach == QKD:
        rate = ranged(found.skr_bps.span, "bit/s")
        needed = ranged(found.demand.total.span, "bit/s")
        return Cell(
            f"{rate}, of {needed} needed; {risk} on top of PQC; {cost_of(o, Pattern.PQC_QKD).text}", o.risk_basis
        )
    if not found.relays:
        return Cell("not needed: the ends reach each other")
    sites = ", ".join(found.sites) if found.sites else "too few sites may hold one"
    return Cell(f"{found.relays} nodes ({sites}); {risk} on top of PQC", o.risk_basis)


def why_not(o: Outcome) -> str:
    """Why there is no figure of QKD: what the path says, before anything else."""
    assumed = set(o.feasibility.demand.assumed)  # what was filled in for the demand keeps no key from arriving
    told = (reason for reason in (*o.feasibility.path.reasons, *o.feasibility.reasons) if reason not in assumed)
    return next(told, "not computed")


def _boxes(o: Outcome) -> str:
    chosen = [o.estate.devices[name] for name in o.link.devices]
    tied = [
        name for name in o.link.devices if not set(o.estate.devices[name].interfaces) & {"etsi014", "etsi004", "skip"}
    ]
    locked = f"; {', '.join(tied)} without a standard interface" if tied else ""
    return f"{2 * o.link.tunnels} ends{locked}" if chosen or o.link.tunnels else "no tunnel stated"
