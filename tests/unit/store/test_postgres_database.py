"""What only PostgreSQL does: addresses, turns of several replicas, and a server or a network that fails."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from keystrand.core.errors import ConfigError, IllegalTransition, StoreUnavailable
from keystrand.core.pool import Account, DeviceBlock, PeerRecord
from keystrand.core.secret import Secret
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.store.sql import SqlStore
from keystrand.testing.postgres import PostgresServer, postgres_server, why_not

if reason := why_not():
    pytest.skip(reason, allow_module_level=True)

import psycopg

from keystrand.store import postgres
from keystrand.store.postgres import PostgresDatabase, numbered
from keystrand.store.postgres_address import check_address

ROOT = RootKey.generate()


@pytest.fixture(scope="module")
def server() -> PostgresServer:
    return postgres_server()


@pytest.fixture
def address(server: PostgresServer) -> str:
    return server.new_database()


@pytest.fixture
def replica(address: str) -> Iterator[Callable[[], SqlStore]]:
    """Makes stores over one database, as the replicas of a site have them."""
    made: list[SqlStore] = []

    def make() -> SqlStore:
        made.append(SqlStore(PostgresDatabase(address, "alpha"), Sealer(ROOT)))
        return made[-1]

    yield make
    for store in made:
        store.close()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def backend(store: SqlStore) -> int:
    return store._db._line.info.backend_pid  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("sqlite:///x", "not a PostgreSQL address"),
        ("postgresql://[", "cannot be read"),
        ("postgresql://k:pass@localhost/site", "password"),
        ("postgresql:///site?password=pass", "password"),
        ("postgresql://k@db.example/site", "another machine"),
        ("postgresql://k@db.example/site?sslmode=require", "another machine"),
        ("postgresql://k@localhost,db.example/site", "another machine"),
        ("postgresql://k@localhost/site?hostaddr=192.0.2.1", "another machine"),
    ],
)
def test_an_address_that_is_not_safe_is_refused_and_never_repeated(address: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as caught:
        check_address(address)
    assert "pass@" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    "address",
    [
        "postgresql:///site?host=/run/postgresql",
        "postgresql://k@127.0.0.1/site",
        "postgresql://k@[::1]/site?passfile=/etc/keystrand/pgpass",
        "postgresql://k@db.example/site?sslmode=verify-full&sslrootcert=/etc/ca.pem",
    ],
)
def test_a_safe_address_passes(address: str) -> None:
    check_address(address)


def test_question_marks_become_numbers() -> None:
    assert numbered("a = ? AND b IN (?, ?)") == "a = $1 AND b IN ($2, $3)"
    assert numbered("COMMIT") == "COMMIT"


def test_a_database_belongs_to_one_site(address: str, replica: Callable[[], SqlStore]) -> None:
    replica()
    with pytest.raises(ConfigError, match="'alpha'"):
        PostgresDatabase(address, "bravo")


def test_a_schema_of_a_later_release_is_refused(address: str, replica: Callable[[], SqlStore]) -> None:
    replica()
    with psycopg.connect(address) as line:
        line.execute("INSERT INTO migrations VALUES (999, 0)")
    with pytest.raises(ConfigError, match="999"):
        PostgresDatabase(address, "alpha")


def test_replicas_that_start_together_make_the_schema_once(replica: Callable[[], SqlStore]) -> None:
    made: list[object] = []

    def start() -> None:
        try:
            made.append(replica())
        except Exception as error:
            made.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(one) for one in made] == [SqlStore] * 4


def test_i1_what_one_replica_remembers_never_hides_what_another_did(replica: Callable[[], SqlStore]) -> None:
    one, two = replica(), replica()
    for number in range(10):
        for store in (one, two):
            with store.transaction():
                record = store.peer("bravo")
                store.put_peer(PeerRecord(peer="bravo", op_sent=record.op_sent + 1))
                store.move_bits("l1", Account.INGESTED, Account.AVAILABLE, 8)
                at, _ = store.audit_head()
                store.audit_append(at, f"{at}".encode(), bytes(32))
        assert one.audit_head()[0] in (2 * number + 1, 2 * number + 2)
    for store in (one, two):
        with store.transaction():
            assert store.peer("bravo").op_sent == 20
            assert store.ledger("l1")[Account.AVAILABLE] == 160
            assert [row[0] for row in store.audit_rows(0, 99)] == list(range(20))


def test_i1_replicas_take_turns(replica: Callable[[], SqlStore]) -> None:
    """Four replicas count in one row at once; not one step is lost."""
    stores = [replica() for _ in range(4)]

    def count(store: SqlStore) -> None:
        for _ in range(25):
            with store.transaction():
                store.set_epoch(store.epoch() + 1)

    threads = [threading.Thread(target=count, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with stores[0].transaction():
        assert stores[0].epoch() == 101


def test_a_turn_without_writes_makes_nobody_forget(replica: Callable[[], SqlStore]) -> None:
    one, two = replica(), replica()
    with one.transaction():
        one.set_epoch(4)
    with two.transaction():
        assert two.epoch() == 4
    remembered = one._journal
    with one.transaction():
        pass
    assert one._journal is remembered
    with two.transaction():
        two.set_epoch(5)
    with one.transaction():
        assert one.epoch() == 5


def test_a_replica_that_lost_its_place_cannot_write(address: str, replica: Callable[[], SqlStore]) -> None:
    store = replica()
    database = store._db
    assert isinstance(database, PostgresDatabase)
    database.note("INSERT INTO replicas VALUES (?, ?, 0)", ("a1", "f1"))
    database.incarnation = "f1"
    with store.transaction():
        store.set_epoch(2)
    database.note("UPDATE replicas SET incarnation = ?", ("f2",))
    with pytest.raises(StoreUnavailable, match="given this one up"), store.transaction():
        store.set_epoch(3)
    database.incarnation = "f2"
    with store.transaction():
        assert store.epoch() == 2


def test_a_replica_stopped_in_its_turn_loses_it(
    monkeypatch: pytest.MonkeyPatch, replica: Callable[[], SqlStore]
) -> None:
    monkeypatch.setattr(postgres, "_SETTINGS", (*postgres._SETTINGS, "idle_in_transaction_session_timeout=300"))
    slow, quick = replica(), replica()
    took_s = []

    def both() -> None:
        with slow.transaction():
            slow.set_epoch(7)
            begun_s = time.monotonic()
            with quick.transaction():
                quick.set_epoch(8)
            took_s.append(time.monotonic() - begun_s)

    with pytest.raises(StoreUnavailable):
        both()
    assert 0.2 < took_s[0] < 30
    with slow.transaction():
        assert slow.epoch() == 8


def test_a_replica_frozen_within_a_pipeline_of_its_turn_loses_it(
    monkeypatch: pytest.MonkeyPatch, replica: Callable[[], SqlStore]
) -> None:
    monkeypatch.setattr(postgres, "_SETTINGS", (*postgres._SETTINGS, "lock_timeout=200"))
    monkeypatch.setattr(postgres, "_END_FROZEN", postgres._END_FROZEN.replace("interval '3.0 s'", "interval '0.1 s'"))
    frozen, quick = replica(), replica()

    def both() -> None:
        with frozen.transaction():
            line = frozen._db._line
            with line.pipeline():
                line.execute("UPDATE turn SET version = version")
                line.pgconn.flush()  # sent, and no Sync after it: PostgreSQL takes this for work
                time.sleep(0.5)
                with pytest.raises(StoreUnavailable), quick.transaction():
                    raise AssertionError("the turn was had beside another")
                with quick.transaction():
                    quick.set_epoch(8)

    with pytest.raises((StoreUnavailable, psycopg.Error)):
        both()
    with frozen.transaction():
        assert frozen.epoch() == 8


def test_a_turn_that_cannot_be_had_is_refused_in_time(
    monkeypatch: pytest.MonkeyPatch, replica: Callable[[], SqlStore]
) -> None:
    monkeypatch.setattr(postgres, "_SETTINGS", (*postgres._SETTINGS, "lock_timeout=300"))
    one, two = replica(), replica()
    with one.transaction():
        begun_s = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught, two.transaction():
            pass
        assert time.monotonic() - begun_s < 1
        assert "another replica" in str(caught.value.hint)
    with two.transaction():
        two.set_epoch(3)


def test_a_server_that_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, replica: Callable[[], SqlStore]
) -> None:
    monkeypatch.setattr(postgres, "ANSWER_S", 0.5)
    store = replica()
    with store.transaction():
        store.set_epoch(2)
    begun_s = time.monotonic()
    with stopped(backend(store)), pytest.raises(StoreUnavailable), store.transaction():
        store.set_epoch(3)
    assert time.monotonic() - begun_s < 3
    with store.transaction():
        assert store.epoch() in (2, 3)


def test_i3_a_connection_that_dies_in_any_place_undoes_the_turn(
    server: PostgresServer, replica: Callable[[], SqlStore]
) -> None:
    store = replica()
    with store.transaction():
        store.set_epoch(2)

    def kill() -> None:
        with psycopg.connect(server.address(), autocommit=True) as line:
            line.execute("SELECT pg_terminate_backend(%s, 2000)", (backend(store),))

    def before_the_commit() -> None:
        with store.transaction():
            store.set_epoch(3)
            kill()

    def between_two_statements() -> None:
        with store.transaction():
            store.add_device_block(DeviceBlock(link="l1", sequence=1, length_bits=8, digest=b""))
            kill()
            store.device_block("l1", 1)

    for work in (before_the_commit, between_two_statements):
        with pytest.raises(StoreUnavailable):
            work()
    kill()
    with suppress(StoreUnavailable), store.transaction():
        pass
    with store.transaction():
        assert (store.epoch(), store.device_block("l1", 1)) == (2, None)


def test_a_restarted_server_is_found_again(address: str) -> None:
    server = PostgresServer(postgres_server()._programs)
    store = SqlStore(PostgresDatabase(server.new_database(), "alpha"), Sealer(ROOT))
    with store.transaction():
        store.set_epoch(9)
    server.stop("immediate")
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as caught, store.transaction():
            pass
        assert caught.value.hint
    server.start()
    with store.transaction():
        assert store.epoch() == 9
    store.close()
    server.remove()


def test_a_refusal_that_was_swallowed_without_a_savepoint_still_forbids_the_commit(
    replica: Callable[[], SqlStore],
) -> None:
    store = replica()
    block = DeviceBlock(link="l1", sequence=1, length_bits=8, digest=b"")

    def a_row_twice() -> None:
        with store.transaction():
            store.add_device_block(block)
            with suppress(IllegalTransition):
                store.add_device_block(block)

    def an_error_in_a_part() -> None:
        with store.transaction():
            store.set_epoch(5)
            with suppress(StoreUnavailable), store.savepoint():
                store._db.rows("SELECT 1 / 0")

    for work in (a_row_twice, an_error_in_a_part):
        with pytest.raises(StoreUnavailable):
            work()
    assert (store.epoch(), store.device_block("l1", 1)) == (1, None)


def test_a_server_that_does_not_keep_its_word_is_refused() -> None:
    server = PostgresServer(postgres_server()._programs)
    with (server.data / "postgresql.conf").open("a") as file:
        file.write("fsync = off\n")
    server.stop()
    server.start()
    with pytest.raises(ConfigError, match="fsync"):
        PostgresDatabase(server.new_database(), "alpha")
    server.remove()


def test_i12_no_key_byte_is_in_the_files_of_the_server(server: PostgresServer, replica: Callable[[], SqlStore]) -> None:
    from tests.unit.store.test_store_contract import block, copy

    store, canary = replica(), os.urandom(32)
    with store.transaction():
        store.add_block(block(), Secret(canary))
        store.add_copies(copy(), [("k1", (), Secret(canary))])
    with psycopg.connect(server.address(), autocommit=True) as line:
        line.execute("CHECKPOINT")
    found: set[bytes] = set()
    sought = {b"l1/0/0", canary[:16], canary[:16].hex().encode()}
    for path in server.data.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the server removes files of its own meanwhile
            written = path.read_bytes() if path.is_file() else b""
            found |= {needle for needle in sought if needle in written}
    assert found == {b"l1/0/0"}  # which shows that the search finds what is there
