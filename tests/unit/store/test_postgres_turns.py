"""How a replica waits for its turn without standing still, and reads in one round trip what its turn will want."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
from tests.unit.store.test_store_contract import block, copy

from keystrand.core.errors import StoreUnavailable
from keystrand.core.pool import Account, OpenRequest, PeerRecord, Wants
from keystrand.core.secret import Secret
from keystrand.core.states import Step
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.store.sql import SqlStore
from keystrand.testing.patience import until
from keystrand.testing.postgres import postgres_server, why_not

if reason := why_not():
    pytest.skip(reason, allow_module_level=True)

from keystrand.store import postgres
from keystrand.store.postgres import PostgresDatabase

ROOT = RootKey.generate()


@pytest.fixture
def replica() -> Iterator[Callable[[], SqlStore]]:
    """Makes stores over one database, as the replicas of a site have them."""
    made: list[SqlStore] = []
    address = postgres_server().new_database()

    def make() -> SqlStore:
        made.append(SqlStore(PostgresDatabase(address, "alpha"), Sealer(ROOT)))
        return made[-1]

    yield make
    for store in made:
        store.close()


def database_of(store: SqlStore) -> PostgresDatabase:
    assert isinstance(store._db, PostgresDatabase)
    return store._db


def fill(store: SqlStore) -> None:
    with store.transaction():
        store.set_epoch(4)
        store.put_peer(PeerRecord(peer="bravo", epoch=3, op_sent=9))
        store.move_bits("l1", Account.INGESTED, Account.AVAILABLE, 64)
        store.add_block(block(), Secret(bytes(8)))
        store.add_copies(copy(), [("k1", (), Secret(b"k" * 32))])
        store.add_request(OpenRequest(request_id="r9", peer="bravo", link="l1", bits=8, op=1))
        store.add_tombstone("bravo", "r8", 1.0)
        store.audit_append(0, b"{}", b"h" * 32)


def answers(store: SqlStore) -> list[object]:
    one = copy()
    return [
        store.epoch(),
        store.peer("bravo"),
        dict(store.ledger("l1")),
        store.free_bits("l1", "alpha"),
        store.audit_head(),
        store.requests(),
        store.block(block().block_id),
        store.block_material(block().block_id).reveal(),
        store.copies(one.key_id),
        store.copies("nobody"),
        store.copy_material(one.key_id, one.recipient).reveal(),
        store.copies_of_request(one.peer, one.request_id),
        store.copies_of_request("bravo", "r8"),
        [store.is_tombstone("bravo", name) for name in ("r8", "r7")],
    ]


WANTS = (
    Wants(key_ids=(copy().key_id, "nobody"), block_ids=(block().block_id, "none")),
    Wants(requests=((copy().peer, copy().request_id), ("bravo", "r8"), ("bravo", "r7"))),
)


def test_what_was_read_ahead_is_what_would_be_read_and_costs_no_further_question(
    monkeypatch: pytest.MonkeyPatch, replica: Callable[[], SqlStore]
) -> None:
    one, two = replica(), replica()
    fill(one)
    with two.transaction():
        expected = answers(two)
        two.move_bits("l1", Account.INGESTED, Account.AVAILABLE, 0)  # so that the other one has to forget
    with one.transaction():
        one.read_ahead(WANTS)
        asked: list[str] = []
        monkeypatch.setattr(PostgresDatabase, "_run", lambda self, sql, values: asked.append(sql))
        found = answers(one)
        monkeypatch.undo()
    assert found == expected
    assert asked == []


def test_what_a_turn_changes_is_seen_in_it_whatever_was_read_ahead(replica: Callable[[], SqlStore]) -> None:
    one, two = replica(), replica()
    fill(one)
    with two.transaction():
        expected = answers(two)
        two.move_bits("l1", Account.INGESTED, Account.AVAILABLE, 0)

    def change_and_fail(part: Callable[[], AbstractContextManager[None]]) -> None:
        with part():
            one.add_tombstone("bravo", "r7", 2.0)
            one.finish_copies([(copy().key_id, copy().recipient, Step.DELIVERED)])
            one.drop_block(block().block_id)
            assert one.is_tombstone("bravo", "r7")
            assert one.block(block().block_id) is None
            assert [c.step for c in one.copies_of_request(copy().peer, copy().request_id)] == [Step.DELIVERED]
            raise ZeroDivisionError

    with one.transaction():
        one.read_ahead(WANTS)
        with pytest.raises(ZeroDivisionError):
            change_and_fail(one.savepoint)
        assert answers(one) == expected
        with pytest.raises(ZeroDivisionError):
            change_and_fail(nullcontext)


async def test_who_waits_for_its_turn_goes_on_with_other_work(replica: Callable[[], SqlStore]) -> None:
    one, two = replica(), replica()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    ticking = asyncio.create_task(tick())
    with one.transaction():
        waiting = asyncio.create_task(database_of(two).turn())
        await until(lambda: ticks > 5)
        assert not waiting.done()
        one.set_epoch(7)
    await waiting
    with two.transaction():
        assert two.epoch() == 7
    ticking.cancel()


async def test_a_question_in_between_waits_for_the_turn(replica: Callable[[], SqlStore]) -> None:
    """An audit sink reads while the engine waits: there is one connection."""
    one, two = replica(), replica()
    fill(one)
    waiting = asyncio.create_task(database_of(two).turn())
    await asyncio.sleep(0)
    assert len(two.audit_rows(0, 9)) == 1
    await waiting
    with two.transaction():
        two.set_epoch(8)
    with one.transaction():
        assert one.epoch() == 8


@pytest.mark.parametrize("granted", [False, True])
async def test_who_stops_waiting_does_not_keep_the_turn(replica: Callable[[], SqlStore], granted: bool) -> None:
    """Not while another one has it, and not where it was granted and nobody has heard the answer."""
    one, two = replica(), replica()
    with two.transaction():
        waiting = asyncio.create_task(database_of(one).turn())
        await asyncio.sleep(0)  # it has asked, and the answer cannot be there
        if not granted:
            waiting.cancel()
            await asyncio.wait([waiting])
    waiting.cancel()  # the loop has not run since the other one's turn ended
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for store in (two, one):
        with store.transaction():
            store.set_epoch(store.epoch() + 1)
    assert one.epoch() == 3


async def test_a_turn_that_does_not_come_is_refused_in_time(
    monkeypatch: pytest.MonkeyPatch, replica: Callable[[], SqlStore]
) -> None:
    monkeypatch.setattr(postgres, "_SETTINGS", (*postgres._SETTINGS, "lock_timeout=300"))
    one, two = replica(), replica()
    with one.transaction():
        begun_s = time.monotonic()
        await database_of(two).turn()
        with pytest.raises(StoreUnavailable), two.transaction():
            raise AssertionError("the turn was had beside another")
        assert time.monotonic() - begun_s < 1
    await database_of(two).turn()
    with two.transaction():
        two.set_epoch(3)
