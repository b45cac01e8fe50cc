"""The plan by which fills share hops: never above what hops make, nothing left over, live demand first, dues in proportion."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.relay.sharing import QUANTA, Claim, Hop, Shares, Way, hops_of, share

SITES = "abcdef"
HOPS = list(combinations(SITES, 2))
ROUTES = st.permutations(SITES).map(lambda order: tuple(order[:3]))


def used(shares: Shares) -> dict[Hop, float]:
    sums: dict[Hop, float] = {}
    for ways in shares.values():
        for way, bps in ways.items():
            for hop in hops_of(way):
                sums[hop] = sums.get(hop, 0.0) + bps
    return sums


@st.composite
def claims(draw: st.DrawFn) -> list[Claim]:
    made = []
    for number in range(draw(st.integers(1, 4))):
        ways: tuple[Way, ...] = tuple({(route,): None for route in draw(st.lists(ROUTES, min_size=1, max_size=3))})
        live = draw(st.sampled_from([0.0, 1.0, 5.0]))
        made.append(Claim(link=f"l{number}", ways=ways, live_bps=live, due=draw(st.sampled_from([0.0, 1.0, 3.0]))))
    return made


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(HOPS), st.integers(1, 50).map(float), min_size=8), claims())
def test_no_hop_gives_more_than_it_makes_and_none_is_left_that_a_fill_could_have(
    rates: dict[Hop, float], asked: list[Claim]
) -> None:
    shares = share(rates, asked)
    sums = used(shares)
    for hop, bps in sums.items():
        assert bps <= rates.get(hop, 0.0) * (1 + 1e-6)
    for claim in asked:
        for way in claim.ways if claim.due else ():
            assert any(sums.get(hop, 0.0) >= rates.get(hop, 0.0) * (1 - 1e-6) for hop in hops_of(way)), (claim, way)


def one_hop(*wanted: tuple[float, float]) -> list[float]:
    """What links get of a hop that makes 100: each by what is drawn from it now and what it is due."""
    way: Way = (("a", "b"),)
    asked = [Claim(link=f"l{n}", ways=(way,), live_bps=live, due=due) for n, (live, due) in enumerate(wanted)]
    return [sum(ways.values()) for ways in share({("a", "b"): 100.0}, asked).values()]


def test_what_is_drawn_now_is_served_before_pools_fill() -> None:
    assert one_hop((60.0, 0.0), (0.0, 1000.0)) == pytest.approx([60.0, 40.0])
    assert one_hop((60.0, 60.0), (0.0, 60.0)) == pytest.approx([80.0, 20.0], abs=100 / QUANTA)
    assert one_hop((150.0, 0.0), (50.0, 0.0), (0.0, 9.0)) == pytest.approx([75.0, 25.0, 0.0], abs=100 / QUANTA)


def test_the_rest_goes_in_proportion_to_what_is_expected() -> None:
    assert one_hop((0.0, 300.0), (0.0, 100.0)) == pytest.approx([75.0, 25.0], abs=100 / QUANTA)


def test_one_with_two_ways_leaves_the_hop_that_another_needs() -> None:
    near: Way = (("a", "m", "z"),)
    far: Way = (("a", "n", "z"),)
    rates = {("a", "m"): 100.0, ("m", "z"): 100.0, ("a", "n"): 100.0, ("n", "z"): 100.0}
    asked = [
        Claim(link="free", ways=(near, far), live_bps=0.0, due=1.0),
        Claim(link="bound", ways=((("m", "z"),),), live_bps=0.0, due=1.0),
    ]
    shares = share(rates, asked)
    assert sum(shares["free"].values()) == pytest.approx(100.0, abs=200 / QUANTA)
    assert sum(shares["bound"].values()) == pytest.approx(100.0, abs=200 / QUANTA)


def test_parts_of_a_block_need_every_route_of_their_way() -> None:
    both: Way = (("a", "m", "z"), ("a", "n", "z"))
    rates = {("a", "m"): 100.0, ("m", "z"): 40.0, ("a", "n"): 70.0, ("n", "z"): 90.0}
    (ways,) = share(rates, [Claim(link="split", ways=(both,), live_bps=0.0, due=1.0)]).values()
    assert ways[both] == pytest.approx(40.0)
