"""The records a KME keeps: pool blocks, open requests, recipients' copies, and the ledger in bits.

They live on the lowest floor because the service that decides and the store that persists are strangers to each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from keystrand.core.key import Segment
from keystrand.core.policy import DEFAULT_TENANT
from keystrand.core.protection import Strand
from keystrand.core.states import Step


class Wants(NamedTuple):
    """What an operation will read: a store that is far away fetches it for a whole batch in one round trip."""

    key_ids: tuple[str, ...] = ()  # their copies
    requests: tuple[tuple[str, str], ...] = ()  # (peer, request ID): their copies, and whether they are buried
    block_ids: tuple[str, ...] = ()


class Drawn(NamedTuple):
    """What one SAE has drawn towards others, ever: by quota in bits and keys, and by what of a pool it was paid from."""

    bits: int = 0
    keys: int = 0
    own_bits: float = 0.0  # its floor
    tenant_bits: float = 0.0  # its tenant's floor
    excess_bits: float = 0.0

    def plus(self, more: Drawn) -> Drawn:
        bits, keys = self.bits + more.bits, self.keys + more.keys
        own_bits, tenant_bits = self.own_bits + more.own_bits, self.tenant_bits + more.tenant_bits
        return Drawn(bits, keys, own_bits, tenant_bits, self.excess_bits + more.excess_bits)

    def less(self, before: Drawn) -> Drawn:
        bits, keys = self.bits - before.bits, self.keys - before.keys
        own_bits, tenant_bits = self.own_bits - before.own_bits, self.tenant_bits - before.tenant_bits
        return Drawn(bits, keys, own_bits, tenant_bits, self.excess_bits - before.excess_bits)


class Account(StrEnum):
    """Where a bit of a link can stand. ingested = the sum of all others, to the bit (invariant I9)."""

    INGESTED = "ingested"
    AVAILABLE = "available"  # confirmed at both ends, free
    RESERVED = "reserved"  # allocated to a key that has not left yet
    DELIVERED = "delivered"
    BURNT = "burnt"
    EXPIRED = "expired"
    QUARANTINED = "quarantined"  # not confirmed with the peer, or not trusted any more


class BlockState(StrEnum):
    PENDING = "pending"  # the peer has not confirmed the same bits yet; counts as quarantined
    CONFIRMED = "confirmed"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolBlock:
    """A piece of a device block, cut identically at both ends. Its material is kept beside it, zeroed where `taken`.

    taken: bit i set means that byte i of the block is allocated or burnt. owner: the site that may allocate from it
    (invariant I13); term counts changes of owner, the higher term wins.
    """

    block_id: str  # link/sequence/index
    link: str
    sequence: int
    index: int
    length_bits: int
    state: BlockState
    owner: str
    term: int = 0
    taken: int = 0
    epoch: int = 0
    ingested_s: float = 0.0

    @property
    def free_bits(self) -> int:
        return self.length_bits - 8 * self.taken.bit_count()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBlock:
    """What two KMEs compare about one delivered block: never the bits, a keyed digest of them."""

    link: str
    sequence: int
    length_bits: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A reservation on its way: durable before the peer hears of it, gone once the keys are released or given up.

    void: given up; the peer is told until it confirms. holder: the process that waits for the answer ("": the only one).
    key_ids: of a request made ahead of demand, in the order in which its keys leave; so many as `released` have left.
    """

    request_id: str
    peer: str
    link: str
    bits: int  # of link material in it, still in the RESERVED account (0 once burnt)
    op: int
    void: bool = False
    created_s: float = 0.0
    holder: str = ""
    key_ids: tuple[str, ...] = ()
    released: int = 0


class Copy(NamedTuple):
    """One recipient's copy of a key that waits at this KME. Its material is kept beside it and erased on delivery.

    A tuple because one is made for every key.
    """

    key_id: str
    recipient: str
    initiator: str
    peer: str
    link: str
    request_id: str
    length_bits: int
    strands: frozenset[Strand]
    segments: tuple[Segment, ...]
    step: Step
    reserved_s: float
    expires_s: float
    tenant: str = DEFAULT_TENANT  # under whose key it is kept


def key_like(alike: Copy, key_id: str, segments: tuple[Segment, ...]) -> Copy:
    """The same for another key: `_replace` for what is made for every key."""
    return Copy(key_id, *alike[1:8], segments, *alike[9:])


def at_step(copy: Copy, step: Step) -> Copy:
    """The same at another step: `_replace` for what happens to every key."""
    return Copy(*copy[:9], step, *copy[10:])


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRecord:
    """What this site durably knows of a peer: its epoch, how many operations each side has made, for rollback detection."""

    peer: str
    epoch: int = 0
    op_sent: int = 0
    op_heard: int = 0
    rolled_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """The numbers an SAE may see (ETSI GS QKD 014 V1.1.1, 6.1), before they are spelt for the wire."""

    source_kme_id: str
    target_kme_id: str
    initiator: str
    responder: str
    key_size_bits: int
    stored_keys: int
    stored_keys_max: int
    keys_per_request_max: int
    key_size_bits_max: int
    key_size_bits_min: int
    additional_recipients_max: int
    extension: dict[str, str | int | float] = field(default_factory=dict)
