"""What a link saves up of its share, way by way, and when a block of it is due."""

from __future__ import annotations

import pytest

from keystrand.relay.atlas import Atlas, RelayedLink, SiteFacts, Terms
from keystrand.relay.linkstate import LinkState
from keystrand.relay.sharing import BURST, Sharing, Way
from keystrand.testing.clock import VirtualClock
from keystrand.testing.network.post import sign_as, verify

ATLAS = Atlas(
    {name: SiteFacts(name=name) for name in "abcdx"},
    (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"), ("a", "x"), ("x", "d")),
    {"a-d": RelayedLink(name="a-d", ends=("a", "d"), terms=Terms(accept_undocumented=True))},
)
NEED = 1000
B, C, X = ((("a", "b", "d"),), (("a", "c", "d"),), (("a", "x", "d"),))  # ways
GRAPH = {site: dict.fromkeys(sorted(ATLAS.neighbours(site)), 1.0) for site in "abcdx"}


class Turns:
    def __init__(self, **bps: float) -> None:
        self.clock = VirtualClock()
        self.sharing = Sharing(LinkState("a", ATLAS, self.clock, sign_as("a"), verify, suspect_s=1000.0))
        self.sharing.plan = {"a-d": {{"b": B, "c": C, "x": X}[name]: rate for name, rate in bps.items()}}
        self.wait(0.0)

    def wait(self, for_s: float) -> None:
        self.clock.move_to(self.clock.monotonic_s() + for_s)
        self.sharing.tick(["a-d"], NEED)

    def due(self) -> list[Way]:
        """The ways that blocks go over now, one after the other."""
        ways = []
        while (way := self.sharing.due("a-d", GRAPH, NEED)) is not None:
            self.sharing.spend("a-d", way, NEED)
            ways.append(way)
        return ways


def test_the_first_block_goes_at_once_over_the_way_with_most_and_the_others_are_saved_up_for() -> None:
    turns = Turns(b=100.0, c=50.0)
    assert turns.due() == [B]
    turns.wait(9.9)
    assert turns.due() == []
    turns.wait(0.1)
    assert turns.due() == [B]
    turns.wait(10.0)
    assert sorted(turns.due()) == [B, C]


def test_a_way_saves_up_so_many_blocks_and_no_more() -> None:
    turns = Turns(b=100.0)
    turns.wait(3600.0)
    assert turns.due() == [B] * BURST


def test_what_is_above_a_block_is_kept_for_the_next() -> None:
    turns = Turns(b=100.0)
    turns.due()
    turns.wait(15.0)
    assert turns.due() == [B]
    turns.wait(5.0)
    assert turns.due() == [B]


def test_the_way_that_saved_most_comes_first() -> None:
    turns = Turns(b=100.0, c=99.0)
    turns.due()
    turns.wait(12.0)
    assert turns.due() == [B, C]
    turns.sharing.plan = {"a-d": {B: 90.0, C: 100.0}}
    turns.wait(11.0)
    assert turns.due() == [C, B]


def test_the_share_of_a_way_in_doubt_goes_over_the_others_in_proportion() -> None:
    turns = Turns(b=60.0, c=30.0, x=10.0)
    turns.due()
    turns.sharing.state.suspect("a", "b", 0.0)
    turns.wait(12.0)  # 75 and 25 bits a second now
    assert turns.due() == []
    turns.wait(2.0)
    assert turns.due() == [C]
    turns.wait(26.0)
    assert sorted(turns.due()) == [C, C, X], "19.5 s of 75, and 40 s of 25"


def test_ways_that_had_no_share_take_that_of_one_in_doubt_in_equal_parts() -> None:
    turns = Turns(b=60.0, c=0.0, x=0.0)
    turns.due()
    turns.sharing.state.suspect("a", "b", 0.0)
    turns.wait(33.0)
    assert turns.due() == []
    turns.wait(1.0)
    assert sorted(turns.due()) == [C, X]


def test_where_all_are_in_doubt_the_least_doubted_is_taken() -> None:
    turns = Turns(b=60.0, c=60.0)
    turns.due()
    for hop, lost in (("b", 2), ("c", 1)):
        for number in range(lost):
            turns.clock.move_to(turns.clock.monotonic_s() + 1.0)
            turns.sharing.state.suspect("a", hop, turns.clock.monotonic_s() - 0.5 + number / 10)
    turns.wait(25.0)
    assert set(turns.due()) == {C}


def test_a_way_whose_hops_have_no_bits_is_not_due() -> None:
    turns = Turns(b=100.0, c=50.0)
    graph = {site: {near: cost for near, cost in around.items() if near != "b"} for site, around in GRAPH.items()}
    assert turns.sharing.due("a-d", graph, NEED) is None
    turns.wait(20.0)
    assert turns.sharing.due("a-d", graph, NEED) == C
    assert turns.sharing.due("a-d", GRAPH, NEED) == B


@pytest.mark.parametrize(("bps", "binds"), [({}, False), ({"b": 0.0}, False), ({"b": 0.0, "c": 1.0}, True)])
def test_a_link_without_a_share_is_not_bound_to_one(bps: dict[str, float], binds: bool) -> None:
    assert Turns(**bps).sharing.binds("a-d") is binds
