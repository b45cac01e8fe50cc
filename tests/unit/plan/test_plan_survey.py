"""The curve of a capable machine: exact integrals, conditional on not yet, never forced to one."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.plan.assumptions import Assumptions
from keystrand.plan.survey import Curve, arrival, survey

PLANNED = date(2026, 11, 28)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    gaps = draw(st.lists(st.just(0.0) | st.floats(0.01, 12.0), min_size=1, max_size=6))
    chances = sorted(draw(st.lists(st.floats(0.0, 1.0), min_size=len(gaps), max_size=len(gaps))))
    years = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    return Curve((0.0, *years), (0.0, *chances))


@given(curves(), st.floats(0.0, 40.0), st.floats(0.0, 20.0))
def test_integrals_are_those_of_the_curve(curve: Curve, t: float, width: float) -> None:
    """What never falls lies between its ends on any stretch, and so does its integral; halves add up."""
    for inner, integral in ((curve.chance, curve.area), (curve.area, curve.volume)):
        grown = integral(t + width) - integral(t)
        assert inner(t) * width - 1e-9 <= grown <= inner(t + width) * width + 1e-9
    assert curve.area(0.0) == curve.volume(0.0) == 0


def test_integrals_of_a_ramp_and_of_a_step_are_the_textbook_ones() -> None:
    ramp = Curve((0.0, 10.0), (0.0, 1.0))
    assert (ramp.area(10), ramp.volume(10)) == pytest.approx((5.0, 1000 / 60))
    assert (ramp.area(12), ramp.volume(12)) == pytest.approx((7.0, 1000 / 60 + 2 * 5 + 2))
    step = Curve.step(4.0)
    assert (step.chance(4 - 1e-9), step.chance(4.0)) == (0, 1)
    assert (step.area(7), step.volume(7)) == (3, 4.5)


@given(curves(), st.floats(-5.0, 60.0), st.floats(0.0, 60.0))
def test_a_curve_never_falls_and_is_a_chance(curve: Curve, t: float, later: float) -> None:
    assert 0 <= curve.chance(t) <= curve.chance(t + later) <= 1
    assert curve.area(t) <= curve.area(t + later) <= curve.area(t) + later + 1e-9


@pytest.mark.parametrize("edition", ["2024", "2025"])
def test_what_is_missing_to_one_means_later_or_never(edition: str) -> None:
    found = arrival(Assumptions(survey=edition), PLANNED)
    for curve in (found.late, found.early):
        assert curve.chance(1000.0) == curve.chance(found.asked_years) < 1


def test_published_figures_come_back_on_the_day_they_are_counted_from() -> None:
    edition = survey().editions["2025"]
    found = arrival(Assumptions(), edition.counted_from)
    assert [(found.late.chance(t), found.early.chance(t)) for t in (5, 10, 15, 20, 30)] == [
        (0.05, 0.15), (0.28, 0.49), (0.51, 0.70), (0.69, 0.86), (0.81, 0.93)
    ]  # fmt: skip


@given(curves(), st.floats(0.0, 20.0), st.floats(0.0, 40.0))
def test_not_yet_is_conditional(curve: Curve, age: float, t: float) -> None:
    passed = curve.chance(age)
    if passed > 0.999:
        return
    seen = curve.given_not_before(age)
    assert seen.chance(t) == pytest.approx((curve.chance(t + age) - passed) / (1 - passed), abs=1e-6)


def test_a_curve_that_is_over_says_so() -> None:
    with pytest.raises(ValueError, match="came within 6 years"):
        Curve.step(5.0).given_not_before(6.0)
    with pytest.raises(ValueError, match="never falls"):
        Curve((0.0, 5.0, 6.0), (0.0, 0.5, 0.4))
    with pytest.raises(ValueError, match="no edition '1999'"):
        arrival(Assumptions(survey="1999"), PLANNED)


def test_an_edition_states_whom_to_credit_and_what_to_bear_in_mind() -> None:
    assert "Global Risk Institute" in survey().credit
    assert any("forecast" in caveat for caveat in survey().caveats)
    for edition in survey().editions.values():
        assert edition.published <= edition.last_verified.isoformat()
        assert all(low < high for low, high in zip(edition.low, edition.high, strict=True))


def test_an_estate_may_state_its_own_years_instead_of_the_survey() -> None:
    found = arrival(Assumptions(machine_years=(8.0, 15.0)), PLANNED)
    assert (found.early, found.late) == (Curve.step(8.0), Curve.step(15.0))
    assert found.told == "machine in 8 to 15 years, as the estate states"
    assert found.asked_years == float("inf")
