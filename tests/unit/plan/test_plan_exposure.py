"""Exposure to recording now and decrypting later: closed forms, Mosca as a limit, and the flaws of others."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_plan_survey import curves

from keystrand.plan.assumptions import Assumptions
from keystrand.plan.estate import Estate, Link
from keystrand.plan.exposure import DAY_YEARS, Case, Effort, effort, exposed
from keystrand.plan.fact import Basis, Stated, Unknown, figure
from keystrand.plan.survey import Curve, arrival, survey

COUNTED = survey().editions["2025"].counted_from
A_YEAR_LATER = COUNTED + timedelta(days=365)
YEARS = st.floats(0.1, 40.0)
CHANCE = st.floats(0.0, 1.0)
GOLDEN = 0.6180339887498949  # its multiples, modulo 1, fill (0, 1) evenly


def estate(**assumed: object) -> Estate:
    plain = {"recorded": 1.0, "migration_years": 3.0, "lag_years": 0.0} | assumed
    return Estate(name="e", planned=A_YEAR_LATER, assumptions=Assumptions(**plain))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("horizon", "migration", "late", "early"),
    [(1, 3, 3, 8), (5, 3, 16, 30), (10, 5, 43, 62), (20, 3, 72, 87), (30, 3, 81, 93)],
)
def test_worked_figures_one_year_after_the_survey(horizon: float, migration: float, late: int, early: int) -> None:
    found = exposed(estate(migration_years=migration), figure(float(horizon)))
    assert not isinstance(found, Unknown)
    assert (round(100 * found.share.low), round(100 * found.share.high)) == (late, early)


@settings(deadline=None, max_examples=40)
@given(curves(), YEARS, YEARS, st.floats(0.01, 5.0), CHANCE)
def test_share_and_years_are_those_of_drawn_histories(
    curve: Curve, horizon: float, migration: float, lag: float, recorded: float
) -> None:
    """Send at a time, let the machine come, look whether it was in time: the mean over many is the closed form."""
    lost = open_years = 0.0
    draws = 600
    for n in range(draws):
        sent = (n + 0.5) / draws * migration
        came = arrived(curve, (n * GOLDEN) % 1)
        left = (horizon - lag) - max(came - sent, 0.0)
        lost += recorded * (left > 0)
        open_years += recorded * max(0.0, left)
    case = Case.of(horizon, migration, lag, recorded)
    assert case.share(curve) == pytest.approx(lost / draws, abs=0.06)
    assert case.years(curve) == pytest.approx(open_years / draws, abs=0.06 * horizon + 1e-6)


def arrived(curve: Curve, quantile: float) -> float:
    """When the machine comes, by bisection; never, where the curve does not get that far."""
    if quantile > curve.chances[-1]:
        return float("inf")
    low, high = 0.0, curve.years[-1]
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if curve.chance(middle) >= quantile else (middle, high)
    return high


@pytest.mark.proves("R119")
@given(curves(), YEARS, YEARS, st.floats(0.01, 5.0), CHANCE, st.floats(0.0, 10.0))
def test_more_of_anything_never_exposes_less(
    curve: Curve, horizon: float, migration: float, lag: float, recorded: float, more: float
) -> None:
    here = Case.of(horizon, migration, lag, recorded)
    worse = [
        Case.of(horizon + more, migration, lag, recorded),
        Case.of(horizon, migration + more, lag, recorded),
        Case.of(horizon, migration, lag, min(1.0, recorded + more / 10)),
        Case.of(horizon, migration, lag / (1 + more), recorded),
    ]
    for case in worse:
        assert case.share(curve) >= here.share(curve) - 1e-7
        assert case.years(curve) >= here.years(curve) - 1e-6
    assert 0 <= here.share(curve) <= 1 + 1e-9
    assert -1e-6 <= here.years(curve) <= horizon + 1e-6
    sooner = Curve(tuple(t / (1 + more) for t in curve.years), curve.chances)
    assert here.share(sooner) >= here.share(curve) - 1e-7


@pytest.mark.proves("R118")
@given(curves(), YEARS, st.floats(0.0, 1.0))
def test_what_is_worthless_before_one_run_of_the_machine_ends_is_not_exposed(
    curve: Curve, migration: float, share_of_day: float
) -> None:
    hours = Case.of(share_of_day * DAY_YEARS, migration, 0.0, 1.0)
    assert hours.share(curve) == hours.years(curve) == hours.backlog(curve) == 0


@given(YEARS, YEARS, st.floats(0.5, 60.0), st.floats(0.1, 1.0))
def test_a_step_gives_moscas_verdict(horizon: float, migration: float, machine: float, recorded: float) -> None:
    assume(abs(horizon + migration - machine) > 0.01)
    case = Case.of(horizon, migration, 0.0, recorded)
    late = horizon + migration > machine
    assert (case.share(Curve.step(machine)) > 1e-9) is late
    overlap = min(1.0, max(0.0, (horizon - DAY_YEARS + migration - machine) / migration))
    assert case.share(Curve.step(machine)) == pytest.approx(recorded * overlap, abs=1e-9)


@pytest.mark.proves("R147")
@pytest.mark.parametrize(("machine", "late"), [(10.0, True), (12.9, True), (13.1, False), (20.0, False)])
def test_an_estate_that_states_its_machine_gets_moscas_inequality(machine: float, late: bool) -> None:
    found = exposed(estate(machine_years=machine, migration_years=3.0), figure(10.0))
    assert not isinstance(found, Unknown)
    assert (found.share.high > 0) is (found.share.low > 0) is late
    assert not found.beyond_asked


def test_migration_time_matters() -> None:
    """QRAP computes from shelf life alone, and calls that Mosca: two estates that differ in Y would come out alike."""
    machine = Curve.step(15.0)
    quick, slow = Case.of(10.0, 2.0, 0.0, 1.0), Case.of(10.0, 8.0, 0.0, 1.0)
    assert quick.share(machine) == 0
    assert slow.share(machine) == pytest.approx(3 / 8, abs=1e-3)


def test_exposed_and_cheap_to_mend_is_not_low() -> None:
    """CARAF calls an asset high only if mending it is dear as well. What mending costs is no part of exposure."""
    fields = {field.name for field in msgspec.structs.fields(Assumptions)}
    assert not any("cost" in name or "price" in name for name in fields)
    found = exposed(estate(migration_years=0.2), figure(20.0))
    assert not isinstance(found, Unknown)
    assert found.share.low > 0.6


def test_what_was_recorded_before_the_plan_counts_as_backlog() -> None:
    found = exposed(estate(), figure(20.0))
    assert not isinstance(found, Unknown)
    late = arrival(Assumptions(), A_YEAR_LATER).late
    assert found.backlog.low == pytest.approx(sum(late.chance((n + 0.5) / 50) for n in range(1000)) / 1000, abs=1e-3)
    assert found.backlog.high < found.share.high


def test_ranges_bound_the_likely_figure_and_say_what_they_rest_on() -> None:
    horizon = figure(Stated(low=8.0, high=12.0, basis=Basis.MEASURED))
    found = exposed(estate(recorded=(0.5, 1.0), lag_years=(0.0, 2.0)), horizon)
    assert not isinstance(found, Unknown)
    assert found.share.low < found.share.likely < found.share.high
    assert found.years.low < found.years.likely < found.years.high
    assert found.basis is Basis.ASSUMED
    assert not found.beyond_asked
    far = exposed(estate(), figure(30.0))
    assert not isinstance(far, Unknown)
    assert far.beyond_asked


def test_an_unknown_horizon_stays_unknown() -> None:
    assert exposed(estate(), None) == Unknown(("for how long the data must stay confidential",))


def test_refreshing_often_makes_reading_dearer_and_changes_no_exposure() -> None:
    slow = Link(ends=("a", "b"), rekey_s=3600.0, tunnels=2, volume_bytes_per_day=4.8e9)
    assert effort(slow) == Effort(48.0, 1e8)
    assert effort(Link(ends=("a", "b"), rekey_s=60.0)) == Effort(1440.0, None)
    assert isinstance(effort(Link(ends=("a", "b"))), Unknown)


def test_the_plan_counts_from_its_own_day() -> None:
    soon = Estate(name="e", planned=COUNTED)
    later = Estate(name="e", planned=date(COUNTED.year + 3, COUNTED.month, COUNTED.day))
    a, b = exposed(soon, figure(10.0)), exposed(later, figure(10.0))
    assert not isinstance(a, Unknown)
    assert not isinstance(b, Unknown)
    assert b.share.low > a.share.low  # the machine is nearer, although it has not come
