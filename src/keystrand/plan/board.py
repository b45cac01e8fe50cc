"""The leadership page: data, links, horizons and adversaries, what changes, by when, and what would change the answer.

It does without the vocabulary of physics, and shows no figure without its range.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from keystrand.plan.claims import physics_words
from keystrand.plan.drawing import Intervals, intervals
from keystrand.plan.fact import Basis, Unknown
from keystrand.plan.outcome import AS_DECIDED, NOW, WITH_PQC, Outcome, Plan
from keystrand.plan.page import Cell, Picture, Section, Table, chance, lasting, lifelong, merged, ranged
from keystrand.plan.pattern import Pattern
from keystrand.plan.positions import Standing

AXES: Final = ("data", "link", "must stay secret for", "who could read it")
PLAIN: Final = {
    Pattern.CLASSICAL: "hardening only",
    Pattern.PQC: "post-quantum keys",
    Pattern.PQC_QKD: "post-quantum keys, and keys of QKD",
    Pattern.PQC_QKD_MULTI: "post-quantum keys, and keys of QKD from several sources",
    Pattern.PQC_QKD_OTP: "post-quantum keys, and keys of QKD, with a one-time pad for a small part",
}
TURNS_SHOWN: Final = 3
URGENT: Final = (Standing.PASSED, Standing.LATE, Standing.AT_RISK, Standing.IN_TIME)


def board(plan: Plan) -> Section:
    """The whole page."""
    return Section(
        name="board",
        title="For the board",
        paragraphs=tuple(_headlines(plan)),
        parts=(_axes(plan), *_before_after_picture(plan), _before_after(plan)),
        board=True,
    )


def _headlines(plan: Plan) -> Iterator[str]:
    counted = {pattern: sum(o.pattern is pattern for o in plan.outcomes) for pattern in Pattern}
    parts = [
        f"{count} {'gets' if count == 1 else 'get'} {PLAIN[pattern]}" for pattern, count in counted.items() if count
    ]
    yield f"{len(plan.outcomes)} links were looked at: {'; '.join(parts)}."
    if plan.with_qkd:
        names = ", ".join(outcome.name for outcome in plan.with_qkd)
        yield f"QKD is proposed for {names}, always on top of post-quantum keys, and only once its gates are open."
    if plan.waiting:
        names = ", ".join(outcome.name for outcome in plan.waiting)
        yield f"QKD would be worth its trouble on {names}, and waits until its gates are open: {PLAIN[Pattern.PQC]} until then."
    if not plan.pilots:
        yield "No link justifies QKD today. The plan stands without it; the dates and figures below say what would change that."
    yield (
        "No pattern of keys helps where data is decrypted: a broken server, an insider, a bug, a forged route or misuse later. "
        "That share stands in every figure below."
    )
    shut = [gate for gate in plan.gates if not gate.is_open]
    if shut:
        yield f"The gate into {shut[0].into} is shut by {len(shut[0].blocks)} open points; the roadmap names each."


def _axes(plan: Plan) -> Table:
    rows = merged(
        (
            (
                Cell(", ".join(o.classified.carries) or "unknown"),
                Cell(o.name),
                lifelong(o.classified.horizon_years),
                Cell(o.adversary),
                Cell(PLAIN[o.pattern]),
                Cell(turns(o)),
            )
            for o in plan.outcomes
        ),
        at=1,
    )
    return Table(
        name="axes",
        title="What is to be protected, and the decision",
        columns=(*AXES, "decision", "what would change it"),
        rows=rows,
    )


def turns(o: Outcome) -> str:
    """The nearest changes of one input that would change the decision, those that need no physics to be told."""
    told = [words for words in map(str, o.flips) if not physics_words(words)]
    return "; ".join(told[:TURNS_SHOWN]) or o.unturned


def _before_after_picture(plan: Plan) -> Iterator[Picture]:
    """Links whose decision changes something; the others are named, for there is nothing to see."""
    risks = {o.name: o.risks for o in plan.outcomes if not isinstance(o.risks, Unknown)}
    rows = [Intervals(name, list(found.items())) for name, found in risks.items() if found[NOW] != found[AS_DECIDED]]
    if not rows:
        return
    same = [name for name in risks if name not in {row.name for row in rows}]
    title = "Chance that traffic of today is read while it must be secret"
    says = "; ".join(
        f"{row.name}: " + ", ".join(f"{label} {100 * s.low:.0f} to {100 * s.high:.0f} %" for label, s in row.spans)
        for row in rows
    )
    says += f". As good already: {', '.join(same)}." if same else "."
    yield Picture(name="intervals", title=title, says=says, svg=intervals(rows, title, says))


def _before_after(plan: Plan) -> Table:
    note = (
        "Chances are ranges under the assumptions listed at the end; they order the options, they are no forecast. "
        "Days that keys lie in store are the window for whoever breaks into the store."
    )
    return Table(
        name="before-after",
        title="Before and after",
        columns=("link", NOW, WITH_PQC, AS_DECIDED, "keys lie in store", "dates of regulators", "cost of the decision"),
        rows=merged(_row(outcome) for outcome in plan.outcomes),
        note=note,
    )


def _row(o: Outcome) -> tuple[Cell, ...]:
    if isinstance(o.risks, Unknown):
        risks = [Cell(str(o.risks))] * 3
    else:
        risks = [chance(span, o.risk_basis) for span in o.risks.values()]
    store = o.feasibility.store if o.pattern.has_qkd else None
    window = Cell(lasting(store.exposure_s)) if store else Cell("no store of keys of QKD")
    return (Cell(o.name), *risks, window, Cell(_dates(o)), cost_of(o))


def _dates(o: Outcome) -> str:
    """How many dates stand where, and the nearest of the most urgent ones."""
    found = o.deadlines
    counted = {standing: [d for d in found if d.standing is standing] for standing in URGENT}
    told = [f"{len(those)} {standing.value}" for standing, those in counted.items() if those]
    if not told:
        return "none that binds" if not found else "met"
    first = next(those for those in counted.values() if those)[0]
    return f"{', '.join(told)}; next: {first.position.body}, {first.position.due}"


def cost_of(o: Outcome, pattern: Pattern | None = None) -> Cell:
    """Of what was decided, or of another pattern, over the years of the tariffs."""
    found = o.costs.get(pattern or o.pattern)
    if found is None:
        return Cell("unknown: not computed")
    if isinstance(found, Unknown):
        return Cell(str(found))
    basis = Basis.weakest(layer.basis for layer in found.layers)
    return Cell(f"{ranged(found.total, found.currency)} in {found.years:g} years", basis)
