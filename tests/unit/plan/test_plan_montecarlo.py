"""Drawing: agrees with the closed forms, is the same for the same seed, and knows links neither by name nor by order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan_survey import curves

from keystrand.plan.assumptions import Assumptions
from keystrand.plan.classify import classify
from keystrand.plan.estate import DataClass, Estate, FailurePolicy, Link
from keystrand.plan.fact import Basis, Figure, Span, Unknown, figure
from keystrand.plan.feasibility import feasible
from keystrand.plan.montecarlo import Trial, area, flips, quantiles, tornado, triangle
from keystrand.plan.outcome import Outcome
from keystrand.plan.pattern import Interaction, Pattern
from keystrand.plan.residual import Build, Corners, corners, relay_budget, residual
from keystrand.plan.risk import LinkRisk, ladder, link_risk
from keystrand.plan.survey import Curve, survey

COUNTED = survey().editions["2025"].counted_from
PLANNED = COUNTED + timedelta(days=365)
ESTATE = Estate(name="e", planned=PLANNED)
HORIZON, STARVED = figure((10.0, 20.0)), figure((0.0, 0.05))
CLASSICAL, PQC = Build(pattern=Pattern.CLASSICAL), Build(pattern=Pattern.PQC)
QKD = Build(pattern=Pattern.PQC_QKD, relays=(2,))
QKD_ALONE = replace(QKD, qkd_alone=True)
PQC_ALONE = replace(PQC, hybrid=False)

BUILDS = st.builds(
    Build,
    pattern=st.sampled_from(Pattern),
    interaction=st.sampled_from(Interaction),
    relays=st.lists(st.integers(0, 20), min_size=1, max_size=2).map(tuple),
    on_exhaustion=st.sampled_from(FailurePolicy),
    qkd_alone=st.booleans(),
)


@given(curves(), st.lists(st.floats(-5.0, 70.0), min_size=1, max_size=20))
def test_curves_are_the_same_for_arrays(curve: Curve, times: list[float]) -> None:
    assert area(curve)(np.array(times)) == pytest.approx([curve.area(t) for t in times], abs=1e-9)


@given(st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 5)).map(sorted))
def test_draws_fill_their_range_and_have_its_mean(ends: list[float]) -> None:
    span = Span(*ends)
    drawn = triangle(span, quantiles("any", 2000, 3))
    assert drawn.min() >= span.low - 1e-9
    assert drawn.max() <= span.high + 1e-9
    assert drawn.mean() == pytest.approx(sum(ends) / 3, abs=0.01 * (span.high - span.low) + 1e-9)


@settings(max_examples=40, deadline=None)
@given(BUILDS)
def test_points_give_the_closed_form(build: Build) -> None:
    points = {name: figure(getattr(Assumptions(), name)).span.likely for name in DRAWN}
    estate = Estate(name="e", planned=PLANNED, assumptions=Assumptions(**points))  # type: ignore[arg-type]
    horizon, starved = figure(12.0), figure(0.03)
    late, early = Trial(estate, 50).risks(horizon, starved, build)
    worlds = corners(estate, horizon, starved)
    assert isinstance(worlds, Corners)
    assert late == pytest.approx(np.full(50, residual(worlds.mild, build)))
    assert early == pytest.approx(np.full(50, residual(worlds.worst, build)))


def test_the_mean_over_a_range_is_the_closed_form_where_that_is_linear() -> None:
    """Exposure is linear in the chance of recording, and the floor of the endpoints in itself."""
    points = {name: figure(getattr(Assumptions(), name)).span.likely for name in DRAWN}
    ranged = points | {"recorded": (0.2, 1.0)}
    estate = Estate(name="e", planned=PLANNED, assumptions=Assumptions(**ranged))  # type: ignore[arg-type]
    likely = Estate(name="e", planned=PLANNED, assumptions=Assumptions(**points | {"recorded": 0.6}))  # type: ignore[arg-type]
    for drawn, exact in zip(
        *(Trial(e, 5000).risks(figure(12.0), None, CLASSICAL) for e in (estate, likely)), strict=True
    ):
        assert drawn.std() > 0.05
        assert drawn.mean() == pytest.approx(exact.mean(), abs=1e-4)


DRAWN = (
    "migration_years",
    "lag_years",
    "recorded",
    "endpoint",
    "pqc_break",
    "qkd_failure",
    "relay_per_year",
    "common_cause",
)


@settings(max_examples=40, deadline=None)
@given(BUILDS, st.integers(0, 1000))
def test_every_draw_lies_between_the_corners(build: Build, seed: int) -> None:
    worlds = corners(ESTATE, HORIZON, STARVED)
    assert isinstance(worlds, Corners)
    bounds = worlds.residual(build)
    for risks in Trial(ESTATE, 200, seed).risks(HORIZON, STARVED, build):
        assert bounds.low - 1e-9 <= risks.min()
        assert risks.max() <= bounds.high + 1e-9


def test_the_same_seed_gives_the_same_figures_and_another_nearly_the_same() -> None:
    one, again, other = (Trial(ESTATE, seed=seed).band(HORIZON, STARVED, QKD) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=0.02)


@settings(max_examples=8, deadline=None)
@given(st.permutations(["a", "b", "c", "d"]), st.lists(st.text("xyz", min_size=1), min_size=4, max_size=4, unique=True))
def test_order_and_names_of_links_change_nothing(order: list[str], names: list[str]) -> None:
    patterns = dict(zip("abcd", (Pattern.PQC_QKD, Pattern.PQC, Pattern.CLASSICAL, Pattern.PQC_QKD_MULTI), strict=True))
    horizons = dict(zip("abcd", (5.0, (10.0, 20.0), 30.0, (10.0, 20.0)), strict=True))
    plain, mixed = Trial(ESTATE, 300), Trial(ESTATE, 300)
    expected = {name: risk_of(name, name, horizons, patterns[name], plain).after for name in "abcd"}
    renamed = dict(zip("abcd", names, strict=True))
    for name in order:
        assert risk_of(renamed[name], name, horizons, patterns[name], mixed).after == expected[name]


def outcome_of(link: Link, horizon: object, pattern: Pattern, name: str = "l") -> Outcome:
    """As if it had been decided so."""
    estate = Estate(
        name="e",
        planned=PLANNED,
        classes={"c": DataClass(horizon_years=horizon)},  # type: ignore[arg-type]
        links={name: msgspec.structs.replace(link, carries=("c",))},
    )
    return Outcome(
        estate=estate,
        name=name,
        classified=classify(estate, name),
        feasibility=feasible(estate, name),
        pattern=pattern,
        meant=pattern,
        reasons=(),
    )


def risk_of(name: str, kind: str, horizons: dict[str, object], pattern: Pattern, trial: Trial) -> LinkRisk:
    link = Link(ends=("x", "y"), disjoint_paths=1 + (kind == "d"), on_exhaustion=FailurePolicy.CLOSED)
    found = link_risk(outcome_of(link, horizons[kind], pattern, name), trial)
    assert isinstance(found, LinkRisk)
    return found


@pytest.mark.proves("R147")
def test_before_and_after_are_bands_and_each_layer_dominates_the_one_before() -> None:
    link = Link(ends=("a", "b"), on_exhaustion=FailurePolicy.CLOSED, disjoint_paths=2)
    found = link_risk(outcome_of(link, (10.0, 20.0), Pattern.PQC_QKD_MULTI), Trial(ESTATE, 500))
    assert isinstance(found, LinkRisk)
    assert [rung.build.pattern for rung in found.rungs] == [Pattern.CLASSICAL, Pattern.PQC, Pattern.PQC_QKD_MULTI]
    assert [rung.no_worse for rung in found.rungs] == [1, 1, 1]
    assert found.before.low > found.after.high > found.after.likely > found.after.low > 0.01
    assert found.basis is Basis.ASSUMED
    assert found.notes == ()


def test_what_is_counted_at_its_worst_is_said() -> None:
    found = link_risk(outcome_of(Link(ends=("a", "b")), 40.0, Pattern.PQC_QKD), Trial(ESTATE, 50))
    assert isinstance(found, LinkRisk)
    assert [note.split(":")[0] for note in found.notes] == [
        "fail-open or fail-closed is not answered",
        "how often QKD keys run out is unknown",
        "leans on years that the experts were not asked about",
    ]
    assert isinstance(link_risk(outcome_of(Link(ends=("a", "b")), None, Pattern.PQC), Trial(ESTATE, 50)), Unknown)


def test_a_ladder_ends_at_what_was_decided() -> None:
    assert ladder(CLASSICAL) == (CLASSICAL,)
    assert ladder(PQC) == (CLASSICAL, PQC)
    assert ladder(QKD) == (CLASSICAL, PQC, QKD)


def test_dominance_is_not_claimed_where_the_order_depends_on_the_draw() -> None:
    trial = Trial(ESTATE, 2000)
    share = trial.no_worse(HORIZON, STARVED, QKD_ALONE, PQC_ALONE)
    assert 0.05 < share < 0.95
    assert share + trial.no_worse(HORIZON, STARVED, PQC_ALONE, QKD_ALONE) == pytest.approx(1.0, abs=1e-3)


def test_a_tornado_names_what_moves_the_answer_most() -> None:
    swings = tornado(ESTATE, HORIZON, STARVED, CLASSICAL)
    assert [s.width for s in swings] == sorted((s.width for s in swings), reverse=True)
    assert {"survey", "recorded", "horizon"} <= {s.name for s in swings[:4]}
    still = {s.name for s in swings if not s.width}
    assert {"pqc_break", "qkd_failure", "relay_per_year", "common_cause", "starved"} <= still
    assert swings[0].basis is Basis.ASSUMED


@pytest.mark.proves("R147")
def test_the_flip_point_of_relays_is_where_the_budget_says() -> None:
    found = flips(ESTATE, HORIZON, STARVED, lambda world: residual(world, QKD_ALONE) < residual(world, PQC_ALONE))
    flip = next(f for f in found if f.name == "relay_per_year")
    at = Assumptions(relay_per_year=flip.at)
    assert relay_budget(at).likely == pytest.approx(2.0, rel=1e-6)
    assert str(flip) == f"relay_per_year < {flip.at:.3g}"
    assert flip.within is (0.002 <= flip.at <= 0.01)


def test_an_answer_that_nothing_turns_has_no_flip_points() -> None:
    assert flips(ESTATE, HORIZON, STARVED, lambda world: residual(world, PQC) <= residual(world, CLASSICAL)) == ()


def test_figures_of_two_links_of_one_kind_are_the_same_object_in_memory() -> None:
    trial = Trial(ESTATE, 100)
    alike = Figure(Span(10.0, 15.0, 20.0))
    assert trial.risks(alike, None, QKD) is trial.risks(replace(alike), None, replace(QKD))
