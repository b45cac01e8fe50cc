"""A store in memory, for the simulation and for tests: the same contract as the durable ones, with crashes on demand.

Transactions keep an undo log, so that a small change to a large store costs little. What is committed counts as durable:
a crash is a transaction that ends with an exception, a restored backup is `restore(snapshot)`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from keystrand.core.errors import IllegalTransition
from keystrand.core.key import Segment
from keystrand.core.pool import Account, BlockState, Copy, DeviceBlock, Drawn, OpenRequest, PeerRecord, PoolBlock
from keystrand.core.secret import Secret
from keystrand.core.states import Step
from keystrand.store.ledger import LIVING, check_move
from keystrand.store.register_memory import REGISTER_TABLES, MemoryRegister

_TABLES: Final = (
    "site",  # name -> number
    "peers",  # peer -> PeerRecord
    "device_blocks",  # (link, sequence) -> DeviceBlock
    "next_sequences",  # link -> number
    "blocks",  # block ID -> PoolBlock
    "block_materials",  # block ID -> bytes
    "lends",  # (peer, block ID, term) -> True
    "requests",  # request ID -> OpenRequest
    "tombstones",  # (peer, request ID) -> at_s
    "copies",  # (key ID, recipient) -> Copy
    "copy_materials",  # (key ID, recipient) -> bytes
    "ledger",  # (link, Account) -> bits
    "draws",  # who -> (place, Drawn)
    "audit",  # number -> (record, head)
    "checkpoints",  # size -> note
    "witnessed",  # origin -> (size, head, note)
    *REGISTER_TABLES,
)

Table = dict[Any, Any]
Snapshot = Mapping[str, Table]


class _Ordered:
    """Groups of sorted tuples, by a group key."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[Any, list[tuple[Any, ...]]] = {}

    def add(self, group: Any, item: tuple[Any, ...]) -> None:
        insort(self._groups.setdefault(group, []), item)

    def remove(self, group: Any, item: tuple[Any, ...]) -> None:
        items = self._groups[group]
        del items[bisect_left(items, item)]
        if not items:
            del self._groups[group]

    def of(self, group: Any) -> list[tuple[Any, ...]]:
        return self._groups.get(group, [])

    def before(self, group: Any, bound: float) -> list[tuple[Any, ...]]:
        items = self.of(group)
        return items[: bisect_left(items, (bound,))]

    def oldest(self, group: Any, bound: float, limit: int) -> list[tuple[Any, ...]]:
        """Before the bound, so many, and those as old as the last of them."""
        items = self.before(group, bound)
        return items if len(items) <= limit else [item for item in items if item[0] <= items[limit - 1][0]]

    def groups(self) -> list[Any]:
        return sorted(self._groups)


