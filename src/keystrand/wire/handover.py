"""One key handed between the KMEs of two networks (ETSI GS QKD 020 V1.1.1): its stages as a table, its record, its store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

from keystrand.core.secret import Secret
from keystrand.wire.etsi020 import KEYS_MAX, Ack, AckStatus, Extensions, ExtKey, ExtKeys, Parties, Refused, Void

_K = TypeVar("_K")
_T = TypeVar("_T")
TOMBSTONE_S: Final = 86_400.0  # longer than any request can be on its way


class Stage(StrEnum):
    """Where a key stands at this end."""

    OFFERED = "offered"  # sender: the peer may have it
    HELD = "held"  # receiver: accepted, not yet at the KME of its target SAE
    READY = "ready"  # at both ends: an SAE may have it
    RELEASED = "released"  # an SAE has it
    VOIDING = "voiding"  # given up here; what the peer did with it is not known yet
    VOIDED = "voided"  # never to be given out


class Step(StrEnum):
    """What can happen to it."""

    RELAYED = "relayed"
    FAILED = "failed"
    NEVER_THERE = "never there"  # the peer refused it, and cannot have taken it before
    GIVEN_UP = "given up"
    PEER_VOIDED = "peer voided"
    VOID_FAILED = "void failed"  # the peer's SAE has it
    RELEASE = "release"


TRANSITIONS: Final = MappingProxyType(
    {
        Stage.OFFERED: {
            Step.RELAYED: Stage.READY,
            Step.FAILED: Stage.VOIDING,  # the standard leaves open what a failed key leaves behind
            Step.NEVER_THERE: Stage.VOIDED,
            Step.GIVEN_UP: Stage.VOIDING,
            Step.PEER_VOIDED: Stage.VOIDED,
        },
        Stage.HELD: {
            Step.RELAYED: Stage.READY,
            Step.FAILED: Stage.VOIDED,
            Step.GIVEN_UP: Stage.VOIDING,
            Step.PEER_VOIDED: Stage.VOIDED,
        },
        Stage.READY: {
            Step.RELEASE: Stage.RELEASED,
            Step.GIVEN_UP: Stage.VOIDING,
            Step.PEER_VOIDED: Stage.VOIDED,
        },
        Stage.VOIDING: {Step.PEER_VOIDED: Stage.VOIDED, Step.VOID_FAILED: Stage.READY},
        Stage.RELEASED: {},
        Stage.VOIDED: {},
    }
)


@dataclass(slots=True, kw_only=True)
class Handover:
    """One key between this KME and `peer`. Everything that is still to be sent can be told from it, also after a crash.

    offer: the first key ID of the container that it came or went in; owes: an ack for the peer, to go to callback_url; unclear:
    a request with this key went out whose answer is not known. Times are Unix time, as records
    outlive processes; where that clock jumps, keys are voided or asked after too early or too late, never wrongly given out.

    A key that is carried on has two records: its way in, and its way out (`onward`). asked: the peer of this record wants
    the key void, and is answered once the other side has said whether it can be; kept: the peer said that it cannot, for an SAE
    has it. said: what goes with our acks of a key that came in, or came with the peer's ack of one that went out.
    woven: the material is no longer what came in (kme/ends.py).
    """

    key_id: str
    peer: str
    parties: Parties
    sends: bool
    stage: Stage
    since_s: float
    offer: str = ""
    material: Secret | None = field(default=None, repr=False, compare=False)
    extension: Extensions = field(default_factory=dict)
    mandatory: Extensions = field(default_factory=dict)
    optional: Extensions = field(default_factory=dict)
    callback_url: str | None = None
    owes: AckStatus | None = None
    accepted: bool = False  # the peer said 202: it has the key, and owes an ack
    unclear: bool = False
    alone: bool = False  # a request with several keys was refused: ask for each by itself
    attempts: int = 0
    next_s: float = 0.0
    deadline_s: float = 0.0
    onward: bool = False
    asked: bool = False
    kept: bool = False
    said: Extensions = field(default_factory=dict)
    woven: bool = False

    @property
    def name(self) -> str:
        """What the store calls it: one key ID may have two records."""
        return f"{self.key_id} {self.peer}" if self.onward else self.key_id


class HandoverStore(Protocol):
    """Where records live. `save` is durable, in the transaction of the call, before anything of it leaves this KME.

    A released or voided record is saved without its material. After a restore from a backup, records OFFERED, HELD or READY
    must be given up: they may have been released since. Those of keys that are carried on stay: nothing is released from them.
    """

    def load(self) -> Iterable[Handover]: ...
    def save(self, record: Handover, /) -> None: ...
    def forget(self, name: str, /) -> None: ...


@dataclass(slots=True)
class Records:
    """What stands between this KME and its peers, key by key, as `store` has it; and which of it has something to say."""

    store: HandoverStore
    _records: dict[str, Handover] = field(init=False, default_factory=dict)
    _onward: dict[str, Handover] = field(init=False, default_factory=dict)
    _busy: set[tuple[str, str]] = field(init=False, default_factory=set)  # key ID and peer

    def __post_init__(self) -> None:
        for record in self.store.load():
            record.unclear = record.unclear or record.stage is Stage.OFFERED
            self._table(record)[record.key_id] = record
            self._busy.add((record.key_id, record.peer))

    def stage(self, key_id: str) -> Stage | None:
        record = self._records.get(key_id)
        return record.stage if record else None

    def record(self, key_id: str) -> Handover | None:
        """To look at: only who keeps the rules changes it."""
        return self._records.get(key_id)

    def records(self) -> Collection[Handover]:
        """One per key, tombstones included, without the ways out of keys that are carried on; to look at."""
        return self._records.values()

    def onward(self, key_id: str) -> Handover | None:
        """The way out of a key that is carried on; to look at."""
        return self._onward.get(key_id)

    @property
    def count(self) -> int:
        return len(self._records) + len(self._onward)

    def sweep(self, now_s: float) -> None:
        """Forget what ended TOMBSTONE_S ago."""
        for record in list(self._records.values()):
            both = [record, *filter(None, [self._onward.get(record.key_id)])]
            if all(has_ended(each, len(both) == 2, now_s) for each in both):
                for each in both:
                    del self._table(each)[each.key_id]
                    self._busy.discard((each.key_id, each.peer))
                    self.store.forget(each.name)

    def _find(self, peer: str, key_id: str) -> Handover | None:
        """What stands between us and `peer`, or else whatever has this ID."""
        way_out = self._onward.get(key_id)
        return way_out if way_out is not None and way_out.peer == peer else self._records.get(key_id)

    def _other(self, record: Handover) -> Handover | None:
        """The other record of a key that is carried on."""
        return (self._records if record.onward else self._onward).get(record.key_id)

    def _table(self, record: Handover) -> dict[str, Handover]:
        return self._onward if record.onward else self._records

    def _keep(self, record: Handover) -> None:
        self._table(record)[record.key_id] = record
        self._busy.add((record.key_id, record.peer))
        self.store.save(record)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request for `peer`: ext_keys, acks or void, as the type of `body` says. Its answer goes to `answered`."""

    peer: str
    body: ExtKeys | tuple[Ack, ...] | Void
    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a request. Of these at most one is there; none is 202, or 200 to an ack.

    unclear: no answer, 408, 503, or one that cannot be read: the peer may or may not have done it.
    """

    acks: tuple[Ack, ...] = ()
    refused: Refused | None = None
    unclear: bool = False


def acks_of(statuses: Iterable[tuple[Handover, AckStatus]]) -> tuple[Ack, ...]:
    """Ack containers: one for all keys of the same status and parties, of which the same is said."""
    groups = grouped(statuses, lambda pair: (pair[1], pair[0].parties, tuple(_said(*pair).items())))
    return tuple(
        Ack(
            key_ids=tuple(record.key_id for record, _ in pairs[start : start + KEYS_MAX]),
            status=status,
            parties=parties,
            extension=dict(said),
        )
        for (status, parties, said), pairs in groups
        for start in range(0, len(pairs), KEYS_MAX)
    )


def _said(record: Handover, status: AckStatus) -> Extensions:
    return record.said if status is AckStatus.RELAYED else {}


def has_ended(record: Handover, is_carried: bool, now_s: float) -> bool:
    """Whether a record may be forgotten."""
    ended = record.stage in (Stage.RELEASED, Stage.VOIDED) or (is_carried and record.stage is Stage.READY)
    return ended and record.owes is None and now_s - record.since_s > TOMBSTONE_S


def wipe(record: Handover) -> None:
    """Let its material go."""
    if record.material is not None:
        record.material.wipe()
        record.material = None


def grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> list[tuple[_K, list[_T]]]:
    """In the order in which each key came first."""
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


def record_of(peer: str, key: ExtKey, keys: ExtKeys, stage: Stage, now_s: float) -> Handover:
    """What begins with a key of a container, that came in or goes out."""
    return Handover(
        key_id=key.key_id,
        peer=peer,
        parties=keys.parties,
        sends=False,
        stage=stage,
        since_s=now_s,
        offer=keys.keys[0].key_id,
        material=Secret(key.material.reveal()),
        extension=key.extension,
        mandatory=keys.mandatory,
        optional=keys.optional,
        callback_url=keys.callback_url,
        next_s=now_s,
    )
