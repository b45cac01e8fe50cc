"""One link of `keystrand plan risk` in full: dominance, relays, dates, what moves the answer and what turns it round."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli.plan_figures import SHORT, numbers, percent, years
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import amount, say

if TYPE_CHECKING:
    from keystrand.plan.estate import Estate
    from keystrand.plan.montecarlo import Flip, Swing, Trial
    from keystrand.plan.outcome import Outcome
    from keystrand.plan.positions import Deadline
    from keystrand.plan.residual import Blast

SHOWN = 6


def show(estate: Estate, trial: Trial, case: Outcome, risk: Any, accept: float | None) -> None:
    from keystrand.plan.fact import Unknown

    say("")
    if isinstance(risk, Unknown):
        say(f"{case.name}: {risk}")
        return
    exposure = risk.exposure
    say(f"{case.name}, of what is sent until the migration ends and of the years before:")
    click.echo(f"  read later {percent(exposure.share)}; lies open for {years(exposure.years)} on average")
    click.echo(f"  of what was recorded in the past {percent(exposure.backlog)} (backlog)")
    for line in _effort(case):
        click.echo(f"  {line}")
    say("\nleft with each layer added; no worse: share of draws in which it is not above the one before")
    show_table(
        ("pattern", "left", "likely", "no worse"),
        [(SHORT[r.build.pattern], percent(r.left), f"{r.left.likely:.2%}", f"{r.no_worse:.0%}") for r in risk.rungs],
    )
    say("\none relay broken: what it reads, without and with PQC end to end")
    show_table(("relays", "PQC on top", "left, bounds", "reads a day"), [_blast_row(b) for b in blasts(case)])
    say(f"QKD alone beats PQC alone with fewer than {_budget(estate)} relays; combined, no limit")
    say("\nwhat moves the likely figure most, each assumption by itself")
    show_table(("assumption", "from", "to", "basis"), [_swing_row(s) for s in swings(estate, case)[:SHOWN]])
    say("\nwhat would turn an answer round; inside: within its stated range, the answer is not robust")
    show_table(("answer", "turns if", "range"), [*_flip_rows(estate, case, accept)])
    say("\ndates of agencies and laws that speak to this link")
    show_table(("due", "standing", "binding", "body", "says"), [_date_row(d) for d in case.deadlines])
    for clash in _conflicts(estate, case):
        say(f"at odds: {clash}")


def told(estate: Estate, case: Outcome, risk: Any, accept: float | None) -> dict[str, Any]:
    """The same for `--json`."""
    return {
        "relay_budget": numbers(_budget_span(estate)),
        "blast": [
            {
                "relays": b.relays,
                "pqc_on_top": b.overlay,
                "left": numbers(b.residual),
                "reads_bytes_per_day": b.read_bytes_per_day,
            }
            for b in blasts(case)
        ],
        "tornado": [
            {"assumption": s.name, "low": s.low, "high": s.high, "basis": s.basis} for s in swings(estate, case)
        ],
        "flips": [
            {"answer": answer, "assumption": f.name, "at": f.at, "upwards": f.upwards, "within_range": f.within}
            for answer, f in flip_points(estate, case, accept)
        ],
        "deadlines": [
            {
                "due": d.position.due,
                "left_years": d.left_years,
                "standing": d.standing,
                "binding": d.position.binding,
                "body": d.position.body,
                "document": d.position.document,
                "says": d.position.says,
                "seen": d.position.seen,
                "last_verified": d.position.last_verified,
            }
            for d in case.deadlines
        ],
        "conflicts": [str(clash) for clash in _conflicts(estate, case)],
    }


def blasts(case: Outcome) -> tuple[Blast, ...]:
    from keystrand.plan.residual import Corners, blast

    assert isinstance(case.worlds, Corners), "a risk was found"
    return blast(case.link, case.worlds, case.feasibility.relays or 0, len(case.build(case.pattern).relays))


def swings(estate: Estate, case: Outcome) -> tuple[Swing, ...]:
    from keystrand.plan.montecarlo import tornado

    assert case.classified.horizon_years is not None
    return tornado(estate, case.classified.horizon_years, case.starved, case.build(case.pattern))


def flip_points(estate: Estate, case: Outcome, accept: float | None) -> Iterator[tuple[str, Flip]]:
    """QKD alone against PQC alone, and the accepted risk against what was decided."""
    from keystrand.plan.montecarlo import flips
    from keystrand.plan.pattern import Pattern
    from keystrand.plan.residual import Build, residual

    horizon = case.classified.horizon_years
    assert horizon is not None
    decided = case.build(case.pattern)
    pqc = Build(pattern=Pattern.PQC, hybrid=False)
    qkd = Build(pattern=Pattern.PQC_QKD, relays=decided.relays, qkd_alone=True)
    better = flips(estate, horizon, case.starved, lambda world: residual(world, qkd) < residual(world, pqc))
    yield from (("QKD alone against PQC alone", flip) for flip in better)
    if accept is not None:
        kept = flips(estate, horizon, case.starved, lambda world: residual(world, decided) <= accept)
        yield from ((f"{SHORT[case.pattern]} leaves at most {accept:.2%}", flip) for flip in kept)


def _conflicts(estate: Estate, case: Outcome) -> tuple[Any, ...]:
    from keystrand.plan.positions import applying, conflicts

    return conflicts(applying(estate, case.name))


def _effort(case: Outcome) -> Iterator[str]:
    from keystrand.plan.exposure import effort
    from keystrand.plan.fact import Unknown

    found = effort(case.link)
    if isinstance(found, Unknown):
        yield f"effort of reading {found}"
        return
    each = "" if found.bytes_per_run is None else f", {amount(found.bytes_per_run)} for each"
    yield f"one day of it costs {found.runs_per_day:,.0f} runs of the machine, if every refresh is a fresh exchange{each}"


def _blast_row(row: Blast) -> tuple[object, ...]:
    reads = "unknown: no volume stated" if row.read_bytes_per_day is None else amount(row.read_bytes_per_day)
    return row.relays, "yes" if row.overlay else "no", percent(row.residual), reads


def _swing_row(swing: Swing) -> tuple[object, ...]:
    return swing.name, f"{swing.low:.2%}", f"{swing.high:.2%}", swing.basis


def _flip_rows(estate: Estate, case: Outcome, accept: float | None) -> Iterator[tuple[object, ...]]:
    for answer, flip in flip_points(estate, case, accept):
        yield answer, flip, "inside" if flip.within else "outside"


def _date_row(found: Deadline) -> tuple[object, ...]:
    place = found.position
    return place.due, found.standing, place.binding, place.body, shorten(place.says, 36, placeholder="…")


def _budget_span(estate: Estate) -> Any:
    from keystrand.plan.residual import relay_budget

    return relay_budget(estate.assumptions)


def _budget(estate: Estate) -> str:
    span = _budget_span(estate)
    return f"{span.low:.3g} to {span.high:.3g} (likely {span.likely:.3g})"
