"""Residual risk: worked examples, limits, monotony, and a floor that no pattern goes under."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.plan.assumptions import Assumptions
from keystrand.plan.estate import Estate, FailurePolicy, Link
from keystrand.plan.exposure import Case
from keystrand.plan.fact import Basis, Stated, Unknown, figure
from keystrand.plan.pattern import Interaction, Pattern
from keystrand.plan.residual import Build, Corners, World, blast, both, budget, corners, relay_budget, residual
from keystrand.plan.survey import arrival, survey

COUNTED = survey().editions["2025"].counted_from
A_YEAR_LATER = COUNTED + timedelta(days=365)

EXPOSED = Case.of(20.0, 0.0, 0.0, 1.0).share(arrival(Assumptions(), A_YEAR_LATER).early)
EXAMPLE = World(
    exposed=EXPOSED,
    endpoint=0.02,
    pqc=0.05,
    device=0.01,
    relay_per_year=0.01,
    years=1.0,
    common=0.05,
    starved=0.02,
    in_operation=0.05,
)
CLASSICAL = Build(pattern=Pattern.CLASSICAL)
PQC_ALONE = Build(pattern=Pattern.PQC, hybrid=False)


def alone(relays: int, **more: object) -> Build:
    return Build(pattern=Pattern.PQC_QKD, relays=(relays,), qkd_alone=True, hybrid=False, **more)  # type: ignore[arg-type]


def with_pqc(relays: int) -> Build:
    return Build(pattern=Pattern.PQC_QKD, relays=(relays,), hybrid=False)


def test_worked_example() -> None:
    assert round(residual(EXAMPLE, CLASSICAL), 2) == 0.87
    assert round(residual(EXAMPLE, PQC_ALONE), 3) == 0.069
    assert [round(residual(EXAMPLE, alone(k)), 3) for k in (0, 2, 8, 32)] == [0.030, 0.049, 0.104, 0.295]
    assert [round(residual(EXAMPLE, with_pqc(k)), 3) for k in (0, 2, 8, 32)] == [0.021, 0.023, 0.026, 0.036]


def test_failing_open_costs_what_the_example_says() -> None:
    opened = [alone(k, on_exhaustion=FailurePolicy.OPEN) for k in (0, 32)]
    added = [residual(EXAMPLE, build) - residual(EXAMPLE, alone(build.relays[0])) for build in opened]
    assert added == pytest.approx([0.017, 0.012], abs=6e-4)


@pytest.mark.parametrize(
    ("hazard", "pqc", "expected"),
    [(0.01, 0.01, 0.5), (0.01, 0.05, 4.6), (0.01, 0.10, 10), (0.002, 0.01, 2.5), (0.002, 0.05, 23), (0.002, 0.10, 50)],
)
@pytest.mark.proves("R040")
def test_budget_of_trusted_nodes(hazard: float, pqc: float, expected: float) -> None:
    assert budget(0.005, pqc, hazard, 1.0) == pytest.approx(expected, rel=0.02)


P = st.floats(0.0, 0.9)
WORLDS = st.builds(
    World,
    exposed=st.floats(0.0, 1.0),
    endpoint=P,
    pqc=P,
    device=P,
    relay_per_year=st.floats(0.0, 1.0),
    years=st.floats(0.01, 20.0),
    common=st.floats(0.0, 1.0),
    starved=st.floats(0.0, 1.0),
    in_operation=st.floats(0.0, 1.0),
)
BUILDS = st.builds(
    Build,
    pattern=st.sampled_from(Pattern),
    interaction=st.sampled_from(Interaction),
    relays=st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple),
    on_exhaustion=st.sampled_from(FailurePolicy),
    hybrid=st.booleans(),
    qkd_alone=st.booleans(),
)


@pytest.mark.proves("R009")
@given(WORLDS, BUILDS)
def test_no_pattern_goes_under_the_floor_of_the_endpoints(world: World[float], build: Build) -> None:
    found = residual(world, build)
    assert world.endpoint - 1e-12 <= found <= 1 + 1e-12
    perfect = replace(world, exposed=0.0, pqc=0.0, device=0.0, relay_per_year=0.0)
    assert residual(perfect, build) == pytest.approx(world.endpoint, abs=1e-12)


@given(WORLDS, BUILDS, st.sampled_from([f.name for f in fields(World)]), st.floats(0.0, 1.0))
def test_a_worse_world_is_never_safer(world: World[float], build: Build, name: str, more: float) -> None:
    if name == "starved":
        return  # time without QKD keys can be time under better ones
    was = getattr(world, name)
    worse = was * (1 + more) if name in ("relay_per_year", "years") else was + (1 - was) * more
    assert residual(replace(world, **{name: worse}), build) >= residual(world, build) - 1e-12


@given(WORLDS, st.lists(st.integers(0, 40), min_size=2, max_size=3).map(tuple), st.sampled_from([*FailurePolicy]))
def test_a_layer_added_never_adds_risk(world: World[float], relays: tuple[int, ...], policy: FailurePolicy) -> None:
    ladder = [
        CLASSICAL,
        Build(pattern=Pattern.PQC),
        Build(pattern=Pattern.PQC_QKD, relays=relays[:1], on_exhaustion=policy),
        Build(pattern=Pattern.PQC_QKD_MULTI, relays=relays, on_exhaustion=policy),
    ]
    risks = [residual(world, build) for build in ladder]
    assert all(after <= before + 1e-12 for before, after in pairwise(risks))


@pytest.mark.proves("R040")
@given(WORLDS, st.integers(0, 40))
def test_qkd_alone_beats_pqc_alone_exactly_under_the_budget(world: World[float], relays: int) -> None:
    allowed = budget(world.device, world.pqc, world.relay_per_year, world.years)
    if abs(relays - allowed) < 1e-6 or world.relay_per_year * world.years < 1e-6 or world.endpoint > 0.8:
        return
    closer = residual(world, alone(relays)) - residual(world, PQC_ALONE)
    assert abs(closer) < 1e-9 or (closer < 0) is (relays < allowed)


def test_limits_of_the_common_cause() -> None:
    assert both(0.2, 0.05, 1.0) == pytest.approx(0.05)
    assert both(0.2, 0.05, 0.0) == pytest.approx(0.01)


@pytest.mark.proves("R079")
def test_each_interaction_has_a_formula_of_its_own() -> None:
    found = {i: residual(EXAMPLE, replace(with_pqc(2), interaction=i)) for i in Interaction}
    assert len(set(found.values())) == len(Interaction)
    assert min(found, key=found.__getitem__) is Interaction.SEPARATE
    assert found[Interaction.COMBINED] < found[Interaction.PQC_FALLBACK] < found[Interaction.PQC_AUTHENTICATED]


@pytest.mark.parametrize("interaction", Interaction)
def test_failing_open_leaves_what_the_interaction_leaves(interaction: Interaction) -> None:
    build = replace(with_pqc(2), interaction=interaction, on_exhaustion=FailurePolicy.OPEN)
    always = residual(replace(EXAMPLE, starved=1.0), build)
    left = CLASSICAL if interaction is Interaction.PQC_AUTHENTICATED else PQC_ALONE
    assert always == pytest.approx(residual(EXAMPLE, left))


def test_an_unanswered_failure_policy_counts_as_the_worse_of_both() -> None:
    risks = {policy: residual(EXAMPLE, replace(with_pqc(2), on_exhaustion=policy)) for policy in FailurePolicy}
    assert risks[FailurePolicy.UNANSWERED] == pytest.approx(max(risks.values()))
    assert risks[FailurePolicy.CLOSED] < risks[FailurePolicy.OPEN]


def test_the_one_time_pad_changes_consumption_not_risk() -> None:
    assert residual(EXAMPLE, replace(with_pqc(2), pattern=Pattern.PQC_QKD_OTP)) == residual(EXAMPLE, with_pqc(2))


ESTATE = Estate(name="e", planned=A_YEAR_LATER)


def corners_of(estate: Estate = ESTATE) -> Corners:
    found = corners(estate, figure((15.0, 25.0)), figure((0.0, 0.05)))
    assert isinstance(found, Corners)
    return found


@pytest.mark.proves("R147")
@given(BUILDS)
def test_corners_bound_the_likely_world(build: Build) -> None:
    found = corners_of().residual(build)
    assert 0.01 <= found.low <= found.likely <= found.high <= 1


def test_corners_say_what_they_rest_on() -> None:
    assert corners_of().basis is Basis.ASSUMED
    assert corners(ESTATE, None, None) == Unknown(("for how long the data must stay confidential",))


def test_where_outages_are_unknown_an_open_link_gets_no_credit_for_qkd() -> None:
    found = corners(ESTATE, figure(20.0), None)
    assert isinstance(found, Corners)
    opened = Build(pattern=Pattern.PQC_QKD, on_exhaustion=FailurePolicy.OPEN)
    assert found.residual(opened) == found.residual(Build(pattern=Pattern.PQC))


def test_budget_over_the_ranges() -> None:
    found = relay_budget(
        Assumptions(pqc_break=(0.05, 0.10), qkd_failure=0.005, relay_per_year=0.01, migration_years=1.0)
    )
    assert (found.low, found.high) == pytest.approx((4.63, 10.03), abs=0.01)
    assert relay_budget(Assumptions()).low == 0
    assert relay_budget(Assumptions(relay_per_year=Stated(likely=0.0), pqc_break=0.5)).high == math.inf


@pytest.mark.proves("R040")
def test_blast_radius_of_one_relay() -> None:
    link = Link(ends=("a", "b"), volume_bytes_per_day=1e12)
    rows = {(row.relays, row.overlay): row for row in blast(link, corners_of(), 8)}
    assert {key: row.read_bytes_per_day for key, row in rows.items()} == {
        (0, False): 0, (0, True): 0, (8, False): 1e12, (8, True): 0
    }  # fmt: skip
    assert rows[8, False].residual.high > max(rows[0, False].residual.high, rows[8, True].residual.high)
    assert all(row.read_bytes_per_day == 0 for row in blast(link, corners_of(), 8, paths_count=2))
    unknown = blast(Link(ends=("a", "b")), corners_of(), 8)
    assert [row.read_bytes_per_day for row in unknown] == [0, 0, None, 0]
