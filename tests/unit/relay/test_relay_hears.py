"""What a neighbour's relay may say: anything that parses, and the site goes on."""

from __future__ import annotations

import contextlib
import random

import pytest

from keystrand.core.clock import SystemEntropy
from keystrand.core.errors import PeerFault, Tampered
from keystrand.crypto.onetime import TAG_BYTES
from keystrand.relay.atlas import Atlas, RelayedLink, SiteFacts, Terms
from keystrand.relay.linkstate import LinkState
from keystrand.relay.ports import Draw, Fetch, Say
from keystrand.relay.relay import Relay
from keystrand.testing.clock import VirtualClock
from keystrand.testing.network.post import sign_as, verify
from keystrand.wire.relay import (
    Advert,
    AnyRelayMessage,
    Carry,
    Joined,
    Lost,
    Need,
    Place,
    SignedAdvert,
    Span,
    Taken,
    Window,
    decode,
    encode,
    signed,
)

OPEN = Terms(accept_undocumented=True)
ATLAS = Atlas(
    {name: SiteFacts(name=name) for name in "abcd"},
    (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d")),
    {
        "a-d": RelayedLink(name="a-d", ends=("a", "d"), terms=Terms(paths=2, accept_undocumented=True)),
        "b-c": RelayedLink(name="b-c", ends=("b", "c"), terms=OPEN),
    },
)
TOP = (1 << 63) - 1


def relay_of(site: str, clock: VirtualClock) -> Relay:
    state = LinkState(site, ATLAS, clock, sign_as(site), verify)
    return Relay(site, ATLAS, state, clock=clock, entropy=SystemEntropy())


def said(advert: Advert, *, by: str = "") -> SignedAdvert:
    return signed(advert, sign_as(by or advert.site))


class Liar:
    """Messages that parse, of names and numbers that mean something here, and some that do not."""

    def __init__(self, rng: random.Random, victim: Relay) -> None:
        self.rng, self.victim = rng, victim

    def name(self) -> str:
        return self.rng.choice(("a", "b", "c", "d", "a-d", "b-c", "nobody"))

    def count(self) -> int:
        return self.rng.choice((0, 1, 2, 255, TOP, self.rng.randrange(100)))

    def small(self) -> int:
        return self.rng.choice((0, 1, 2, 3, 255))

    def place(self) -> Place:
        odd = tuple(tuple(self.name() for _ in range(self.rng.randint(2, 4))) for _ in range(self.rng.randint(1, 3)))
        known = ((("a", "b", "d"), ("a", "c", "d")), (("b", "a", "c"),), (("b", "d", "c"),), odd)
        return Place(self.name(), self.count(), self.small(), self.small(), self.rng.choice(known))

    def advert(self) -> SignedAdvert:
        spans = tuple(Span(self.name(), self.count(), self.count()) for _ in range(self.rng.randint(0, 3)))
        window = Window(self.name(), self.rng.choice(("", self.name())), self.count(), self.count(), True)
        need = Need(self.name(), self.name(), self.name(), self.count(), self.count(), -1)
        advert = Advert(site=self.name(), number=self.count(), spans=spans, windows=(window,), needs=(need,))
        return said(advert, by="nobody" if advert.site == self.victim.site else "")

    def message(self) -> AnyRelayMessage:
        place, box = self.place(), bytes(self.rng.choice((0, self.victim.carrier.pace.block_bytes + TAG_BYTES)))
        return self.rng.choice(
            (
                Carry(place=place, hop=self.small(), key_ids=("k",), box=box),
                Taken(place=place, hop=self.small()),
                Lost(place=place, at=self.name(), reason="r"),
                Joined(place=place, is_kept=self.rng.random() < 0.5, next_sequence=self.count()),
                self.advert(),
            )
        )


@pytest.mark.parametrize("seed", range(100))
def test_whatever_neighbours_say_is_heard_or_their_fault_and_our_own_words_parse(seed: int) -> None:
    rng, clock = random.Random(seed), VirtualClock()
    relay = relay_of(rng.choice("abcd"), clock)
    liar, neighbours = Liar(rng, relay), sorted(ATLAS.neighbours(relay.site))
    for _ in range(60):
        with contextlib.suppress(PeerFault):
            relay.hear(rng.choice("abcd"), decode(encode(liar.message())))
        for name in neighbours:
            relay.up(name, liar.count(), liar.count())
        relay.tick()
        for order in relay.drain():
            if isinstance(order, Say):
                decode(encode(order.message))
            elif isinstance(order, Fetch):
                relay.fetched(order.ticket, None)
            elif isinstance(order, Draw):
                relay.drawn(order.ticket, None)
        clock.move_to(clock.monotonic_s() + rng.choice((0.0, 0.5, 5.0)))


def test_a_neighbour_cannot_push_our_own_numbers_to_their_end() -> None:
    """Our adverts would be no adverts any more, and the site gone from every map."""
    relay = relay_of("a", VirtualClock())
    with pytest.raises(Tampered):
        relay.hear("b", said(Advert(site="a", number=TOP, spans=()), by="b"))
    own = relay.state.own({})
    assert own is not None
    assert decode(encode(own)) == own
    relay.hear("b", said(Advert(site="a", number=own.advert.number + 60, spans=())))  # ours, before a restart
    again = relay.state.own({})
    assert again is not None
    assert again.advert.number == own.advert.number + 61


WHOLE = (("a", "b", "d"), ("a", "c", "d"))
NEEDED = ATLAS.links["a-d"].terms.threshold


def carried(place: Place, hop: int = 1) -> Carry:
    return Carry(
        place=place,
        hop=hop,
        key_ids=("k",),
        box=bytes(relay_of("a", VirtualClock()).carrier.pace.block_bytes + TAG_BYTES),
    )


def test_a_share_is_taken_up_as_its_terms_say_and_from_the_site_before_ours_only() -> None:
    right = Place("a-d", 0, NEEDED, 1, WHOLE)
    relay = relay_of("b", VirtualClock())
    relay.hear("a", carried(right))
    assert [type(order) for order in relay.drain()] == [Fetch]
    for neighbour, message in (
        ("d", carried(right)),
        ("a", carried(right, hop=2)),
        ("a", carried(Place("a-d", 0, NEEDED, 2, WHOLE))),  # that part goes by the other way
        ("a", carried(Place("a-d", 0, NEEDED, 0, WHOLE))),
        ("a", carried(Place("a-d", 0, NEEDED, 3, WHOLE))),
        ("a", carried(Place("a-d", 0, NEEDED + 1, 1, WHOLE))),
        ("a", carried(Place("a-d", 0, NEEDED, 1, WHOLE[:1]))),
        ("a", carried(Place("a-d", 0, NEEDED, 1, (WHOLE[0], WHOLE[0])))),
        ("a", carried(Place("b-c", 0, 1, 1, (("a", "b", "c"),)))),
    ):
        with pytest.raises(PeerFault):
            relay.hear(neighbour, message)
    assert relay.drain() == []


def test_words_go_back_along_the_route_and_never_past_its_ends() -> None:
    place = Place("a-d", 0, NEEDED, 1, WHOLE)
    joined = Joined(place=place, is_kept=True, next_sequence=1)
    middle = relay_of("b", VirtualClock())
    middle.hear("d", joined)
    assert middle.drain() == [Say("a", joined)]
    for site, neighbour, message in (("d", "b", joined), ("a", "b", carried(place, hop=0)), ("b", "a", joined)):
        with pytest.raises(PeerFault):
            relay_of(site, VirtualClock()).hear(neighbour, message)
