"""Loss of a path by the best that is known of it."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.plan.estate import Estate, Link, Medium, Segment, Site
from keystrand.plan.fact import Answer, Basis, Span, Stated
from keystrand.plan.loss import Rung, fibre_db, great_circle_km, path_loss, quantum_path

VIENNA = Site(lat=48.2082, lon=16.3738)
GRAZ = Site(lat=47.0707, lon=15.4395)


def estate(*segments: Segment, sites: dict[str, Site] | None = None) -> Estate:
    link = Link(ends=("a", "b"), segments=segments)
    return Estate(name="e", planned=date(2026, 11, 1), sites=sites or {}, links={"l": link})


def fibre(**fields: object) -> Segment:
    return Segment(medium=Medium.DARK_FIBRE, **fields)  # type: ignore[arg-type]


def test_measured_loss_comes_before_the_length_of_the_route() -> None:
    found = path_loss(
        estate(fibre(length_km=45.0, loss_db=Stated(likely=14.5, basis=Basis.MEASURED, source="OTDR"))), "l"
    )
    assert found.loss_db is not None
    assert (found.loss_db.span, found.loss_db.basis) == (Span.point(14.5), Basis.MEASURED)
    assert found.loss_db.source.what == "OTDR"
    assert found.rung is Rung.MEASURED
    assert found.km == Span.point(45.0)


def test_the_route_comes_before_the_map() -> None:
    found = path_loss(estate(fibre(length_km=45.0), sites={"a": VIENNA, "b": GRAZ}), "l")
    assert found.rung is Rung.ROUTE
    assert found.loss_db is not None
    assert found.loss_db.span.likely == pytest.approx(0.27 * 45 + 2.25)
    assert found.loss_db.basis is Basis.ASSUMED


def test_the_map_alone_gives_a_wide_range_and_no_quantum_path() -> None:
    found = path_loss(estate(sites={"a": VIENNA, "b": GRAZ}), "l")
    assert found.rung is Rung.MAP
    assert found.quantum_path is Answer.UNKNOWN
    straight = great_circle_km(VIENNA, GRAZ)
    assert straight == pytest.approx(145, abs=2)  # Vienna to Graz
    assert found.km == Span(1.2 * straight, 1.35 * straight, 1.5 * straight)


def test_nothing_known_stays_unknown_and_says_why() -> None:
    found = path_loss(estate(), "l")
    assert found.loss_db is None
    assert "no coordinates" in found.reasons[-1]


def test_a_segment_without_loss_or_length_leaves_the_whole_unknown() -> None:
    found = path_loss(estate(fibre(length_km=10.0), fibre()), "l")
    assert found.loss_db is None
    assert "neither its loss in dB nor its length" in found.reasons[-1]


@pytest.mark.proves("R124")
@pytest.mark.parametrize("medium", [Medium.FREE_SPACE, Medium.SATELLITE])
def test_no_formula_of_fibre_is_used_for_air_or_space(medium: Medium) -> None:
    found = path_loss(estate(Segment(medium=medium, length_km=5.0)), "l")
    assert found.loss_db is None
    assert "no formula of fibre" in found.reasons[-1]
    stated = path_loss(estate(Segment(medium=medium, length_km=5.0, loss_db=12.0)), "l")
    assert stated.loss_db is not None
    assert stated.loss_db.span == Span.point(12.0)


def test_a_packet_service_has_no_path_for_photons() -> None:
    link = Link(ends=("a", "b"), segments=(fibre(length_km=3.0), Segment(medium=Medium.SERVICE, length_km=20.0)))
    answer, why = quantum_path(link)
    assert answer is Answer.NO
    assert "packet" in why[0]


def test_unmeasured_segments_share_one_pair_of_ends() -> None:
    one, two = path_loss(estate(fibre(length_km=40.0)), "l"), path_loss(estate(*[fibre(length_km=20.0)] * 2), "l")
    assert one.loss_db == two.loss_db


def test_measured_and_unmeasured_segments_add_up() -> None:
    found = path_loss(estate(fibre(loss_db=5.0), fibre(length_km=20.0)), "l")
    assert found.loss_db is not None
    assert found.loss_db.span.likely == pytest.approx(5 + 0.27 * 20 + 2.25)
    assert found.rung is Rung.ROUTE


def test_stated_connectors_count_where_they_lose_more_than_usual_ends() -> None:
    assert fibre_db(Span.point(10), connectors=3) == fibre_db(Span.point(10))
    assert fibre_db(Span.point(10), connectors=20).likely == pytest.approx(2.7 + 6.0)


@given(st.floats(0.1, 400), st.floats(0.1, 400))
def test_more_fibre_never_loses_less(one: float, other: float) -> None:
    near, far = (fibre_db(Span.point(km)) for km in sorted((one, other)))
    assert near.low <= far.low
    assert near.likely <= far.likely
    assert near.high <= far.high


@given(st.floats(1, 120))
def test_the_textbook_figure_is_never_the_likely_one(km: float) -> None:
    assert fibre_db(Span.point(km)).likely > 0.20 * km
