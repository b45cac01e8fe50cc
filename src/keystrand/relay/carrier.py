"""Shares in a site's hands: unlocked with the pads of the hop before, sent on under those of the next one until it has them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from keystrand.core.clock import Clock
from keystrand.core.errors import PeerFault, Tampered
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.crypto.onetime import TAG_BYTES, lock, pad_bytes, unlock
from keystrand.relay.pace import Pace
from keystrand.relay.ports import Draw, Fetch, Orders, pad_of
from keystrand.wire.relay import Carry, Place, Taken, context_of

SEEN_MAX: Final = 4096  # shares remembered, so that a repeated one is answered and not fetched again
FETCHING_MAX: Final = 256  # shares whose pads are on their way; more are asked for again by their repetition


@dataclass(slots=True)
class Leg:
    """A share that this site has to bring to the next one."""

    place: Place
    hop: int  # of the next site in the route
    text: Secret | None
    deadline_s: float
    carry: Carry | None = None
    repeat_s: float = 0.0

    @property
    def neighbour(self) -> str:
        return self.place.route[self.hop]


class Carrier:
    """arrive: takes a share at the end of its route; lose: hears of one that goes no further, and why."""

    def __init__(
        self,
        orders: Orders,
        *,
        clock: Clock,
        pace: Pace,
        arrive: Callable[[Place, Secret], None],
        lose: Callable[[Place, str], None],
    ) -> None:
        self.orders, self.clock, self.pace = orders, clock, pace
        self._arrive, self._lose = arrive, lose
        self._legs: dict[Place, Leg] = {}
        self._fetching: dict[int, Carry] = {}
        self._drawing: dict[int, Leg] = {}
        self._seen: OrderedDict[Place, None] = OrderedDict()

    def in_hand(self) -> Iterator[str]:
        """The neighbour at the other end of the hop of each share."""
        yield from (leg.neighbour for leg in self._legs.values())
        yield from (carry.place.route[carry.hop - 1] for carry in self._fetching.values())

    def tick(self) -> None:
        """Repeat, and give up."""
        now_s = self.clock.monotonic_s()
        for leg in list(self._legs.values()):
            if leg.place not in self._legs:
                continue  # went with its block
            if now_s >= leg.deadline_s:
                self._end(leg)
                self._lose(leg.place, "time")
            elif leg.carry is not None and now_s >= leg.repeat_s:
                leg.repeat_s = now_s + self.pace.repeat_s
                self.orders.say(leg.neighbour, leg.carry)

    # a share comes -------------------------------------------------------------------------------------------------

    def hear(self, neighbour: str, carry: Carry) -> None:
        """Raises PeerFault for a share of another size."""
        place, hop = carry.place, carry.hop
        if len(carry.box) != self.pace.block_bytes + TAG_BYTES:
            raise PeerFault(f"{neighbour} carries a box of {len(carry.box)} bytes")
        if place in self._seen:
            self.orders.say(neighbour, Taken(place=place, hop=hop))
        elif len(self._fetching) < FETCHING_MAX and all(other.place != place for other in self._fetching.values()):
            ticket = self.orders.ticket()
            self._fetching[ticket] = carry
            self.orders.give(Fetch(ticket, neighbour, carry.key_ids))

    def fetched(self, ticket: int, keys: list[Key] | None) -> None:
        """The pads of a share that came; None: our KME does not have them."""
        carry = self._fetching.pop(ticket)
        place, hop = carry.place, carry.hop
        pad = pad_of(keys, pad_bytes(self.pace.block_bytes))
        if pad is None:
            self._lose(place, "no pads")
            return
        try:
            text = unlock(carry.box, pad, context_of(place, hop, carry.key_ids))
        except Tampered:
            neighbour = place.route[hop - 1]
            self.orders.tell("relay.tampered", link=place.link, sequence=place.sequence, neighbour=neighbour)
            self._lose(place, "tampered")
            return
        finally:
            pad.wipe()
        self._remember(place)
        self.orders.say(place.route[hop - 1], Taken(place=place, hop=hop))
        if hop == len(place.route) - 1:
            self._arrive(place, text)
        else:
            seen = "whole" if place.needed == 1 else "part"  # a part alone says nothing of the block
            self.orders.tell("relay.saw", link=place.link, seen=seen, bits=text.length_bits)
            self.forward(place, hop + 1, text)

    def _remember(self, place: Place) -> None:
        self._seen[place] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)

    # a share goes on -----------------------------------------------------------------------------------------------

    def forward(self, place: Place, hop: int, text: Secret) -> None:
        """To the site at `hop` of its route."""
        leg = Leg(place, hop, text, self.clock.monotonic_s() + self.pace.hop_s)
        self._legs[place] = leg
        ticket = self.orders.ticket()
        self._drawing[ticket] = leg
        self.orders.give(Draw(ticket, leg.neighbour, pad_bytes(len(text))))

    def drawn(self, ticket: int, keys: list[Key] | None) -> None:
        """The pads of a share that goes on; None: our KME has none, or not under the protection that a hop needs."""
        leg = self._drawing.pop(ticket)
        if self._legs.get(leg.place) is not leg or leg.text is None:
            return  # given up meanwhile: the pads are spent
        ids = tuple(key.key_id for key in keys or ())
        pad = pad_of(keys, pad_bytes(len(leg.text)))
        if pad is None:
            self._end(leg)
            self._lose(leg.place, "no pads")
            return
        box = lock(leg.text, pad, context_of(leg.place, leg.hop, ids))
        pad.wipe()
        leg.text.wipe()
        leg.text = None
        leg.carry = Carry(place=leg.place, hop=leg.hop, key_ids=ids, box=box)
        leg.repeat_s = self.clock.monotonic_s() + self.pace.repeat_s
        self.orders.say(leg.neighbour, leg.carry)

    def taken(self, neighbour: str, taken: Taken) -> None:
        leg = self._legs.get(taken.place)
        if leg is not None and leg.carry is not None and (leg.hop, leg.neighbour) == (taken.hop, neighbour):
            self._end(leg)

    def drop(self, link: str, sequence: int) -> None:
        """The shares of a block that is given up."""
        for leg in [leg for leg in self._legs.values() if (leg.place.link, leg.place.sequence) == (link, sequence)]:
            self._end(leg)

    def _end(self, leg: Leg) -> None:
        self._legs.pop(leg.place, None)
        if leg.text is not None:
            leg.text.wipe()
