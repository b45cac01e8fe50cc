"""What a site knows of the hops of others, what a hop costs, and sites that are documented no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from keystrand.relay.atlas import Atlas, Evidence, RelayedLink, SiteFacts, Terms, day_of
from keystrand.relay.documents import Documents
from keystrand.relay.linkstate import LinkState
from keystrand.relay.meter import Meter
from keystrand.relay.routes import disjoint_routes
from keystrand.testing.clock import EPOCH_S, VirtualClock
from keystrand.testing.network.post import sign_as, verify
from keystrand.wire.relay import Span

HOPS = (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"))
NEED_BITS = 10_000
PLAIN = Terms()
DAY_S = 86_400.0


def documented(name: str, expires: date | None = None) -> SiteFacts:
    proof = Evidence(what="inspection", reference="1", dated=date(2026, 1, 1), expires=expires)
    return SiteFacts(
        name=name,
        owner="o",
        facility="f",
        jurisdiction="CH",
        evidence=(proof,),
        signed_off_by="s",
        signed_off=proof.dated,
    )


def square(terms: Terms = PLAIN, **changed: SiteFacts) -> Atlas:
    """a – b – d and a – c – d."""
    sites = {name: documented(name) for name in "abcd"} | changed
    return Atlas(sites, HOPS, {"a-d": RelayedLink(name="a-d", ends=("a", "d"), terms=terms)})


def heard(atlas: Atlas, clock: VirtualClock, span_of: Callable[[str, str], Span]) -> LinkState:
    """What `a` holds once everybody has said what span_of gives."""
    state = LinkState("a", atlas, clock, sign_as("a"), verify)
    for name in atlas.sites:
        other = state if name == "a" else LinkState(name, atlas, clock, sign_as(name), verify)
        advert = other.own({near: span_of(name, near) for near in atlas.neighbours(name)})
        assert advert is not None
        state.hear(advert)
    return state


def best(state: LinkState) -> tuple[str, ...]:
    link = state.atlas.links["a-d"]
    (route,) = disjoint_routes(state.graph(link, NEED_BITS), "a", "d", 1)
    return route


def test_of_two_ways_of_one_depth_the_faster_is_taken() -> None:
    state = heard(square(), VirtualClock(), lambda one, near: Span(near, 100_000, 50 if "b" in (one, near) else 5000))
    assert best(state) == ("a", "c", "d")


def test_of_two_ways_of_one_rate_the_deeper_is_taken() -> None:
    state = heard(square(), VirtualClock(), lambda one, near: Span(near, 11_000 if "c" in (one, near) else 10**7, 100))
    assert best(state) == ("a", "b", "d")


def test_a_documented_way_is_taken_before_one_that_is_not() -> None:
    state = heard(
        square(Terms(accept_undocumented=True), b=SiteFacts(name="b")), VirtualClock(), lambda _, n: Span(n, 10**6, 100)
    )
    assert best(state) == ("a", "c", "d")


def test_a_suspect_hop_is_the_last_resort() -> None:
    state = heard(square(), VirtualClock(), lambda one, near: Span(near, 11_000 if "c" in (one, near) else 10**7, 1))
    state.suspect("a", "b", began_s=0.0)
    assert best(state) == ("a", "c", "d")


def test_doubt_grows_with_each_share_lost_in_a_row_but_not_with_those_under_way_at_once() -> None:
    clock = VirtualClock()
    state = heard(square(), clock, lambda one, near: Span(near, 10**7, 1))
    clock.move_to(10.0)
    for began_s in (9.0, 9.5, 10.0):  # of one burst
        state.suspect("a", "b", began_s)
    assert state.doubts("a", "b") == 1
    clock.move_to(11.0)
    state.suspect("a", "b", 10.5)
    assert state.doubts("b", "a") == 2
    clock.move_to(11.0 + 2 * state.suspect_s)
    assert state.doubts("a", "b") == 0, "it counts no more"
    state.forget()
    state.suspect("a", "b", clock.monotonic_s())
    assert state.doubts("a", "b") == 3, "and is remembered for as long again"
    state.trust("a", "b")
    assert state.doubts("a", "b") == 0


@pytest.mark.proves("R036", "R039")
def test_a_site_whose_documents_lapse_carries_no_more_from_the_next_day_on() -> None:
    clock = VirtualClock()
    today = day_of(clock.now_s())
    state = heard(
        square(c=documented("c", today)), clock, lambda one, near: Span(near, 10**6, 50 if "b" in (one, near) else 5000)
    )
    link = state.atlas.links["a-d"]
    assert best(state) == ("a", "c", "d")
    assert state.atlas.is_route("acd", link, today)
    clock.move_to(DAY_S)
    assert best(state) == ("a", "b", "d")
    assert not state.atlas.is_route("acd", link, day_of(clock.now_s()))
    accepting = replace(link, terms=Terms(accept_undocumented=True))
    assert state.atlas.is_route("acd", accepting, day_of(clock.now_s()))


@pytest.mark.proves("R039")
def test_lapsing_is_told_ahead_every_day_and_then_once() -> None:
    today = day_of(EPOCH_S)
    documents = Documents("a", square(c=documented("c", today)))
    first = list(documents.look(EPOCH_S))
    assert [kind for kind, _ in first] == ["relay.documents_due"]
    assert list(documents.look(EPOCH_S + 60.0)) == []
    ((kind, fields),) = documents.look(EPOCH_S + DAY_S)
    assert (kind, fields["site"], fields["closed"]) == ("relay.documents_lapsed", "c", "a-d")
    assert list(documents.look(EPOCH_S + 2 * DAY_S)) == []


def test_what_was_never_documented_does_not_lapse() -> None:
    """It stands in every statement; nobody is called at night because a file is as it always was."""
    never = SiteFacts(name="c", owner="o")
    assert list(Documents("a", square(c=never)).look(EPOCH_S)) == []


def test_a_meter_reads_the_rate_of_its_window() -> None:
    meter = Meter(window_s=10.0)
    assert meter.read(0.0, 500) == 0.0
    rates = [meter.read(float(second), 500 + 100 * second) for second in range(1, 30)]
    assert rates == [100.0] * 29
    assert meter.read(30.0, 0) == 0.0, "another store"
    assert [meter.read(30.0 + second, 0) for second in (5, 15)] == [0.0, 0.0]
