"""What a relay asks of its surroundings, and what it may be told to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from keystrand.core.clock import Clock
from keystrand.core.events import Event, Scalar
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.wire.relay import AnyRelayMessage

AHEAD_MAX: Final = (
    256  # blocks that one end may be ahead of the other: beyond it, its word is believed so far and no further
)


@dataclass(frozen=True, slots=True)
class Draw:
    """New keys shared with the neighbour's relay, so many bytes in all; the answer is `Relay.drawn`."""

    ticket: int
    neighbour: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Our copies of the keys that the neighbour's relay drew; the answer is `Relay.fetched`."""

    ticket: int
    neighbour: str
    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Say:
    """A message for the neighbour's relay."""

    neighbour: str
    message: AnyRelayMessage


@dataclass(frozen=True, slots=True)
class Deliver:
    """A block for our KME, of the relayed link, in the order of these orders; the answer is `Relay.delivered`.

    number: under which the other end's KME has it; where that is not known yet, ours gives one by `number_of`, not below
    `sequence`, by which the relays call it. source: how it came (core/way.py).
    """

    ticket: int
    link: str
    sequence: int
    material: Secret = field(repr=False)
    source: str
    number: int | None = None

    def number_of(self, following: int) -> int:
        """The block's number in our pool. following: what our KME expects next of the link."""
        return self.number if self.number is not None else max(following, min(self.sequence, following + AHEAD_MAX))


@dataclass(frozen=True, slots=True)
class Tell:
    """An event for the sinks."""

    event: Event


Order = Draw | Fetch | Say | Deliver | Tell


class Orders:
    """What there is to do, until somebody takes it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: list[Order] = []
        self._tickets = 0

    def drain(self) -> list[Order]:
        """What to do, once."""
        orders, self._waiting = self._waiting, []
        return orders

    def give(self, order: Order) -> None:
        self._waiting.append(order)

    def say(self, neighbour: str, message: AnyRelayMessage) -> None:
        self.give(Say(neighbour, message))

    def tell(self, kind: str, **fields: Scalar) -> None:
        self.give(Tell(Event(kind, self._clock.now_s(), fields)))

    def ticket(self) -> int:
        """By which an answer finds its question."""
        self._tickets += 1
        return self._tickets


def pad_of(keys: list[Key] | None, size_bytes: int) -> Secret | None:
    """The first bytes of these keys, in their order, as one pad; None where there are no keys, or too few. They are wiped."""
    material = b"".join(key.material.reveal() for key in keys or ())
    for key in keys or ():
        key.material.wipe()
    return Secret(material[:size_bytes]) if len(material) >= size_bytes else None