class MemoryStore:
    """Implements KeyStore, and what the audit log and the witness need."""

    def __init__(self) -> None:
        self._undo: list[tuple[str, Any, Any]] | None = None
        self._load({name: {} for name in _TABLES})
        self.register = MemoryRegister(lambda name: self._tables[name], self._put, self._places_of_keys)

    # transactions

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens, or nothing does. Not nested; see `savepoint`."""
        assert self._undo is None, "a transaction is open already"
        self._undo = []
        try:
            yield
        except BaseException:
            self._roll_back(0)
            raise
        finally:
            self._undo = None

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of a transaction that can fail alone. Nests."""
        assert self._undo is not None, "a savepoint lives inside a transaction"
        mark = len(self._undo)
        try:
            yield
        except BaseException:
            self._roll_back(mark)
            raise

    def snapshot(self) -> Snapshot:
        """The durable state as of now, as a backup would hold it."""
        assert self._undo is None, "what is not committed is not durable"
        return {name: dict(table) for name, table in self._tables.items()}

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to `snapshot`, which stays usable."""
        assert self._undo is None, "restore outside of transactions"
        self._load({name: dict(table) for name, table in snapshot.items()})

    def close(self) -> None:
        """Nothing to let go of; there so that stores are interchangeable."""

    def _roll_back(self, mark: int) -> None:
        assert self._undo is not None
        while len(self._undo) > mark:
            table, key, value = self._undo.pop()
            self._apply(table, key, value)

    def _load(self, tables: dict[str, Table]) -> None:
        self._tables = tables
        self._blocks_by_link = _Ordered()
        self._blocks_by_age = _Ordered()
        self._free = _Ordered()
        self._free_bits: dict[tuple[str, str], int] = {}
        self._copies_by_key = _Ordered()
        self._copies_by_request = _Ordered()
        self._copies_by_expiry = _Ordered()
        self._tombstones_by_age = _Ordered()
        self._keys_by_age = _Ordered()
        self._keys_by_due = _Ordered()
        for name in ("blocks", "copies", "tombstones", "register"):
            for key, value in tables[name].items():
                self._index(name, key, value, add=True)

    def _put(self, table: str, key: Any, value: Any) -> None:
        """The only way to change a table; None deletes."""
        if self._undo is None:
            raise IllegalTransition("write outside of a transaction")
        self._undo.append((table, key, self._tables[table].get(key)))
        self._apply(table, key, value)

    def _insert(self, table: str, key: Any, value: Any) -> None:
        if key in self._tables[table]:
            raise IllegalTransition(f"{table}: {key} is there already")
        self._put(table, key, value)

    def _apply(self, name: str, key: Any, value: Any) -> None:
        table = self._tables[name]
        old = table.get(key)
        if old is not None:
            self._index(name, key, old, add=False)
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
            self._index(name, key, value, add=True)

    def _index(self, name: str, key: Any, value: Any, *, add: bool) -> None:
        if name == "blocks":
            self._index_block(value, add=add)
        elif name == "copies":
            self._index_copy(value, add=add)
        elif name == "tombstones":
            (self._tombstones_by_age.add if add else self._tombstones_by_age.remove)("", (value, *key))
        elif name == "register":
            _toggle(self._keys_by_age, "", (value.created_s, key), add=add)
            _toggle(self._keys_by_due, value.stage, (value.due_s, key), add=add)

    def _places_of_keys(self, order: str, group: Any) -> list[tuple[Any, ...]]:
        return (self._keys_by_due if order == "due" else self._keys_by_age).of(group)

    def _index_block(self, block: PoolBlock, *, add: bool) -> None:
        place = (block.sequence, block.index, block.block_id)
        _toggle(self._blocks_by_link, block.link, place, add=add)
        _toggle(self._blocks_by_age, "", (block.ingested_s, block.link, *place), add=add)
        if block.state is BlockState.CONFIRMED and block.free_bits:
            pool = (block.link, block.owner)
            _toggle(self._free, pool, place, add=add)
            self._free_bits[pool] = self._free_bits.get(pool, 0) + (block.free_bits if add else -block.free_bits)

    def _index_copy(self, copy: Copy, *, add: bool) -> None:
        key = (copy.key_id, copy.recipient)
        _toggle(self._copies_by_key, copy.key_id, key, add=add)
        _toggle(self._copies_by_request, (copy.peer, copy.request_id), key, add=add)
        _toggle(self._copies_by_expiry, copy.step in LIVING, (copy.expires_s, *key), add=add)

    # the site and its peers

    def epoch(self) -> int:
        return int(self._tables["site"].get("epoch", 1))  # a site is born in epoch 1

    def set_epoch(self, epoch: int) -> None:
        self._put("site", "epoch", epoch)

    def peer(self, peer: str) -> PeerRecord:
        record: PeerRecord | None = self._tables["peers"].get(peer)
        return record or PeerRecord(peer=peer)

    def put_peer(self, record: PeerRecord) -> None:
        self._put("peers", record.peer, record)

    # device blocks

    def add_device_block(self, block: DeviceBlock) -> None:
        self._insert("device_blocks", (block.link, block.sequence), block)
        self._put("next_sequences", block.link, max(self.next_sequence(block.link), block.sequence + 1))

    def device_block(self, link: str, sequence: int) -> DeviceBlock | None:
        return self._tables["device_blocks"].get((link, sequence))

    def next_sequence(self, link: str) -> int:
        return int(self._tables["next_sequences"].get(link, 0))

    # pool blocks

    def add_block(self, block: PoolBlock, material: Secret) -> None:
        self._insert("blocks", block.block_id, block)
        self._put("block_materials", block.block_id, material.reveal())

    def block(self, block_id: str) -> PoolBlock | None:
        return self._tables["blocks"].get(block_id)

    def block_material(self, block_id: str) -> Secret:
        return Secret(self._tables["block_materials"][block_id])

    def put_block(self, block: PoolBlock, material: Secret | None = None) -> None:
        old: PoolBlock = self._tables["blocks"][block.block_id]
        if _place(old) != _place(block):
            raise IllegalTransition(f"block {block.block_id} cannot change its place")
        self._put("blocks", block.block_id, block)
        if material is not None:
            self._put("block_materials", block.block_id, material.reveal())

    def drop_block(self, block_id: str) -> None:
        self._put("blocks", block_id, None)
        self._put("block_materials", block_id, None)

    def blocks(
        self, *, link: str | None = None, sequence: int | None = None, state: BlockState | None = None
    ) -> list[PoolBlock]:
        links = self._blocks_by_link.groups() if link is None else [link]
        found = [self._tables["blocks"][place[2]] for name in links for place in self._places(name, sequence)]
        return found if state is None else [block for block in found if block.state is state]

    def _places(self, link: str, sequence: int | None) -> list[tuple[Any, ...]]:
        places = self._blocks_by_link.of(link)
        if sequence is None:
            return places
        return places[bisect_left(places, (sequence,)) : bisect_left(places, (sequence + 1,))]

    def free_blocks(self, link: str, owner: str, limit: int) -> list[PoolBlock]:
        return [self._tables["blocks"][place[2]] for place in self._free.of((link, owner))[:limit]]

    def free_bits(self, link: str, owner: str) -> int:
        return self._free_bits.get((link, owner), 0)

    def blocks_before(self, ingested_s: float, limit: int) -> list[PoolBlock]:
        return [self._tables["blocks"][row[-1]] for row in self._blocks_by_age.before("", ingested_s)[:limit]]

    # lends

    def put_lend(self, peer: str, block_id: str, term: int) -> None:
        self._put("lends", (peer, block_id, term), True)

    def drop_lend(self, peer: str, block_id: str, term: int) -> None:
        self._put("lends", (peer, block_id, term), None)

    def lends(self, peer: str) -> list[tuple[str, int]]:
        return sorted((block_id, term) for whom, block_id, term in self._tables["lends"] if whom == peer)

    # requests

    def add_request(self, request: OpenRequest) -> None:
        self._insert("requests", request.request_id, request)

    def put_request(self, request: OpenRequest) -> None:
        if request.request_id not in self._tables["requests"]:
            raise KeyError(request.request_id)
        self._put("requests", request.request_id, request)

    def request(self, request_id: str) -> OpenRequest | None:
        return self._tables["requests"].get(request_id)

    def drop_request(self, request_id: str) -> None:
        self._put("requests", request_id, None)

    def requests(self) -> list[OpenRequest]:
        return sorted(self._tables["requests"].values(), key=lambda row: (row.peer, row.op, row.request_id))

    # tombstones

    def add_tombstone(self, peer: str, request_id: str, at_s: float) -> None:
        self._put("tombstones", (peer, request_id), at_s)

    def is_tombstone(self, peer: str, request_id: str) -> bool:
        return (peer, request_id) in self._tables["tombstones"]

    def drop_tombstones_before(self, at_s: float, limit: int) -> int:
        old = self._tombstones_by_age.oldest("", at_s, limit)
        for _, peer, request_id in old:
            self._put("tombstones", (peer, request_id), None)
        return len(old)

    # copies

    def add_copies(self, alike: Copy, keys: Sequence[tuple[str, tuple[Segment, ...], Secret]]) -> None:
        for key_id, segments, material in keys:
            place = (key_id, alike.recipient)
            self._insert("copies", place, alike._replace(key_id=key_id, segments=segments))
            self._put("copy_materials", place, material.reveal())

    def copies(self, key_id: str) -> list[Copy]:
        return [self._tables["copies"][key] for key in self._copies_by_key.of(key_id)]

    def has_copies(self, key_ids: Sequence[str]) -> bool:
        return any(self._copies_by_key.of(key_id) for key_id in key_ids)

    def copies_of_request(self, peer: str, request_id: str) -> list[Copy]:
        return [self._tables["copies"][key] for key in self._copies_by_request.of((peer, request_id))]

    def copy_material(self, key_id: str, recipient: str) -> Secret:
        return Secret(self._tables["copy_materials"][key_id, recipient])

    def finish_copies(self, ends: Sequence[tuple[str, str, Step]]) -> list[list[Step]]:
        return [self._finish(*end) for end in ends]

    def _finish(self, key_id: str, recipient: str, step: Step) -> list[Step]:
        if step in LIVING:
            raise IllegalTransition(f"a copy that is {step.value} is not finished")
        key = (key_id, recipient)
        self._put("copies", key, self._tables["copies"][key]._replace(step=step))
        self._put("copy_materials", key, None)
        return [copy.step for copy in self.copies(key_id)]

    def step_copy(self, key_id: str, recipient: str, step: Step) -> None:
        if step not in LIVING:
            raise IllegalTransition(f"a copy that is {step.value} is finished")
        key = (key_id, recipient)
        if key not in self._tables["copy_materials"]:
            raise KeyError(key)
        self._put("copies", key, self._tables["copies"][key]._replace(step=step))

    def copies_before(self, expires_s: float, limit: int) -> list[Copy]:
        rows = self._copies_by_expiry.before(True, expires_s)[:limit]
        return [self._tables["copies"][row[1:]] for row in rows]

    def waiting_until(self, after: str, limit: int) -> str:
        copies = self._tables["copies"].values()
        waiting = sorted(copy.key_id for copy in copies if copy.step in LIVING and copy.key_id > after)
        return waiting[:limit][-1] if waiting else ""

    def burn_waiting(self, after: str, last: str, own: str) -> list[tuple[str, bool, int]]:
        bits: dict[tuple[str, bool], int] = {}
        for key_id in sorted({key[0] for key in self._tables["copies"] if after < key[0] <= last}):
            copies = self.copies(key_id)
            waiting = [copy for copy in copies if copy.step in LIVING]
            apart = [copy for copy in waiting if copy.peer != own and copy.segments]
            if apart:
                place = (apart[0].link, any(copy.step is Step.DELIVERED for copy in copies))
                bits[place] = bits.get(place, 0) + apart[0].length_bits
            for copy in waiting:
                self._finish(copy.key_id, copy.recipient, Step.BURNT)
        return [(link, had, count) for (link, had), count in sorted(bits.items())]

    def drop_finished_before(self, expires_s: float, limit: int) -> int:
        old = self._copies_by_expiry.oldest(False, expires_s, limit)
        for _, key_id, recipient in old:
            self._put("copies", (key_id, recipient), None)
        return len(old)

    # what replicas draw

    def put_draw(self, place: int, who: str, total: Drawn) -> None:
        self._put("draws", who, (place, total))

    def draws_since(self, place: int) -> list[tuple[int, str, Drawn]]:
        return sorted((at, who, total) for who, (at, total) in self._tables["draws"].items() if at > place)

    # the ledger

    def move_bits(self, link: str, source: Account, target: Account, bits: int) -> None:
        row = self._tables["ledger"]
        have = row.get((link, source), 0)
        check_move(link, source, target, have, bits)
        self._put("ledger", (link, source), have + bits if source is Account.INGESTED else have - bits)
        self._put("ledger", (link, target), row.get((link, target), 0) + bits)

    def ledger(self, link: str) -> Mapping[Account, int]:
        return {account: self._tables["ledger"].get((link, account), 0) for account in Account}

    def links(self) -> list[str]:
        return sorted({link for link, _ in self._tables["ledger"]})

    # the audit log

    def audit_append(self, number: int, record: bytes, head: bytes) -> None:
        if number != len(self._tables["audit"]):
            raise IllegalTransition(f"audit record {number} is out of place")
        self._insert("audit", number, (record, head))

    def audit_head(self) -> tuple[int, bytes]:
        size = len(self._tables["audit"])
        return (size, self._tables["audit"][size - 1][1]) if size else (0, bytes(32))

    def audit_rows(self, first: int, limit: int) -> list[tuple[int, bytes, bytes]]:
        table = self._tables["audit"]
        return [(number, *table[number]) for number in range(first, min(first + limit, len(table)))]

    def put_checkpoint(self, size: int, note: str) -> None:
        self._put("checkpoints", size, note)

    def checkpoints(self, first: int = 0) -> list[tuple[int, str]]:
        return sorted((size, note) for size, note in self._tables["checkpoints"].items() if size >= first)

    def witnessed(self, origin: str) -> tuple[int, bytes, str] | None:
        return self._tables["witnessed"].get(origin)

    def put_witnessed(self, origin: str, size: int, head: bytes, note: str) -> None:
        self._put("witnessed", origin, (size, head, note))


def _place(block: PoolBlock) -> tuple[object, ...]:
    return (block.link, block.sequence, block.index, block.length_bits, block.ingested_s)


def _toggle(index: _Ordered, group: Any, item: tuple[Any, ...], *, add: bool) -> None:
    if add:
        index.add(group, item)
    else:
        index.remove(group, item)
