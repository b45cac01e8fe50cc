"""What a KME knows of a managed key after its material has gone: who shares it, how it was made, where its life stands.

Both ends of a key keep a record. What an operator does at one end is told to the other, and the two are merged so that
any order and any repetition of the telling comes to the same: later stages of life win, and a live key is
suspended while either end has it so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from keystrand.core.protection import Protection, Strand
from keystrand.core.states import State
from keystrand.core.way import Way

CARRIED = "over "  # a link of this name, and a KME's: keys that it carried on, in clear
WOVEN = "woven over "  # or which their two ends wove with ML-KEM, and signed

LEVEL = {
    State.PRE_ACTIVATION: 0,
    State.ACTIVE: 0,
    State.SUSPENDED: 0,
    State.DEACTIVATED: 1,
    State.COMPROMISED: 2,
    State.DESTROYED: 3,
}


Turns = tuple[int, int]  # of this end and of the other


class Stage(IntEnum):
    """What time will do next to a record, when `due_s` has come."""

    ROTATE = 0
    EXPIRE = 1
    COLLECT = 2


class KeyRecord(NamedTuple):
    """One managed key. A tuple because one is made for every key on its way out.

    first_sequence, last_sequence: the device blocks of `link` that its bits came from, -1 without QKD strand.
    tags: each "name=value". expires_s: end of the cryptoperiod. turn, peer_turn: how often this end, and the other one,
    suspended it or had that taken back; odd means suspended.
    actor, reason: of the last change. destroyed_n: number of the audit record of its destruction, -1 before.
    rotation_due_s: when rotation fell due, 0 before. All times are Unix seconds.
    """

    key_id: str
    initiator: str
    responders: tuple[str, ...]
    peer: str
    link: str
    first_sequence: int
    last_sequence: int
    strands: frozenset[Strand]
    size_bits: int
    tenant: str
    tags: tuple[str, ...]
    created_s: float
    activated_s: float
    expires_s: float
    stage: Stage
    due_s: float
    state: State = State.ACTIVE
    turn: int = 0
    peer_turn: int = 0
    changed_s: float = 0.0
    actor: str = ""
    reason: str = ""
    compromised_s: float = 0.0
    destroyed_n: int = -1
    rotation_due_s: float = 0.0
    uses: int = 0
    used_bytes: int = 0

    @property
    def protection(self) -> Protection:
        return Protection.of(self.strands)

    @property
    def turns(self) -> Turns:
        return self.turn, self.peer_turn

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        return tuple((self.initiator, responder) for responder in self.responders)

    def concerns(self, sae: str) -> bool:
        return sae == self.initiator or sae in self.responders


def merged(state: State, turns: Turns, other: State, other_turns: Turns) -> tuple[State, Turns]:
    """State and turns that two ends agree on, `other_turns` as seen from here. Commutative, associative, idempotent.

    Only the end that suspended a key counts on from an even turn, so that no suspension is lost to a resumption that was
    decided without knowing of it.
    """
    latest = (max(turns[0], other_turns[0]), max(turns[1], other_turns[1]))
    if LEVEL[state] or LEVEL[other]:
        return max(state, other, key=LEVEL.__getitem__), latest
    return (State.SUSPENDED if latest[0] % 2 or latest[1] % 2 else State.ACTIVE), latest


def suspended(turns: Turns) -> Turns:
    """The turns after this end suspends an active key."""
    return turns[0] + 1, turns[1]


def resumed(turns: Turns) -> Turns:
    """The turns after either end's suspension was taken back."""
    return turns[0] + turns[0] % 2, turns[1] + turns[1] % 2


@dataclass(frozen=True, slots=True)
class Use:
    """A consumer of a key, by its own word: the SAE that reports, and what it calls the thing that uses the key."""

    key_id: str
    sae: str
    consumer: str
    last_s: float


class Tally(NamedTuple):
    """Keys of one link and of the same strands, counted. used_bytes: that their consumers said they protected."""

    link: str
    peer: str
    strands: frozenset[Strand]
    keys: int
    bits: int
    used_bytes: int
    first_s: float
    last_s: float


def tallied(records: Iterable[KeyRecord]) -> list[Tally]:
    """These keys, counted; ordered by link, peer and strands."""
    groups: dict[tuple[str, str, tuple[Strand, ...]], list[KeyRecord]] = {}
    for record in records:
        groups.setdefault((record.link, record.peer, tuple(sorted(record.strands))), []).append(record)
    return [
        Tally(
            link=link,
            peer=peer,
            strands=frozenset(strands),
            keys=len(group),
            bits=sum(record.size_bits for record in group),
            used_bytes=sum(record.used_bytes for record in group),
            first_s=min(record.created_s for record in group),
            last_s=max(record.created_s for record in group),
        )
        for (link, peer, strands), group in sorted(groups.items())
    ]


@dataclass(frozen=True, slots=True)
class Origin:
    """A device block as it came in: from which source, and when."""

    link: str
    sequence: int
    source: str
    ingested_s: float

    def is_open_to(self, relay: str) -> bool:
        """Whether this site, as a relay, could have seen it."""
        way = Way.parse(self.source)
        return way is not None and way.is_open_to((relay,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which keys are meant: all criteria that are given must hold; without any, every key.

    source: the QKD module that delivered some of the bits, as it calls itself ("simulated-bb84", vendor and model).
    relay: a site that could have seen some of the bits, as a relay on their way or as the other end of their link.
    since_s, until_s: keys that were made then, or of bits that came in then.
    """

    key_ids: tuple[str, ...] = ()
    states: frozenset[State] = frozenset()
    tags: tuple[str, ...] = ()
    tenant: str | None = None
    sae: str | None = None
    peer: str | None = None
    link: str | None = None
    source: str | None = None
    relay: str | None = None
    since_s: float | None = None
    until_s: float | None = None

    @property
    def is_empty(self) -> bool:
        return self == Scope()

    @property
    def is_of_bits(self) -> bool:
        """Whether it speaks of where bits came from, and of nothing that bits in the pool do not have yet."""
        origin = (self.peer, self.link, self.source, self.relay, self.since_s, self.until_s)
        owner = self.key_ids or self.states or self.tags or self.tenant is not None or self.sae is not None
        return not owner and any(part is not None for part in origin)

    def in_window(self, at_s: float) -> bool:
        return (self.since_s is None or at_s >= self.since_s) and (self.until_s is None or at_s < self.until_s)

    def covers_block(self, block: Origin, peer: str) -> bool:
        """Of the link with `peer`."""
        is_seen = self.relay is None or self.relay == peer or block.is_open_to(self.relay)
        return is_seen and self.source in (None, block.source) and self.in_window(block.ingested_s)

    def covers(self, record: KeyRecord, blocks: Callable[[KeyRecord], Iterable[Origin]]) -> bool:
        """Whether `record` is meant. `blocks` tells what its bits came from; asked only where that matters."""
        named = (
            (not self.key_ids or record.key_id in self.key_ids)
            and (not self.states or record.state in self.states)
            and set(self.tags) <= set(record.tags)
            and self.tenant in (None, record.tenant)
            and (self.sae is None or record.concerns(self.sae))
            and self.peer in (None, record.peer)
            and self.link in (None, record.link)
        )
        if not named or (self.source is None and self.relay is None and self.in_window(record.created_s)):
            return named
        came = list(blocks(record))
        if self.relay not in (None, record.peer) and not any(block.is_open_to(self.relay or "") for block in came):
            return False
        if self.source is not None and not any(block.source == self.source for block in came):
            return False
        return self.in_window(record.created_s) or any(self.in_window(block.ingested_s) for block in came)
