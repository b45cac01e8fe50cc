"""The file itself: seals, canaries, rights, the lock, migrations, and what happens when the disk fails."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from keystrand.core.errors import ConfigError, IllegalTransition, StoreUnavailable, Tampered
from keystrand.core.pool import Account, BlockState, Copy, PoolBlock
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.core.states import Step
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.store.schema import MIGRATIONS
from keystrand.store.sqlite import SqliteAuditFile, SqliteStore


@pytest.fixture
def root() -> RootKey:
    return RootKey.generate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "site.db"


@pytest.fixture
def store(path: Path, root: RootKey) -> Iterator[SqliteStore]:
    made = SqliteStore(path, Sealer(root))
    yield made
    made.close()


def block(index: int = 0) -> PoolBlock:
    return PoolBlock(
        block_id=f"l1/0/{index}",
        link="l1",
        sequence=0,
        index=index,
        length_bits=256,
        state=BlockState.CONFIRMED,
        owner="alpha",
        ingested_s=1.0,
    )


def copy(recipient: str = "sae-b") -> Copy:
    return Copy(
        key_id="k1",
        recipient=recipient,
        initiator="sae-a",
        peer="bravo",
        link="l1",
        request_id="r1",
        length_bits=256,
        strands=frozenset({Strand.QKD}),
        segments=(),
        step=Step.READY,
        reserved_s=0.0,
        expires_s=9.0,
    )


def add_copy(store: SqliteStore, one: Copy, material: Secret) -> None:
    store.add_copies(one, [(one.key_id, one.segments, material)])


def edit(path: Path, sql: str, values: tuple[object, ...] = ()) -> None:
    """As someone with the file but without the key would do it."""
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(sql, values).rowcount > 0
    connection.close()


def forget(store: SqliteStore) -> None:
    """A transaction that fails takes along what the process remembers: the next read is of the file."""
    with contextlib.suppress(RuntimeError), store.transaction():
        raise RuntimeError


def test_i12_no_key_byte_is_in_the_files_in_any_usual_spelling(store: SqliteStore, path: Path) -> None:
    canaries = [secrets.token_bytes(32) for _ in range(40)]
    for index, canary in enumerate(canaries[:20]):
        with store.transaction():
            store.add_block(block(index), Secret(canary))
            store.put_block(replace(block(index), taken=1))
    for index, canary in enumerate(canaries[20:]):
        with store.transaction():
            add_copy(store, copy(f"sae-{index}"), Secret(canary))
            if index % 2:
                store.finish_copies([("k1", f"sae-{index}", Step.DELIVERED)])
            store.drop_block(f"l1/0/{index}")
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["site.db", "site.db-shm", "site.db-wal", "site.db.lock"]
    written = b"".join(file.read_bytes() for file in files)
    assert len(written) > 10_000
    assert b"sae-3" in written  # the search itself finds what is there
    for canary in canaries:
        half = canary[:16]
        for spelling in (half, half.hex().encode(), half.hex().upper().encode(), base64.b64encode(half)[:20]):
            assert spelling not in written


@pytest.mark.parametrize("table", ["blocks", "copies"])
def test_every_flipped_byte_of_a_sealed_column_is_refused(store: SqliteStore, path: Path, table: str) -> None:
    with store.transaction():
        store.add_block(block(), Secret(b"m" * 32))
        add_copy(store, copy(), Secret(b"m" * 32))
    read = (lambda: store.block_material("l1/0/0")) if table == "blocks" else lambda: store.copy_material("k1", "sae-b")
    (sealed,) = sqlite3.connect(path).execute(f"SELECT material FROM {table}").fetchone()
    for at in range(len(sealed)):
        edit(path, f"UPDATE {table} SET material = ?", (sealed[:at] + bytes([sealed[at] ^ 0x10]) + sealed[at + 1 :],))
        forget(store)
        with pytest.raises(Tampered):
            read()
    edit(path, f"UPDATE {table} SET material = ?", (sealed,))
    assert read().reveal() == b"m" * 32


@pytest.mark.parametrize(
    "change",
    [
        "link = 'l2'",
        "sequence = 1",
        "piece = 1",
        "length_bits = 512",
        "state = 'pending'",
        "owner = 'bravo'",
        "term = 1",
        "epoch = 1",
        "ingested_s = 2.0",
        "taken = x'00000001'",
        "block_id = 'l1/0/1'",
    ],
)
def test_every_changed_fact_of_a_block_breaks_its_seal(store: SqliteStore, path: Path, change: str) -> None:
    with store.transaction():
        store.add_block(block(), Secret(b"m" * 32))
    edit(path, f"UPDATE blocks SET {change}")
    with pytest.raises(Tampered):
        store.block_material("l1/0/1" if "block_id" in change else "l1/0/0")


@pytest.mark.parametrize(
    "change",
    [
        "recipient = 'sae-x'",
        "initiator = 'sae-x'",
        "peer = 'x'",
        "link = 'x'",
        "request_id = 'x'",
        "length_bits = 8",
        "strands = 'pqc qkd'",
        "segments = x'9193a1610808'",
        "step = 'reserved'",
        "reserved_s = 1.0",
        "expires_s = 99.0",
        "key_id = 'k2'",
    ],
)
def test_every_changed_fact_of_a_copy_breaks_its_seal(store: SqliteStore, path: Path, change: str) -> None:
    with store.transaction():
        add_copy(store, copy(), Secret(b"m" * 32))
    edit(path, f"UPDATE copies SET {change}")
    forget(store)
    with pytest.raises(Tampered):
        store.copy_material("k2" if "key_id" in change else "k1", "sae-x" if "recipient" in change else "sae-b")


def test_materials_swapped_between_rows_or_rolled_back_are_refused(store: SqliteStore, path: Path) -> None:
    with store.transaction():
        for index in (0, 1):
            store.add_block(block(index), Secret(bytes([index]) * 32))
    (old,) = sqlite3.connect(path).execute("SELECT material FROM blocks WHERE piece = 0").fetchone()
    with store.transaction():
        store.put_block(replace(block(0), taken=1), Secret(b"\0" + b"m" * 31))
    edit(path, "UPDATE blocks SET material = ? WHERE piece = 0", (old,))  # the bits before they were taken
    edit(path, "UPDATE blocks SET material = ? WHERE piece = 1", (old,))  # another block's
    for block_id in ("l1/0/0", "l1/0/1"):
        with pytest.raises(Tampered):
            store.block_material(block_id)


def test_another_root_key_opens_nothing(path: Path, store: SqliteStore) -> None:
    with store.transaction():
        store.add_block(block(), Secret(b"m" * 32))
    store.close()
    other = SqliteStore(path, Sealer(RootKey.generate()))
    with pytest.raises(Tampered):
        other.block_material("l1/0/0")
    other.close()


def test_files_are_private_and_an_open_folder_is_refused(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    assert path.parent.stat().st_mode & 0o777 == 0o700
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o755)
    with pytest.raises(ConfigError) as caught:
        SqliteStore(public / "site.db", Sealer(RootKey.generate()))
    assert caught.value.hint == f"chmod 700 {public}"


def test_durability_settings_are_on(store: SqliteStore) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 1, "secure_delete": 1, "foreign_keys": 1}
    assert {name: store._db.row(f"PRAGMA {name}")[0] for name in wanted} == wanted


def test_a_second_process_is_told_who_has_the_store(store: SqliteStore, path: Path) -> None:
    code = (
        "import sys; from keystrand.crypto.seal import *; from keystrand.store.sqlite import SqliteStore\n"
        f"try: SqliteStore({str(path)!r}, Sealer(RootKey.generate()))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("StoreUnavailable")
    assert f"process {os.getpid()}" in shown
    with store.transaction():
        store.set_epoch(2)


def test_i3_what_was_committed_survives_a_kill_and_what_was_not_is_gone(path: Path) -> None:
    code = (
        "import os, signal; from keystrand.crypto.seal import *; from keystrand.store.sqlite import SqliteStore\n"
        f"store = SqliteStore({str(path)!r}, Sealer(RootKey.generate()))\n"
        "with store.transaction(): store.set_epoch(7); store.audit_append(0, b'{}', bytes(32))\n"
        "with store.transaction():\n"
        "    store.set_epoch(8); store.audit_append(1, b'{}', bytes(32))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    store = SqliteStore(path, Sealer(RootKey.generate()))
    assert (store.epoch(), store.audit_head()[0]) == (7, 1)
    store.close()


@pytest.mark.proves("R021")
def test_a_full_disk_refuses_undoes_and_works_again_with_space(store: SqliteStore) -> None:
    with store.transaction():
        store.add_block(block(), Secret(b"m" * 32))
        store.move_bits("l1", Account.INGESTED, Account.AVAILABLE, 256)
    (pages,) = store._db.row("PRAGMA page_count")
    store._db.rows(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        with store.transaction():
            store.move_bits("l1", Account.AVAILABLE, Account.BURNT, 8)
            for index in range(1, 2000):
                store.add_block(block(index), Secret(b"m" * 32))

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="full"):
            fill()
        assert len(store.blocks()) == 1
        assert store.ledger("l1")[Account.AVAILABLE] == 256
    store._db.rows("PRAGMA max_page_count = 100000")
    fill()
    assert len(store.blocks()) == 2000


def test_a_failure_that_was_swallowed_in_a_savepoint_still_forbids_the_commit(store: SqliteStore) -> None:
    (pages,) = store._db.row("PRAGMA page_count")
    store._db.rows(f"PRAGMA max_page_count = {pages}")

    def work() -> None:
        with store.transaction():
            store.set_epoch(5)
            with suppress(StoreUnavailable), store.savepoint():
                for index in range(2000):
                    store.add_block(block(index), Secret(b"m" * 32))
            store.set_epoch(6)

    with pytest.raises(StoreUnavailable, match="within the transaction"):
        work()
    assert store.epoch() == 1


def test_nothing_is_written_behind_a_transaction_that_sqlite_ended_by_itself(store: SqliteStore) -> None:
    def work(then: Callable[[], None]) -> None:
        with store.transaction():
            store.move_bits("l1", Account.INGESTED, Account.AVAILABLE, 8)
            store._db._connection.execute("ROLLBACK")
            then()

    with pytest.raises(StoreUnavailable):
        work(lambda: None)
    with pytest.raises(IllegalTransition):
        work(lambda: store.set_epoch(6))
    assert (store.epoch(), store.ledger("l1")[Account.AVAILABLE]) == (1, 0)


def test_an_io_error_shuts_the_store_until_it_is_opened_anew(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        in_transaction = False

        def execute(self, sql: str, *_: object) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR | (4 << 8)  # the fsync that failed
            raise error

        def close(self) -> None:
            pass

    real = store._db._connection
    monkeypatch.setattr(store._db, "_connection", Broken())
    with pytest.raises(StoreUnavailable, match="I/O"), store.transaction():
        pass
    monkeypatch.setattr(store._db, "_connection", real)
    with pytest.raises(StoreUnavailable, match="shut"), store.transaction():
        pass


def test_a_schema_of_a_later_release_is_refused(store: SqliteStore, path: Path) -> None:
    assert store._db.rows("SELECT version FROM migrations") == [(n,) for n in range(1, len(MIGRATIONS) + 1)]
    store.close()
    edit(path, "INSERT INTO migrations VALUES (99, 0.0)")
    with pytest.raises(ConfigError, match="schema 99"):
        SqliteStore(path, Sealer(RootKey.generate()))


def test_a_file_that_is_no_store_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"not a database, but precious" * 100)
    with pytest.raises(StoreUnavailable):
        SqliteStore(path, Sealer(RootKey.generate()))
    assert path.read_bytes().startswith(b"not a database")
    with pytest.raises(StoreUnavailable):
        SqliteAuditFile(path)


def test_the_audit_part_reads_beside_a_running_site_and_without_the_key(store: SqliteStore, path: Path) -> None:
    with store.transaction():
        store.audit_append(0, b'{"n":0}', b"h" * 32)
        store.put_checkpoint(1, "note")
    reader = SqliteAuditFile(path)
    assert reader.audit_rows(0, 9) == [(0, b'{"n":0}', b"h" * 32)]
    assert reader.checkpoints() == [(1, "note")]
    with pytest.raises(sqlite3.OperationalError):
        reader._connection.execute("DELETE FROM audit")
    reader.close()


def test_blocks_in_one_state_are_found_without_reading_the_others(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pending ones are asked for every second, while a full pool has tens of thousands that are confirmed."""
    asked: list[tuple[str, tuple[object, ...]]] = []
    rows = store._db.rows
    monkeypatch.setattr(store._db, "rows", lambda sql, values=(): asked.append((sql, values)) or rows(sql, values))
    store.blocks(link="ab", state=BlockState.PENDING)
    ((sql, values),) = asked
    plan = " ".join(row[3] for row in rows(f"EXPLAIN QUERY PLAN {sql}", values))
    assert "USING INDEX blocks_pending (link=?)" in plan


def test_the_log_of_writes_is_moved_and_begins_anew(tmp_path: Path, root: RootKey) -> None:
    """Else it grows with every write until the disk is full."""
    folder = tmp_path / "short"
    folder.mkdir(mode=0o700)
    store = SqliteStore(folder / "s.db", Sealer(root), log_pages_max=8)
    log = folder / "s.db-wal"
    first = longest = log.stat().st_size  # of what founds the store
    for number in range(60):
        with store.transaction():
            store.add_block(block(number), Secret(bytes(8)))
        longest = max(longest, log.stat().st_size)
    store.close()
    assert longest - first < 60 * (4096 + 24), "sixty writes of three pages and more are 180"
