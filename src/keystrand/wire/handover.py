"""One key handed between the KMEs of two networks (ETSI GS QKD 020 V1.1.1): its stages as a table, its record, its store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from keystrand.core.secret import Secret
from keystrand.wire.etsi020 import Ack, AckStatus, Extensions, ExtKeys, Parties, Refused, Void


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


class HandoverStore(Protocol):
    """Where records live. `save` is durable, in the transaction of the call, before anything of it leaves this KME.

    A released or voided record is saved without its material. After a restore from a backup, records OFFERED, HELD or READY
    must be given up: they may have been released since.
    """

    def load(self) -> Iterable[Handover]: ...
    def save(self, record: Handover, /) -> None: ...
    def forget(self, key_id: str, /) -> None: ...


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
