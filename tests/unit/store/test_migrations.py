"""A store of any earlier schema, with rows in it, is brought to this release's: nothing is lost, all is as if new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.store.test_aftermath import record_of
from tests.unit.store.test_store_contract import block, copy, request_

from keystrand.core.pool import Account
from keystrand.core.register import Scope
from keystrand.core.states import State
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.store import postgres_schema, sqlite
from keystrand.store.blocks import BLOCK_COLUMN
from keystrand.store.database import Database
from keystrand.store.register import FIXED, key_row
from keystrand.store.rows import BLOCK_COLUMNS, COPY_COLUMNS, block_row, copy_row, identity
from keystrand.store.schema import MIGRATIONS
from keystrand.store.sealed import COPY_COLUMN
from keystrand.store.sql import SqlStore
from keystrand.store.sqlite import SqliteDatabase
from keystrand.testing.postgres import postgres_server, why_not

ROOT = RootKey.generate()
VERSIONS = range(1, len(MIGRATIONS) + 1)
REGISTER_SINCE = 2


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Database]:
    """Opens one database, again and again."""
    if request.param == "sqlite":
        tmp_path.chmod(0o700)
        return lambda: SqliteDatabase(tmp_path / "site.db")
    if reason := why_not():
        pytest.skip(reason)
    from keystrand.store.postgres import PostgresDatabase

    address = postgres_server().new_database()
    return lambda: PostgresDatabase(address, "alpha")


def written_by(version: int, database: Database) -> None:
    """What a release of that schema left behind: each row with the columns that it knew."""
    sealer = Sealer(ROOT)
    piece, waiting = block_row(block()), copy_row(copy())
    asked = request_()
    rows: list[tuple[str, tuple[Any, ...]]] = [
        ("INSERT INTO site VALUES ('epoch', ?)", (6,)),
        ("INSERT INTO peers VALUES (?, ?, ?, ?, ?)", ("bravo", 3, 4, 5, 0)),
        (
            f"INSERT INTO blocks ({BLOCK_COLUMNS}, free_bits, material) VALUES ({', '.join('?' * 13)})",
            (*piece, 64, sealer.seal(BLOCK_COLUMN, identity(piece), b"b" * 8)),
        ),
        (
            f"INSERT INTO copies ({COPY_COLUMNS}, living, material) VALUES ({', '.join('?' * 14)})",
            (*waiting, 1, sealer.seal(COPY_COLUMN, identity(waiting), b"k" * 32)),
        ),
        (
            "INSERT INTO requests (request_id, peer, link, bits, op, void, created_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (asked.request_id, asked.peer, asked.link, asked.bits, asked.op, 0, 0.0),
        ),
        ("INSERT INTO ledger VALUES (?, ?, ?)", ("l1", "available", 64)),
        ("INSERT INTO audit VALUES (?, ?, ?)", (0, b"{}", b"h" * 32)),
    ]
    if version >= REGISTER_SINCE:
        fixed = key_row(record_of("k1", "l1", State.ACTIVE))[:17]
        sql = f"INSERT INTO register ({FIXED}, stage, due_s, state) VALUES ({', '.join('?' * 17)})"
        rows.append((sql, fixed))
    with database.transaction(lambda: None, lambda: None):
        for sql, values in rows:
            database.write(sql, values)


def shape_of(database: Database) -> list[Any]:
    """Tables, columns and indexes."""
    if isinstance(database, SqliteDatabase):
        return sorted(database.rows("SELECT type, name, tbl_name FROM sqlite_master")) + [
            database.rows(f"PRAGMA table_info({name})")
            for (name,) in database.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        ]
    columns = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
    return sorted(database.rows(columns)) + sorted(
        database.rows("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_of_every_earlier_schema_is_brought_up_with_all_it_holds(
    version: int, place: Callable[[], Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as past:
        for module in (sqlite, postgres_schema):
            past.setattr(module, "MIGRATIONS", MIGRATIONS[:version])
        old = place()
        written_by(version, old)
        old.close()
    database = place()
    store = SqlStore(database, Sealer(ROOT))
    assert (store.epoch(), store.peer("bravo").op_sent) == (6, 4)
    assert store.block(block().block_id) == block()
    assert store.block_material(block().block_id).reveal() == b"b" * 8
    assert store.copies("k1") == [copy()]
    assert store.copy_material("k1", copy().recipient).reveal() == b"k" * 32
    assert store.requests() == [request_()]
    assert store.ledger("l1")[Account.AVAILABLE] == 64
    assert store.free_bits("l1", "alpha") == 64
    assert store.audit_head() == (1, b"h" * 32)
    found = [record.key_id for record in store.register.find(Scope(sae="sae-z"), None, 9)]
    assert found == (["k1"] if version >= REGISTER_SINCE else [])
    brought_up = shape_of(database)
    store.close()
    assert brought_up == shape_of_a_new_one(place, tmp_path)


def shape_of_a_new_one(place: Callable[[], Database], tmp_path: Path) -> list[Any]:
    like = place()
    is_file = isinstance(like, SqliteDatabase)
    like.close()
    if is_file:
        folder = tmp_path / "new"
        folder.mkdir(mode=0o700)
        fresh: Database = SqliteDatabase(folder / "site.db")
    else:
        from keystrand.store.postgres import PostgresDatabase

        fresh = PostgresDatabase(postgres_server().new_database(), "alpha")
    shape = shape_of(fresh)
    fresh.close()
    return shape
