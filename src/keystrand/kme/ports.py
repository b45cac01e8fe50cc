"""What the service needs from others, no more: a store, an audit trail, a KEM. The composition root introduces them.

All calls are synchronous and happen inside one transaction of the store; the runner commits it, and only then lets the
service's effects out. If anything raises, the transaction is rolled back and the effects are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from keystrand.core.key import Segment
from keystrand.core.pool import Account, BlockState, Copy, DeviceBlock, Drawn, OpenRequest, PeerRecord, PoolBlock
from keystrand.core.register import KeyRecord, Origin, Scope, Stage, Tally, Use
from keystrand.core.secret import Secret
from keystrand.core.states import Step


class KeyRegister(Protocol):
    """Records of managed keys, who uses them, where bits came from, and what peers must still hear.

    `after` and the order of records: (created_s, key ID). Writes of a transaction are seen by its reads.
    """

    def add(self, record: KeyRecord) -> None: ...  # a key ID that is known stays as it is
    def add_alike(
        self, record: KeyRecord, keys: Sequence[tuple[str, int, int]]
    ) -> None: ...  # new ones, the same but for key ID and sequences: on the way of every key, so it never reads
    def get(self, key_id: str) -> KeyRecord | None: ...
    def put(self, record: KeyRecord) -> None: ...  # what can change of it
    # newest: in the other order, and what is before `after`
    def find(
        self, scope: Scope, after: tuple[float, str] | None, limit: int, *, newest: bool = False
    ) -> list[KeyRecord]: ...
    def tally(self, scope: Scope) -> list[Tally]: ...  # ordered by link, peer and strands
    def due(self, stage: Stage, before_s: float, limit: int) -> list[KeyRecord]: ...
    def changed(
        self, peer: str, after: tuple[float, str] | None, limit: int
    ) -> list[KeyRecord]: ...  # not by the clock
    # before `burn_waiting` of the same portion: keys that nobody here has had and that are not over yet are deactivated;
    # what has become of them. due_s: when they may be collected
    def retire_waiting(
        self, after: str, last: str, own: str, *, at_s: float, due_s: float, actor: str, reason: str
    ) -> list[KeyRecord]: ...
    def drop(self, key_id: str) -> None: ...
    def count(self) -> dict[str, int]: ...  # by state; reads every row

    def put_use(self, use: Use) -> None: ...
    def uses(self, key_id: str) -> list[Use]: ...

    def add_origin(self, origin: Origin) -> None: ...
    def origins(self, link: str, first: int, last: int) -> list[Origin]: ...

    def put_notice(self, peer: str, notice_id: str, frame: bytes) -> None: ...
    def notices(self, peer: str, limit: int) -> list[tuple[str, bytes]]: ...  # oldest first
    def drop_notice(self, peer: str, notice_id: str) -> None: ...


class KeyStore(Protocol):
    """Durable state of one KME. Reading sealed material that was altered, swapped or rolled back raises Tampered."""

    @property
    def register(self) -> KeyRegister: ...

    # one commit for a batch of operations, and a way to take a single one of them back
    def transaction(self) -> AbstractContextManager[None]: ...
    def savepoint(self) -> AbstractContextManager[None]: ...

    # the site and its peers; the first epoch of a site is 1
    def epoch(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...
    def peer(self, peer: str) -> PeerRecord: ...  # a fresh record for a peer never heard of
    def put_peer(self, record: PeerRecord) -> None: ...

    # device blocks: kept after their pool blocks are gone, so that a sequence is never taken twice
    def add_device_block(self, block: DeviceBlock) -> None: ...
    def device_block(self, link: str, sequence: int) -> DeviceBlock | None: ...
    def next_sequence(self, link: str) -> int: ...  # one above the highest sequence ever ingested, 0 at first

    # pool blocks
    def add_block(self, block: PoolBlock, material: Secret) -> None: ...
    def block(self, block_id: str) -> PoolBlock | None: ...
    def block_material(self, block_id: str) -> Secret: ...  # raises KeyError, Tampered
    def put_block(self, block: PoolBlock, material: Secret | None = None) -> None: ...  # None: material unchanged
    def drop_block(self, block_id: str) -> None: ...
    def blocks(
        self, *, link: str | None = None, sequence: int | None = None, state: BlockState | None = None
    ) -> list[PoolBlock]: ...  # ordered by link, sequence, index
    def free_blocks(
        self, link: str, owner: str, limit: int
    ) -> list[PoolBlock]: ...  # confirmed, free bits, oldest first
    def free_bits(self, link: str, owner: str) -> int: ...  # of confirmed blocks; cheap, asked at every status call
    def blocks_before(self, ingested_s: float, limit: int) -> list[PoolBlock]: ...

    # what still has to be said to a peer until it answers
    def put_lend(self, peer: str, block_id: str, term: int) -> None: ...
    def drop_lend(self, peer: str, block_id: str, term: int) -> None: ...
    def lends(self, peer: str) -> list[tuple[str, int]]: ...

    # requests on their way
    def add_request(self, request: OpenRequest) -> None: ...
    def put_request(self, request: OpenRequest) -> None: ...
    def request(self, request_id: str) -> OpenRequest | None: ...
    def drop_request(self, request_id: str) -> None: ...
    def requests(self) -> list[OpenRequest]: ...

    # tombstones: request IDs of a peer that must never be honoured any more
    def add_tombstone(self, peer: str, request_id: str, at_s: float) -> None: ...
    def is_tombstone(self, peer: str, request_id: str) -> bool: ...
    # the oldest `limit`, and those as old as the last of them; how many
    def drop_tombstones_before(self, at_s: float, limit: int) -> int: ...

    # copies waiting for their recipients
    def add_copies(
        self, alike: Copy, keys: Sequence[tuple[str, tuple[Segment, ...], Secret]]
    ) -> None: ...  # new ones, the same but for key ID and segments
    def copies(self, key_id: str) -> list[Copy]: ...
    def has_copies(self, key_ids: Sequence[str]) -> bool: ...  # of any of these keys
    def copies_of_request(self, peer: str, request_id: str) -> list[Copy]: ...
    def copy_material(self, key_id: str, recipient: str) -> Secret: ...  # raises KeyError, Tampered
    def step_copy(self, key_id: str, recipient: str, step: Step) -> None: ...  # between READY and WITHHELD
    # (key ID, recipient, step) each: erases the material; the steps of all copies of each of these keys, after that one
    def finish_copies(self, ends: Sequence[tuple[str, str, Step]]) -> list[list[Step]]: ...
    def copies_before(self, expires_s: float, limit: int) -> list[Copy]: ...  # READY, WITHHELD or RESERVED ones
    # all that wait, a portion at a time and by no means one by one: the last key ID of the next `limit` copies, "" at the end
    def waiting_until(self, after: str, limit: int) -> str: ...
    # link, whether anybody has had such keys, and their bits that were set aside for peers other than `own`
    def burn_waiting(self, after: str, last: str, own: str) -> list[tuple[str, bool, int]]: ...
    def drop_finished_before(self, expires_s: float, limit: int) -> int: ...  # as drop_tombstones_before

    # what replicas draw, by who draws, each change at a place of its own
    def put_draw(self, place: int, who: str, total: Drawn) -> None: ...
    def draws_since(self, place: int) -> list[tuple[int, str, Drawn]]: ...  # in order; those that others have put

    # the ledger
    def move_bits(self, link: str, source: Account, target: Account, bits: int) -> None: ...  # INGESTED as source adds
    def ledger(self, link: str) -> Mapping[Account, int]: ...
    def links(self) -> list[str]: ...


AuditValue = str | int | float | bool | Sequence[str]


class AuditTrail(Protocol):
    """Appends to the site's tamper-evident log, in the store's transaction; the number of the record."""

    def append(self, kind: str, fields: Mapping[str, AuditValue]) -> int: ...


class KemPrivateKey(Protocol):
    def decapsulate(self, ciphertext: bytes, /) -> Secret: ...


class Kem(Protocol):
    """A key encapsulation mechanism: ML-KEM-768 (FIPS 203) in the product, a seeded double in the simulation."""

    algorithm: str

    def generate(self) -> tuple[KemPrivateKey, bytes]: ...  # the second is the encapsulation key
    def encapsulate(self, encapsulation_key: bytes, /) -> tuple[Secret, bytes]: ...  # secret, ciphertext


class Combiner(Protocol):
    """Weaves the strands of keys into their material."""

    def combine_each(
        self,
        names: Sequence[bytes],
        pieces: Sequence[Secret | None],
        strand: Secret | None,
        *,
        context: Sequence[bytes],
        size_bytes: int,
    ) -> list[
        Secret
    ]: ...  # one key for each name: its piece of link bits and the ML-KEM strand, bound to name and context
