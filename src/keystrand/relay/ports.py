"""What a relay asks of its surroundings, and what it may be told to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from keystrand.core.events import Event
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.wire.relay import AnyRelayMessage


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
    """A block for our KME, of the relayed link; the answer is `Relay.delivered`. source: how it came (core/way.py)."""

    link: str
    sequence: int
    material: Secret = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class Tell:
    """An event for the sinks."""

    event: Event


Order = Draw | Fetch | Say | Deliver | Tell


def pad_of(keys: list[Key] | None, size_bytes: int) -> Secret | None:
    """The first bytes of these keys, in their order, as one pad; None where there are no keys, or too few. They are wiped."""
    material = b"".join(key.material.reveal() for key in keys or ())
    for key in keys or ():
        key.material.wipe()
    return Secret(material[:size_bytes]) if len(material) >= size_bytes else None
