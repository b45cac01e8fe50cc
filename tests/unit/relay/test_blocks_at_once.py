"""Several blocks of a link under way at once: their numbers at both ends, and what is bounded."""

from __future__ import annotations

from keystrand.core.clock import SystemEntropy
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.core.way import Way
from keystrand.relay.atlas import Atlas, RelayedLink, SiteFacts, Terms
from keystrand.relay.linkstate import LinkState
from keystrand.relay.pace import Pace
from keystrand.relay.ports import AHEAD_MAX, Deliver, Draw, Order, Say
from keystrand.relay.relay import Relay
from keystrand.relay.supply import JOINTS_MAX, Joint, Sending, Supply
from keystrand.testing.clock import VirtualClock
from keystrand.testing.network.post import sign_as, verify
from keystrand.wire.relay import Joined, Lost, Place, Span

PACE = Pace(block_bytes=64, at_once=3)
LINK = RelayedLink(name="a-d", ends=("a", "d"), terms=Terms(accept_undocumented=True))
ATLAS = Atlas(
    {name: SiteFacts(name=name) for name in "abcd"},
    (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d")),
    {"a-d": LINK},
)
MANY = 10**7


class Origin:
    """Site a, whose neighbours answer, and what it orders."""

    def __init__(self, *, bits: int = MANY, missing_bits: int = 10**6) -> None:
        self.clock = VirtualClock()
        state = LinkState("a", ATLAS, self.clock, sign_as("a"), verify)
        self.relay = Relay("a", ATLAS, state, clock=self.clock, entropy=SystemEntropy(), pace=PACE)
        for site in "bcd":
            other = LinkState(site, ATLAS, self.clock, sign_as(site), verify)
            spans = {near: Span(near, bits, 1000) for near in sorted(ATLAS.neighbours(site))}
            advert = other.own(spans)
            assert advert is not None
            self.relay.hear("b", advert)
        for near in "bc":
            self.relay.up(near, bits, 1000)
        self.fill(missing_bits)
        self.relay.drain()

    def fill(self, missing_bits: int, following: int = 0) -> None:
        held = self.relay.sender.fill.floor_bits - missing_bits
        self.relay.supply("a-d", held_bits=held, following=following)

    def tick(self, after_s: float = 0.0) -> list[Order]:
        self.clock.move_to(self.clock.monotonic_s() + after_s)
        self.relay.tick()
        return self.relay.drain()

    def places(self) -> list[Place]:
        sent = self.relay.sender.supplies["a-d"].sendings
        return [Place("a-d", sequence, 1, 1, sending.way.routes) for sequence, sending in sent.items()]

    def join(self, place: Place, number: int) -> list[int | None]:
        """The target says that it has this block under that number. What our KME is given."""
        self.relay.hear(place.route[1], Joined(place=place, is_kept=True, next_sequence=number + 1))
        return [order.number for order in self.relay.drain() if isinstance(order, Deliver)]


def test_as_many_blocks_set_out_as_fit_in_and_may_be_under_way() -> None:
    origin = Origin()
    draws = [order for order in origin.tick() if isinstance(order, Draw)]
    assert len(draws) == PACE.at_once
    assert {draw.neighbour for draw in draws} == {"b", "c"}, "over both ways"
    assert origin.tick(1.0) == []
    few = Origin(missing_bits=8 * PACE.block_bytes + 1)
    few.tick()
    assert len(few.places()) == 2, "the second is not full"


def test_blocks_under_way_count_for_the_bits_of_their_hops() -> None:
    """Two pads on each hop: four blocks may go, were more allowed, and no fifth finds bits."""
    origin = Origin()
    need_bits = origin.relay.sender.need_bits
    scarce = Origin(bits=2 * need_bits - 1)
    scarce.tick()
    assert len(scarce.places()) == 2, "one on each way"
    assert {place.route for place in scarce.places()} == {("a", "b", "d"), ("a", "c", "d")}
    assert len(origin.tick()) >= PACE.at_once


def test_a_quick_block_does_not_wait_for_a_slow_one_that_set_out_before() -> None:
    origin = Origin()
    origin.tick()
    slow, quick, third = origin.places()
    first = slow.sequence
    assert origin.join(quick, first) == [first], "the number that its target gave it"
    assert origin.join(third, first + 1) == [first + 1]
    assert origin.join(slow, first + 2) == [first + 2]


def test_words_that_overtake_each_other_are_put_in_order() -> None:
    origin = Origin()
    origin.fill(MANY, following=7)
    origin.tick()
    one, two, three = origin.places()
    assert one.sequence == 7 + PACE.at_once, "what may be about from before a restart is left out"
    assert origin.join(three, one.sequence + 1) == [], "what has the number before may be on its way"
    assert origin.join(two, one.sequence + 2) == []
    assert origin.join(one, one.sequence) == [one.sequence, one.sequence + 1, one.sequence + 2]


def test_a_number_that_nobody_brings_is_waited_for_a_while_and_no_longer() -> None:
    origin = Origin()
    origin.tick()
    _, two, _ = origin.places()
    assert origin.join(two, two.sequence) == []
    assert not [order for order in origin.tick(PACE.hop_s - 0.1) if isinstance(order, Deliver)]
    given = [order.number for order in origin.tick(0.2) if isinstance(order, Deliver)]
    assert given == [two.sequence]


def test_nothing_is_waited_for_where_no_older_block_is_under_way() -> None:
    origin = Origin()
    origin.tick()
    one, two, _ = origin.places()
    origin.relay.hear(one.route[1], Lost(place=one, at="d", reason="time"))
    assert origin.join(two, two.sequence) == [two.sequence]


def test_no_more_than_so_many_blocks_wait_for_their_turn() -> None:
    supply = Supply(LINK)
    sending = Sending(Secret(bytes(8)), Way(1, (("a", "b", "d"),)), 0.0, 99.0)
    supply.begin(sending, skip=0)
    supply.joints = [Joint(number, sending, 99.0) for number in range(2, JOINTS_MAX + 2)]
    assert supply.due(0.0) == []
    supply.joints.append(Joint(JOINTS_MAX + 2, sending, 99.0))
    assert [joint.number for joint in supply.due(0.0)] == list(range(2, JOINTS_MAX + 3))
    assert supply.following == JOINTS_MAX + 3


def test_a_far_word_is_believed_so_far_and_no_further() -> None:
    """A lie about numbers must not end a link for ever: each end follows the other a bounded step at a time."""
    origin = Origin()
    origin.tick()
    one = origin.places()[0]
    assert origin.join(one, 2**60) == [], "others may have lower ones"
    supply = origin.relay.sender.supplies["a-d"]
    assert [joint.number for joint in supply.joints] == [one.sequence + AHEAD_MAX - 1]
    order = Deliver(1, "a-d", 2**60, Secret(bytes(8)), "")
    assert order.number_of(5) == 5 + AHEAD_MAX
    assert Deliver(1, "a-d", 9, Secret(bytes(8)), "").number_of(5) == 9
    assert Deliver(1, "a-d", 3, Secret(bytes(8)), "").number_of(5) == 5
    assert Deliver(1, "a-d", 3, Secret(bytes(8)), "", 2).number_of(5) == 2, "told by the target"


def test_a_target_that_was_set_back_is_followed_and_one_that_is_ahead_too() -> None:
    origin = Origin()
    origin.fill(MANY, following=1000)
    origin.tick()
    place = origin.places()[0]
    origin.relay.hear(place.route[1], Joined(place=place, is_kept=False, next_sequence=5000))
    assert origin.relay.sender.supplies["a-d"].following == place.sequence + AHEAD_MAX


def test_one_burst_of_losses_is_one_failure() -> None:
    origin = Origin()
    origin.tick()
    for place in origin.places():
        origin.relay.hear(place.route[1], Lost(place=place, at="d", reason="time"))
    assert not origin.places()
    supply = origin.relay.sender.supplies["a-d"]
    assert (supply.failures, supply.not_before_s) == (1, PACE.pause_s)
    origin.tick(PACE.pause_s - 0.1)
    assert not origin.places()
    origin.tick(0.1)
    assert len(origin.places()) == PACE.at_once
    for place in origin.places():
        origin.relay.hear(place.route[1], Lost(place=place, at="d", reason="time"))
    assert (supply.failures, supply.not_before_s) == (2, 3 * PACE.pause_s)


def test_pads_that_come_for_a_block_given_up_lock_nothing() -> None:
    origin = Origin()
    draws = [order for order in origin.tick() if isinstance(order, Draw)]
    origin.tick(PACE.block_s)
    assert not origin.places()
    keys: list[Key] = []
    for draw in draws:
        origin.relay.drawn(draw.ticket, keys)
    assert not [order for order in origin.relay.drain() if isinstance(order, Say)]
