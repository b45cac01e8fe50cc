"""Blocks that end at a site: their parts are gathered until they give the block, then its origin is told over every route."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keystrand.core.clock import Clock
from keystrand.core.secret import Secret
from keystrand.core.way import Way
from keystrand.relay.pace import Pace
from keystrand.relay.ports import Deliver, Orders
from keystrand.relay.split import join
from keystrand.wire.relay import Joined, Place


@dataclass(slots=True)
class Gathering:
    """A block that ends here."""

    place: Place  # of the share that came first
    parts: dict[int, Secret]
    deadline_s: float
    is_joined: bool = False


class Receiver:
    """Our KME gives a block the number that it expects next; the origin's KME takes it under that number."""

    def __init__(self, orders: Orders, *, clock: Clock, pace: Pace) -> None:
        self.orders, self.clock, self.pace = orders, clock, pace
        self._gatherings: dict[tuple[str, int], Gathering] = {}
        self._delivering: dict[int, Place] = {}

    def in_hand(self) -> Iterator[str]:
        """The neighbour that the first share of each unfinished block came from."""
        yield from (one.place.route[-2] for one in self._gatherings.values() if not one.is_joined)

    def arrive(self, place: Place, text: Secret) -> None:
        """One share of a block."""
        key, now_s = (place.link, place.sequence), self.clock.monotonic_s()
        gathering = self._gatherings.setdefault(key, Gathering(place, {}, now_s + self.pace.block_s))
        if gathering.place.routes != place.routes or gathering.is_joined:
            text.wipe()
            return
        gathering.parts[place.part] = text
        if len(gathering.parts) < place.needed:
            return
        gathering.is_joined = True
        gathering.deadline_s = now_s + self.pace.hop_s * max(
            map(len, place.routes)
        )  # until no share of it can come late
        block = join(gathering.parts, place.needed, len(place.routes))
        _wipe(gathering)
        ticket = self.orders.ticket()
        self._delivering[ticket] = place
        self.orders.give(Deliver(ticket, place.link, place.sequence, block, str(Way(place.needed, place.routes))))

    def delivered(self, ticket: int, *, is_kept: bool, following: int) -> None:
        """Our KME has taken a block, or refused it; see Relay.delivered."""
        place = self._delivering.pop(ticket, None)
        if place is None:
            return  # of our own making: nobody waits
        for part in range(1, len(place.routes) + 1):
            back = Place(place.link, place.sequence, place.needed, part, place.routes)
            self.orders.say(back.route[-2], Joined(place=back, is_kept=is_kept, next_sequence=following))

    def tick(self) -> None:
        """Forget what did not come in time."""
        now_s = self.clock.monotonic_s()
        for key in [key for key, gathering in self._gatherings.items() if now_s >= gathering.deadline_s]:
            _wipe(self._gatherings.pop(key))


def _wipe(gathering: Gathering) -> None:
    for secret in gathering.parts.values():
        secret.wipe()
