"""Links by what they carry and are: horizons and impact only ever rise, and hours are told from years."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.plan.classify import DAY_YEARS, DEFAULTS, Lifetime, Stability, classify
from keystrand.plan.estate import Control, DataClass, Estate, Impact, Link, Medium, PathType, Segment, Site
from keystrand.plan.fact import Basis
from keystrand.plan.finding import Severity
from keystrand.plan.templates import templates

OWN = Segment(medium=Medium.DARK_FIBRE, control=Control.OWNED)


def estate(link: Link, **classes: DataClass) -> Estate:
    sites = {"one": Site(), "two": Site()}
    return Estate(name="e", planned=date(2026, 11, 28), classes=classes, sites=sites, links={"l": link})


def link(*carries: str, impact: Impact | None = None, **more: object) -> Link:
    return Link(ends=("one", "two"), carries=carries, impact=impact, **more)  # type: ignore[arg-type]


impacts = st.none() | st.sampled_from(Impact)
horizons = st.tuples(st.floats(0, 50), st.floats(0, 50)).map(lambda pair: tuple(sorted(pair)))


@pytest.mark.proves("R117")
@given(st.lists(impacts, max_size=4), impacts, impacts)
@settings(deadline=None)
def test_impact_is_never_below_a_class_or_the_own_statement(
    told: list, own: Impact | None, one_more: Impact | None
) -> None:
    ranks = [None, *Impact]
    classes = {f"c{at}": DataClass(impact=impact) for at, impact in enumerate(told)}
    got = classify(estate(link(*classes, impact=own), **classes), "l").impact
    assert ranks.index(got) == max(map(ranks.index, [own, *told]))
    more = classes | {"more": DataClass(impact=one_more)}
    assert ranks.index(classify(estate(link(*more, impact=own), **more), "l").impact) >= ranks.index(got)


@pytest.mark.proves("R117")
def test_the_source_of_the_impact_is_kept() -> None:
    classes = {"mail": DataClass(impact=Impact.LOW), "plans": DataClass(impact=Impact.HIGH)}
    found = classify(estate(link(*classes, impact=Impact.MEDIUM), **classes), "l")
    assert found.provenance[0] == "impact high: class plans"


@pytest.mark.proves("R116")
@given(st.lists(horizons, min_size=1, max_size=4), horizons)
@settings(deadline=None)
def test_the_horizon_is_that_of_the_longest_class(told: list, one_more: tuple[float, float]) -> None:
    classes = {f"c{at}": DataClass(horizon_years=horizon) for at, horizon in enumerate(told)}
    found = classify(estate(link(*classes), **classes), "l").horizon_years
    assert found is not None
    assert (found.span.low, found.span.high) == (max(low for low, _ in told), max(high for _, high in told))
    more = classes | {"more": DataClass(horizon_years=one_more)}
    raised = classify(estate(link(*more), **more), "l").horizon_years
    assert raised is not None
    assert raised.span.low >= found.span.low
    assert raised.span.high >= found.span.high


@pytest.mark.proves("R071", "R116")
def test_templates_come_with_the_program_and_every_figure_may_be_replaced() -> None:
    assert {"government-records", "ip-archive", "infrastructure-telemetry"} <= templates().keys()
    assert all(template.source and template.confidence and template.written for template in templates().values())
    for template in templates().values():
        assert (template.checked is not None) == (template.standing == "cited")
        assert template.checked is None or template.checked >= template.written
    shipped = classify(estate(link("a"), a=DataClass(template="ip-archive")), "l")
    edited = classify(estate(link("a"), a=DataClass(template="ip-archive", horizon_years=3.0)), "l")
    assert shipped.horizon_years is not None
    assert edited.horizon_years is not None
    assert (shipped.horizon_years.span.high, edited.horizon_years.span.high) == (25.0, 3.0)
    assert shipped.horizon_years.source.what.startswith("template ip-archive")
    assert (shipped.impact, edited.impact) == (Impact.HIGH, Impact.HIGH)
    assert shipped.horizon_years.basis is Basis.ASSUMED


@pytest.mark.proves("R118")
@pytest.mark.parametrize(
    ("years", "lifetime", "spared"),
    [
        (0.0, Lifetime.HOURS, True),
        (DAY_YEARS, Lifetime.HOURS, True),
        (DAY_YEARS * 1.0001, Lifetime.MONTHS, False),
        (0.9999, Lifetime.MONTHS, False),
        (1.0, Lifetime.YEARS, False),
        (30.0, Lifetime.YEARS, False),
        ((0.0, DAY_YEARS), Lifetime.HOURS, True),
        ((0.0, 1.0), Lifetime.YEARS, False),
    ],
)
def test_hours_are_told_from_years_at_the_boundary(years: object, lifetime: Lifetime, spared: bool) -> None:
    found = classify(estate(link("a"), a=DataClass(horizon_years=years)), "l")  # type: ignore[arg-type]
    assert (found.lifetime, found.no_quantum_treatment) == (lifetime, spared)


@pytest.mark.proves("R118")
def test_one_class_of_years_or_of_unknown_length_ends_the_exemption() -> None:
    hours, years, unknown = DataClass(horizon_years=0.001), DataClass(horizon_years=9.0), DataClass()
    assert not classify(estate(link("a", "b"), a=hours, b=years), "l").no_quantum_treatment
    found = classify(estate(link("a", "b"), a=hours, b=unknown), "l")
    assert (found.no_quantum_treatment, found.partial) == (False, True)
    nothing = classify(estate(link()), "l")
    assert (nothing.horizon_years, nothing.impact, nothing.no_quantum_treatment) == (None, None, False)
    assert {finding.requirement for finding in nothing.findings} >= {"R116", "R120", "R121"}


@pytest.mark.proves("R120")
def test_every_type_of_path_has_a_default_of_its_own() -> None:
    assert DEFAULTS.keys() == set(PathType)
    named = [DEFAULTS[path] for path in (PathType.DC_DC, PathType.BRANCH_CORE, PathType.DEVICE_CLOUD)]
    assert len({(each.pattern, each.transports) for each in named}) == 3
    assert DEFAULTS[PathType.DC_DC].pattern.has_qkd
    assert not DEFAULTS[PathType.DEVICE_CLOUD].pattern.has_qkd
    assert classify(estate(link(path=PathType.DC_DC)), "l").default is DEFAULTS[PathType.DC_DC]


@pytest.mark.proves("R121")
def test_one_segment_of_a_third_party_makes_the_path_theirs_and_asks_for_evidence() -> None:
    theirs = Segment(medium=Medium.DARK_FIBRE, control=Control.THIRD_PARTY, owner="Carrier")
    found = classify(estate(link(segments=(OWN, theirs))), "l")
    assert found.control is Control.THIRD_PARTY
    (request,) = [finding for finding in found.findings if finding.requirement == "R121"]
    assert request.where == ("links", "l", "segments", 1)
    assert "ask Carrier" in request.hint
    unknown = classify(estate(link(segments=(theirs, Segment()))), "l")
    assert unknown.control is Control.UNKNOWN


@pytest.mark.proves("R122")
@pytest.mark.parametrize(
    ("reroutes", "medium", "expected"),
    [
        (0.0, Medium.DARK_FIBRE, Stability.STATIC),
        (4.0, Medium.DARK_FIBRE, Stability.STATIC),
        ((0.0, 4.1), Medium.DARK_FIBRE, Stability.DYNAMIC),
        (None, Medium.DARK_FIBRE, Stability.UNKNOWN),
        (0.0, Medium.SERVICE, Stability.DYNAMIC),
    ],
)
def test_a_path_that_changes_is_told(reroutes: object, medium: Medium, expected: Stability) -> None:
    segment = msgspec.structs.replace(OWN, medium=medium)
    found = classify(estate(link(segments=(segment,), reroutes_per_year=reroutes)), "l")
    assert found.stability is expected
    assert ("R122" in {finding.requirement for finding in found.findings}) == (expected is not Stability.STATIC)


@pytest.mark.proves("R124")
@pytest.mark.parametrize("medium", [Medium.FREE_SPACE, Medium.SATELLITE])
def test_free_space_needs_its_availability(medium: Medium) -> None:
    segment = Segment(medium=medium, control=Control.OWNED)
    (finding,) = [f for f in classify(estate(link(segments=(segment,))), "l").findings if f.requirement == "R124"]
    assert finding.severity is Severity.BLOCKING
    stated = msgspec.structs.replace(segment, availability=(0.6, 0.8))
    assert "R124" not in {f.requirement for f in classify(estate(link(segments=(stated,))), "l").findings}
