"""A site's store in SQL: key material sealed, everything of a transaction durable or undone.

What every request touches (peers, open requests, copies, the ledger, the audit log) is remembered and its writes are held
back until the end of the transaction. Used from one thread (the engine's). The database underneath is one file, or one
that several replicas of the site share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from itertools import chain
from operator import itemgetter
from typing import Final

from keystrand.core.errors import IllegalTransition
from keystrand.core.key import Segment
from keystrand.core.pool import (
    Account,
    Copy,
    DeviceBlock,
    Drawn,
    OpenRequest,
    PeerRecord,
    Wants,
    at_step,
    key_like,
)
from keystrand.core.secret import Secret
from keystrand.core.states import Step
from keystrand.crypto.seal import Sealer
from keystrand.store import statements
from keystrand.store.ahead import BUSY_MAX, Busy, Found, gather, merged
from keystrand.store.audit import SqlAudit
from keystrand.store.blocks import SqlBlocks
from keystrand.store.database import Database
from keystrand.store.handovers import SqlHandovers
from keystrand.store.ledger import LIVING, check_move
from keystrand.store.papers import SqlPapers
from keystrand.store.register import SqlRegister
from keystrand.store.rows import (
    NO_SEGMENTS,
    copy_of,
    copy_row,
    epoch_of,
    head_of,
    identity,
    peer_of,
    request_of,
    request_row,
)
from keystrand.store.sealed import COPY_COLUMN, sealed_copies
from keystrand.store.sources import SqlSources
from keystrand.store.working import Journal, Row, Waiting, oldest

COPIES_REMEMBERED: Final = 4096  # keys: most are fetched within a second of being set aside


class SqlStore(SqlBlocks, SqlAudit):
    """Implements KeyStore, and what the audit log and the witness need.

    Raises StoreUnavailable whenever the database fails, and then remembers nothing.
    """

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._db = database
        self._sealer = sealer
        self.register = SqlRegister(self._db)
        self.handovers = SqlHandovers(database, sealer)
        self.papers = SqlPapers(database)
        self.sources = SqlSources(database, sealer)
        self._draws_place: int | None = None  # where draws were last read from; None: nobody asked
        self._forget()

    @property
    def sealer(self) -> Sealer:
        """What seals the rows: for operators' orders on tenants."""
        return self._sealer

    def close(self) -> None:
        self._db.close()

    # transactions

    def _forget(self) -> None:
        """Drop what is remembered: the file is the truth."""
        self._journal = Journal()
        self._epoch: dict[str, int] = {}
        self._peers: dict[str, PeerRecord] = {}
        self._requests: dict[str, OpenRequest] | None = None  # all of them: a few thousand at most
        self._free: dict[tuple[str, str], int] = {}
        self._read: dict[str, Row] = {}
        self._changed: dict[str, Row | None] = {}
        self._copies: dict[str, dict[str, Waiting]] = {}  # of the latest keys, and of those of this transaction
        self._absent: set[str] = set()  # keys without copies, as read in this transaction
        self._added: dict[tuple[str, str], list[tuple[str, str]]] = {}  # copies of this transaction, by request
        self._finished: list[tuple[dict[str, Waiting], str, Waiting]] = []  # all of the key, the recipient, what it was
        self._accounts: dict[tuple[str, Account], int] = {}
        self._moved: dict[tuple[str, Account], None] = {}
        self._audit: dict[str, tuple[int, bytes]] = {}
        self._draws_known = False  # others have put none since they were read
        self._ahead = Found()
        self._lost: Busy | None = None  # whose remembered state another process may have changed since

    def _forget_others(self) -> None:
        """Another process wrote meanwhile. What the last turn knew is what this one will ask for."""
        links = [*dict.fromkeys(link for link, _ in self._accounts)]
        busy = Busy(links[-BUSY_MAX:], [*self._peers][-BUSY_MAX:], self._draws_place)
        self._forget()
        self._lost = busy

    def read_ahead(self, wants: Iterable[Wants]) -> None:
        """First in a transaction, where each question costs a round trip: what its operations will read, in one."""
        wanted = merged(wants)
        unknown = tuple(key_id for key_id in wanted.key_ids if key_id not in self._copies)
        self._ahead = found = gather(self._db, wanted._replace(key_ids=unknown), self._lost)
        self._read.update(found.blocks)
        for key_id, rows in found.copies.items():
            self._remember_copies(key_id, rows)
        busy, self._lost = self._lost, None
        if busy is not None:
            self._epoch["epoch"], self._audit["head"] = epoch_of(found.epoch), head_of(found.head)
            self._requests = {row[0]: request_of(row) for row in found.open}
            self._peers.update({peer: peer_of(peer, found.peers.get(peer)) for peer in busy.peers})
            for link in busy.links:
                self._remember_ledger(link, found.ledger.get(link, {}))
            self._free.update(found.pools)

    def _flush(self) -> None:
        for place in self._moved:
            link, account = place
            self._db.hold("ledger", statements.UPSERT_LEDGER, (link, account.value, self._accounts[place]))
        self._moved.clear()

    def transaction(self) -> AbstractContextManager[None]:
        """Everything inside is durable when this returns, or undone when it raises. Not nested; see `savepoint`."""
        return self._within(self._db.transaction(self._flush, self._forget_others))

    @contextmanager
    def _within(self, transaction: AbstractContextManager[None]) -> Iterator[None]:
        try:
            with transaction:
                yield
        except BaseException:
            self._forget()
            raise
        self._journal.clear()
        self._read.clear()
        self._changed.clear()
        self._absent.clear()
        self._added.clear()
        self._ahead = Found()
        self._wipe_what_is_over()

    def _wipe_what_is_over(self) -> None:
        """After a commit: the material of finished copies, and of the oldest that are remembered, leaves the memory."""
        for waiting, recipient, entry in self._finished:
            if waiting[recipient] is not entry:  # a failed part may have put it back
                entry.wipe()
        self._finished.clear()
        for _, waiting in oldest(self._copies, COPIES_REMEMBERED):
            for entry in waiting.values():
                entry.wipe()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of a transaction that can fail alone. Nests."""
        mark = self._journal.mark()
        try:
            with self._db.savepoint():
                yield
        except BaseException:
            self._journal.undo(mark)
            self._read.clear()
            self._absent.clear()
            self._ahead = Found(sealed=self._ahead.sealed)
            raise

    # the site and its peers

    def epoch(self) -> int:
        if "epoch" not in self._epoch:
            self._epoch["epoch"] = epoch_of(self._db.rows(statements.EPOCH))
        return self._epoch["epoch"]

    def set_epoch(self, epoch: int) -> None:
        self._db.hold("site", statements.PUT_EPOCH, (epoch,))
        self._journal.put(self._epoch, "epoch", epoch)

    def peer(self, peer: str) -> PeerRecord:
        known = self._peers.get(peer)
        if known is None:
            row = self._db.row("SELECT epoch, op_sent, op_heard, rolled_back FROM peers WHERE peer = ?", (peer,))
            known = self._peers[peer] = peer_of(peer, row)
        return known

    def put_peer(self, record: PeerRecord) -> None:
        values = (record.peer, record.epoch, record.op_sent, record.op_heard, int(record.rolled_back))
        self._db.hold("peers", statements.PUT_PEER, values)
        self._journal.put(self._peers, record.peer, record)

    # device blocks

    def add_device_block(self, block: DeviceBlock) -> None:
        values = (block.link, block.sequence, block.length_bits, block.digest)
        self._db.write("INSERT INTO device_blocks VALUES (?, ?, ?, ?)", values)

    def device_block(self, link: str, sequence: int) -> DeviceBlock | None:
        sql = "SELECT length_bits, digest FROM device_blocks WHERE link = ? AND sequence = ?"
        row = self._db.row(sql, (link, sequence))
        return DeviceBlock(link=link, sequence=sequence, length_bits=row[0], digest=row[1]) if row else None

    def next_sequence(self, link: str) -> int:
        row = self._db.row("SELECT max(sequence) FROM device_blocks WHERE link = ?", (link,))
        return 0 if row is None or row[0] is None else int(row[0]) + 1

    # lends

    def put_lend(self, peer: str, block_id: str, term: int) -> None:
        self._db.write("INSERT INTO lends VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (peer, block_id, term))

    def drop_lend(self, peer: str, block_id: str, term: int) -> None:
        self._db.write("DELETE FROM lends WHERE peer = ? AND block_id = ? AND term = ?", (peer, block_id, term))

    def lends(self, peer: str) -> list[tuple[str, int]]:
        rows = self._db.rows("SELECT block_id, term FROM lends WHERE peer = ? ORDER BY block_id, term", (peer,))
        return [(block_id, term) for block_id, term in rows]

    # requests

    def _open_requests(self) -> dict[str, OpenRequest]:
        if self._requests is None:
            rows = self._db.rows(statements.REQUESTS)
            self._requests = {row[0]: request_of(row) for row in rows}
        return self._requests

    def add_request(self, request: OpenRequest) -> None:
        if request.request_id in self._open_requests():
            raise IllegalTransition(f"request {request.request_id} is open already")
        self._db.hold("requests", statements.INSERT_REQUEST, request_row(request))
        self._journal.put(self._open_requests(), request.request_id, request)

    def put_request(self, request: OpenRequest) -> None:
        if request.request_id not in self._open_requests():
            raise KeyError(request.request_id)
        # the names of its keys never change, and are long
        sql = "UPDATE requests SET bits = ?, void = ?, holder = ?, released = ? WHERE request_id = ?"
        values = (request.bits, int(request.void), request.holder, request.released, request.request_id)
        self._db.hold("requests", sql, values)
        self._journal.put(self._open_requests(), request.request_id, request)

    def request(self, request_id: str) -> OpenRequest | None:
        return self._open_requests().get(request_id)

    def drop_request(self, request_id: str) -> None:
        if request_id in self._open_requests():
            self._db.hold("requests", "DELETE FROM requests WHERE request_id = ?", (request_id,))
            self._journal.drop(self._open_requests(), request_id)

    def requests(self) -> list[OpenRequest]:
        return sorted(self._open_requests().values(), key=lambda r: (r.peer, r.op, r.request_id))

    # tombstones

    def add_tombstone(self, peer: str, request_id: str, at_s: float) -> None:
        self._db.write(statements.PUT_TOMBSTONE, (peer, request_id, at_s))
        self._ahead.tombstones[peer, request_id] = True

    def is_tombstone(self, peer: str, request_id: str) -> bool:
        known = self._ahead.tombstones.get((peer, request_id))
        if known is not None:
            return known
        sql = "SELECT 1 FROM tombstones WHERE peer = ? AND request_id = ?"
        return self._db.row(sql, (peer, request_id)) is not None

    def drop_tombstones_before(self, at_s: float, limit: int) -> int:
        return self._drop_oldest("tombstones WHERE", "at_s", at_s, limit)

    def _drop_oldest(self, rows: str, age: str, before_s: float, limit: int) -> int:
        """By their age alone, for which there is an index."""
        last = f"SELECT {age} FROM {rows} {age} < ? ORDER BY {age} LIMIT 1 OFFSET ?"  # noqa: S608
        found = self._db.row(last, (before_s, limit - 1))
        if found is not None:
            return self._db.write(f"DELETE FROM {rows} {age} <= ?", found)  # noqa: S608
        return self._db.write(f"DELETE FROM {rows} {age} < ?", (before_s,))  # noqa: S608

    # copies

    def _waiting(self, key_id: str) -> dict[str, Waiting]:
        """All copies of a key by recipient; those of the latest keys are at hand, with their material."""
        known = self._copies.get(key_id)
        if known is None and key_id in self._absent:
            known = {}
        if known is None:
            rows = self._db.rows(f"{statements.SELECT_COPY} WHERE key_id = ? ORDER BY recipient", (key_id,))
            known = self._remember_copies(key_id, rows)
        return known

    def _remember_copies(self, key_id: str, rows: list[Row]) -> dict[str, Waiting]:
        known = {row[1]: Waiting(copy_of(row)) for row in rows}
        if known:
            self._copies[key_id] = known
        else:
            self._absent.add(key_id)
        return known

    def add_copies(self, alike: Copy, keys: Sequence[tuple[str, tuple[Segment, ...], Secret]]) -> None:
        recipient, fresh = alike.recipient, {}
        for key_id, segments, material in keys:
            known = {} if key_id in self._absent else self._waiting(key_id)
            if recipient in known:
                raise IllegalTransition(f"{recipient} has a copy of {key_id} already")
            entry = Waiting(key_like(alike, key_id, segments), Secret(material.reveal()))
            # anew, so that what the journal takes back is the whole entry of the key
            fresh[key_id] = {**known, recipient: entry} if known else {recipient: entry}
        for sql, values in sealed_copies(self._sealer, alike, keys):
            self._db.hold("copies", sql, values)
        self._journal.put_all(self._copies, fresh)
        self._absent.difference_update(fresh)
        self._added.setdefault((alike.peer, alike.request_id), []).extend([(key_id, recipient) for key_id in fresh])

    def copies(self, key_id: str) -> list[Copy]:
        waiting = self._waiting(key_id)
        if len(waiting) == 1:  # nearly always, and for every key
            return [entry.copy for entry in waiting.values()]
        return [entry.copy for _, entry in sorted(waiting.items())]

    def has_copies(self, key_ids: Sequence[str]) -> bool:
        if any(self._copies.get(key_id) for key_id in key_ids):
            return True
        unknown = [key_id for key_id in key_ids if key_id not in self._absent]
        found = bool(unknown) and self._db.row(statements.any_copy(len(unknown)), unknown) is not None
        if not found:
            self._absent.update(unknown)
        return found

    def copies_of_request(self, peer: str, request_id: str) -> list[Copy]:
        """Those in the database as this transaction has changed them, and those that it added: without writing them."""
        rows = self._ahead.requests.get((peer, request_id))
        if rows is None:
            rows = self._db.rows(f"{statements.SELECT_COPY} WHERE peer = ? AND request_id = ?", (peer, request_id))
        found = {(row[0], row[1]): copy_of(row) for row in rows}
        for key_id, recipient in (*found, *self._added.get((peer, request_id), ())):
            entry = self._copies.get(key_id, {}).get(recipient)
            if entry is not None:
                found[key_id, recipient] = entry.copy
        return [copy for _, copy in sorted(found.items(), key=itemgetter(0))]

    def _select_copies(self, where: str, values: Row) -> list[Copy]:
        self._db.held.settle()
        return [copy_of(row) for row in self._db.rows(f"{statements.SELECT_COPY} WHERE {where}", values)]

    def copy_material(self, key_id: str, recipient: str) -> Secret:
        entry = self._waiting(key_id).get(recipient)
        if entry is None or entry.copy.step not in LIVING:
            raise KeyError((key_id, recipient))
        if entry.material is None:
            row = self._ahead.sealed.get((key_id, recipient)) or self._db.row(
                statements.COPY_SEALED, (key_id, recipient)
            )
            if row is None or row[-1] is None:
                raise KeyError((key_id, recipient))
            return self._sealer.open(COPY_COLUMN, identity(row[:-2]), row[-1], tenant=row[-2])
        self._sealer.require_open(entry.copy.tenant)  # what is remembered is as shut as what is kept
        return Secret(entry.material.reveal())

    def finish_copies(self, ends: Sequence[tuple[str, str, Step]]) -> list[list[Step]]:
        if not self._db.in_transaction:
            raise IllegalTransition("write outside of a transaction")
        rows: dict[tuple[str, str], list[Row]] = {}
        steps = []
        for key_id, recipient, step in ends:
            if step in LIVING:
                raise IllegalTransition(f"a copy that is {step.value} is not finished")
            waiting = self._copies.get(key_id) or self._waiting(key_id)
            entry = waiting.get(recipient)
            if entry is None:
                raise KeyError((key_id, recipient))
            self._journal.put(waiting, recipient, Waiting(at_step(entry.copy, step)))
            self._finished.append((waiting, recipient, entry))
            rows.setdefault((step.value, recipient), []).append((key_id,))
            steps.append([step] if len(waiting) == 1 else [known.copy.step for known in waiting.values()])
        for same, key_ids in rows.items():
            for part in statements.together(key_ids):
                self._db.hold("copies", statements.finish_copies(len(part)), (*same, *chain.from_iterable(part)))
        return steps

    def step_copy(self, key_id: str, recipient: str, step: Step) -> None:
        if step not in LIVING:
            raise IllegalTransition(f"a copy that is {step.value} is finished")
        material = self.copy_material(key_id, recipient)  # the seal covers the step, so a new step needs a new seal
        copy = at_step(self._waiting(key_id)[recipient].copy, step)
        sealed = self._sealer.seal(COPY_COLUMN, identity(copy_row(copy)), material.reveal(), tenant=copy.tenant)
        sql = "UPDATE copies SET step = ?, material = ? WHERE key_id = ? AND recipient = ?"
        self._db.hold("copies", sql, (step.value, sealed, key_id, recipient))
        self._journal.put(self._copies[key_id], recipient, Waiting(copy, material))

    def copies_before(self, expires_s: float, limit: int) -> list[Copy]:
        where = "living = 1 AND expires_s < ? ORDER BY expires_s, key_id, recipient LIMIT ?"
        return self._select_copies(where, (expires_s, limit))

    def waiting_until(self, after: str, limit: int) -> str:
        self._db.held.settle()
        row = self._db.row(statements.WAITING_UNTIL, (after, limit))
        return row[0] if row and row[0] else ""

    def burn_waiting(self, after: str, last: str, own: str) -> list[tuple[str, bool, int]]:
        self._db.held.settle()
        rows = self._db.rows(statements.BITS_WAITING, (after, last, own, NO_SEGMENTS))
        self._db.write(statements.BURN_WAITING, (after, last))
        for key_id in [key_id for key_id in self._copies if after < key_id <= last]:
            self._journal.drop(self._copies, key_id)
        return [(link, bool(had), int(bits)) for link, had, bits in rows]

    def drop_finished_before(self, expires_s: float, limit: int) -> int:
        dropped = self._drop_oldest("copies WHERE living = 0 AND", "expires_s", expires_s, limit)
        for key_id, waiting in list(self._copies.items()):
            old = [e for e in waiting.values() if e.copy.step not in LIVING and e.copy.expires_s < expires_s]
            if old:
                self._journal.drop(self._copies, key_id)  # what is left of it is read again
        return dropped

    # what replicas draw

    def put_draw(self, place: int, who: str, total: Drawn) -> None:
        self._db.hold("draws", statements.PUT_DRAW, (sha256(who.encode()).digest(), who, place, *total))

    def draws_since(self, place: int) -> list[tuple[int, str, Drawn]]:
        if self._draws_known:
            return []
        self._draws_known, self._draws_place = True, place
        rows = self._ahead.draws
        if rows is None:
            rows = self._db.rows(statements.DRAWS_SINCE, (place,))
        return [(row[0], row[1], Drawn(*row[2:])) for row in rows if row[0] > place]

    # the ledger

    def move_bits(self, link: str, source: Account, target: Account, bits: int) -> None:
        if not self._db.in_transaction:
            raise IllegalTransition("write outside of a transaction")
        self._read_ledger(link)
        have = self._accounts[link, source]
        check_move(link, source, target, have, bits)
        self._journal.put(self._accounts, (link, source), have + (bits if source is Account.INGESTED else -bits))
        self._journal.put(self._accounts, (link, target), self._accounts[link, target] + bits)
        for place in ((link, source), (link, target)):
            if place not in self._moved:
                self._journal.put(self._moved, place, None)

    def _read_ledger(self, link: str) -> None:
        if (link, Account.INGESTED) not in self._accounts:
            rows = self._db.rows("SELECT account, bits FROM ledger WHERE link = ?", (link,))
            self._remember_ledger(link, dict(rows))

    def _remember_ledger(self, link: str, bits: Mapping[str, int]) -> None:
        self._accounts.update({(link, account): bits.get(account.value, 0) for account in Account})

    def ledger(self, link: str) -> Mapping[Account, int]:
        self._read_ledger(link)
        return {account: self._accounts[link, account] for account in Account}

    def links(self) -> list[str]:
        kept = {row[0] for row in self._db.rows("SELECT DISTINCT link FROM ledger")}
        return sorted(kept | {link for link, _ in self._moved})
