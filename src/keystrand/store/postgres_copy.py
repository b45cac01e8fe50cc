"""A site's PostgreSQL as a store file and back: what backups hold is the same whatever the store is kept in.

Both have the same tables, and a row is sealed for what it says, not for where it lies. Sums that triggers keep are made again
on the other side.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.types.numeric import Int8BinaryDumper

from keystrand.core.errors import ConfigError, StoreUnavailable
from keystrand.store.postgres import CONNECT_S
from keystrand.store.postgres_address import check_address
from keystrand.store.roster import GONE_S
from keystrand.store.schema import MIGRATIONS

ROWS_AT_ONCE: Final = 2_000
_KEPT_BY_TRIGGERS: Final = ("pools",)
_OF_THE_PLACE: Final = ("migrations", "sqlite_sequence")  # what describes the database, not the site


@contextmanager
def beside_replicas(address: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside those of the replicas. Raises StoreUnavailable, ConfigError."""
    check_address(address)
    try:
        with psycopg.connect(address, autocommit=True, connect_timeout=CONNECT_S) as line:
            line.adapters.register_dumper(int, Int8BinaryDumper)
            yield line
    except psycopg.Error as error:
        words = error.diag.message_primary or str(error).strip().partition("\n")[0]
        raise StoreUnavailable(f"PostgreSQL: {words}", hint="see the address in [site] store") from None


def is_founded(line: psycopg.Connection[Any]) -> bool:
    """Whether a site has ever been in this database."""
    return line.execute("SELECT to_regclass('turn')").fetchone() != (None,)


def require_idle(line: psycopg.Connection[Any]) -> None:
    """Raises StoreUnavailable that names a replica which serves."""
    if not is_founded(line):
        return
    living = "SELECT replica FROM replicas WHERE seen_s >= extract(epoch FROM clock_timestamp()) - %s ORDER BY replica"
    names = [name for (name,) in line.execute(living, (GONE_S,)).fetchall()]
    if names:
        raise StoreUnavailable(f"{', '.join(names)} serve the site", hint="stop every replica first")


def copy_out(line: psycopg.Connection[Any], target: sqlite3.Connection) -> None:
    """One moment of the site, while its replicas go on, into an empty store file of this release's schema.

    Raises ConfigError for a database of another schema: its own release makes the backup.
    """
    with line.transaction():
        line.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        (version,) = line.execute("SELECT max(version) FROM migrations").fetchone() or (0,)
        if version != len(MIGRATIONS):
            words = f"the database has schema {version}, this release knows {len(MIGRATIONS)}"
            raise ConfigError(words, hint="use the release that serves it")
        target.execute("BEGIN")
        for table, columns in _tables(target):
            _out(line, target, table, columns)
        target.execute("COMMIT")


def _tables(file: sqlite3.Connection) -> list[tuple[str, list[str]]]:
    """Tables of a store file that hold what a site is, with their columns."""
    found = file.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    names = [name for (name,) in found if name not in (*_KEPT_BY_TRIGGERS, *_OF_THE_PLACE)]
    return [(name, [row[1] for row in file.execute(f"PRAGMA table_info({name})").fetchall()]) for name in names]


def _out(line: psycopg.Connection[Any], target: sqlite3.Connection, table: str, columns: list[str]) -> None:
    question = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table)
    )
    places = ", ".join("?" * len(columns))
    with line.cursor(f"backup {table}", binary=True) as rows:  # the server hands them over in portions
        rows.execute(question)
        while portion := rows.fetchmany(ROWS_AT_ONCE):
            target.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", portion)  # noqa: S608


def copy_in(line: psycopg.Connection[Any], source: sqlite3.Connection) -> None:
    """A store file in the place of whatever the database holds; all of it or nothing.

    The database has this release's schema. Replicas that remember other rows find out with their next turn.
    """
    with line.transaction():
        line.execute("UPDATE turn SET version = version + 1")  # the lock of every replica's turn
        require_idle(line)
        line.execute("TRUNCATE replicas, leases, pools")
        for table, columns in _tables(source):
            _in(line, source, table, columns)
        line.execute(
            "SELECT setval(pg_get_serial_sequence('notices', 'number'), coalesce(max(number), 0) + 1) FROM notices"
        )


def _in(line: psycopg.Connection[Any], source: sqlite3.Connection, table: str, columns: list[str]) -> None:
    name, listing = sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    line.execute(sql.SQL("TRUNCATE {}").format(name))
    described = line.execute(sql.SQL("SELECT {} FROM {} LIMIT 0").format(listing, name)).description
    assert described is not None
    order = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(name, listing)
    with line.cursor() as cursor, cursor.copy(order) as copy:
        copy.set_types([column.type_code for column in described])
        for row in source.execute(f"SELECT {', '.join(columns)} FROM {table}"):  # noqa: S608
            copy.write_row(row)
