"""keystrand plan risk"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli.options import FILE, json_option, print_json
from keystrand.cli.plan_estate import ESTATE, LINK, chosen, estate_of
from keystrand.cli.plan_figures import SHORT, numbers, outcomes, percent, years
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.estate import Estate
    from keystrand.plan.fact import Unknown
    from keystrand.plan.montecarlo import Trial
    from keystrand.plan.outcome import Outcome
    from keystrand.plan.risk import LinkRisk

HEADINGS = ("link", "keep for", "read later", "left: today", "with PQC", "as decided", "decided")


@click.command()
@ESTATE
@LINK
@click.option("--draws", default=10_000, show_default=True, type=click.IntRange(100, 1_000_000), help="Of assumptions.")
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0), help="The same seed gives the same figures."
)
@click.option(
    "--accept", default=None, type=click.FloatRange(0, 1), help="Risk that is accepted: where does that flip?"
)
@click.option("--plot", "picture", default=None, type=FILE, help="Draw exposure and bands into this PNG, SVG or PDF.")
@json_option
def command(
    estate_file: Path,
    links: tuple[str, ...],
    draws: int,
    seed: int,
    accept: float | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Say what a later machine would read of each link, and what risk is left under what was decided.

    READ LATER is the share of recorded traffic that a quantum computer opens while it must still be secret, under classical key
    exchange: bounds over all ranges. LEFT is the chance that traffic is read all the same, as a band over all draws and both
    curves of the survey; the failures at the ends are in it, and no pattern takes them away. With --link: what moves it, and
    what would turn it round.
    """
    from keystrand.plan.montecarlo import Trial
    from keystrand.plan.risk import link_risk

    estate = estate_of(estate_file)
    trial = Trial(estate, draws, seed)
    found = [(case, link_risk(case, trial)) for case in outcomes(estate, chosen(estate, links))]
    if picture is not None:
        _draw(picture, estate, found)
    if as_json:
        for case, risk in found:
            print_json(_told(estate, trial, case, risk, accept))
        return
    show_table(HEADINGS, [_row(case, risk) for case, risk in found])
    if links:
        for case, risk in found:
            _show_detail(estate, trial, case, risk, accept)
    _say_what_it_rests_on(estate, trial, [risk for _, risk in found])


def _row(case: Outcome, risk: LinkRisk | Unknown) -> tuple[object, ...]:
    from keystrand.plan.fact import Unknown

    if isinstance(risk, Unknown) or case.classified.horizon_years is None:
        return case.name, "unknown", "unknown", "unknown", "unknown", "unknown", SHORT[case.pattern]
    keep = years(case.classified.horizon_years.span)
    pqc = percent(risk.rungs[1].left) if len(risk.rungs) > 1 else "-"
    mark = " *" if risk.notes else ""
    return (
        case.name,
        keep,
        percent(risk.exposure.share),
        percent(risk.before),
        pqc,
        percent(risk.after),
        f"{SHORT[case.pattern]}{mark}",
    )


def _say_what_it_rests_on(estate: Estate, trial: Trial, risks: list[LinkRisk | Unknown]) -> None:
    from keystrand.plan.fact import Basis, Unknown
    from keystrand.plan.survey import arrival, survey

    told = [risk for risk in risks if not isinstance(risk, Unknown)]
    for note in dict.fromkeys(note for risk in told for note in risk.notes):
        say(f"* {note}")
    basis = Basis.weakest(risk.basis for risk in told)
    say(f"{basis}; bands: 5 % to 95 % of {trial.count:,} draws (seed {trial.seed}), machine late to machine early")
    say(arrival(estate.assumptions, estate.planned).told)
    if estate.assumptions.machine_years is None:
        say(survey().caveats[0])


def _show_detail(estate: Estate, trial: Trial, case: Outcome, risk: LinkRisk | Unknown, accept: float | None) -> None:
    from keystrand.cli import plan_risk_detail

    plan_risk_detail.show(estate, trial, case, risk, accept)


def _told(
    estate: Estate, trial: Trial, case: Outcome, risk: LinkRisk | Unknown, accept: float | None
) -> dict[str, Any]:
    from keystrand.cli import plan_risk_detail
    from keystrand.plan.fact import Unknown

    plain = {"link": case.name, "pattern": case.pattern}
    if isinstance(risk, Unknown):
        return {**plain, "unknown": risk.reasons}
    return {
        **plain,
        "basis": risk.basis,
        "seed": trial.seed,
        "draws": trial.count,
        "machine": _machine_told(estate),
        "exposed_share": numbers(risk.exposure.share),
        "exposed_years": numbers(risk.exposure.years),
        "backlog_share": numbers(risk.exposure.backlog),
        "beyond_asked": risk.exposure.beyond_asked,
        "left": [
            {"pattern": rung.build.pattern, "band": numbers(rung.left), "no_worse_than_before": rung.no_worse}
            for rung in risk.rungs
        ],
        "post_quantum_today": risk.migrated,
        "left_today": numbers(risk.before),
        "notes": risk.notes,
        **plan_risk_detail.told(estate, case, risk, accept),
    }


def _machine_told(estate: Estate) -> dict[str, Any]:
    """Whose word the curve is, and what to bear in mind."""
    from keystrand.plan.survey import arrival, survey

    told = arrival(estate.assumptions, estate.planned).told
    if estate.assumptions.machine_years is not None:
        return {"told": told}
    edition = survey().editions[estate.assumptions.survey]
    return {
        "told": told,
        "question": survey().question,
        "experts": edition.experts,
        "published": edition.published,
        "counted_from": edition.counted_from,
        "counted_from_basis": edition.counted_from_basis,
        "last_verified": edition.last_verified,
        "note": edition.note,
        "caveats": survey().caveats,
    }


def _draw(picture: Path, estate: Estate, found: list[tuple[Outcome, LinkRisk | Unknown]]) -> None:
    from keystrand.lab.risk_picture import Bar, draw
    from keystrand.plan.fact import Unknown

    bars = [
        Bar(case.name, case.classified.horizon_years.span, tuple((r.build.pattern.value, r.left) for r in risk.rungs))
        for case, risk in found
        if not isinstance(risk, Unknown) and case.classified.horizon_years is not None
    ]
    draw(picture, estate, bars)
    say(f"drew {picture}")
