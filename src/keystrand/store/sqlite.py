"""The embedded store: one SQLite file per site; who may open it, how it is set up, and what its failures mean."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from keystrand.core.errors import ConfigError, IllegalTransition, StoreUnavailable
from keystrand.crypto.seal import Sealer
from keystrand.store import statements
from keystrand.store.schema import MIGRATIONS
from keystrand.store.sql import SqlStore
from keystrand.store.working import Held, Row

STATEMENTS_CACHED: Final = 256
LOG_PAGES_MAX: Final = 4096  # of the log of writes (16 MiB), before it is moved into the file
# SQLite's "WAL-mode File Format": the salts that the header and each frame of one run of the log share
_LOG_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_HEADER_SALTS_AT: Final = 16
_FRAME_SALTS_AT: Final = 8
_SALTS_BYTES: Final = 8

_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = NORMAL",  # SQLite syncs around checkpoints; each commit is synced here, for whoever waits for it
    "wal_autocheckpoint = 0",  # a commit would do it, on the thread of whoever commits: see `shorten`
    "secure_delete = ON",
    "foreign_keys = ON",
    "trusted_schema = OFF",
    "temp_store = MEMORY",
)
# After these the state of the page cache and of the file is unknown; a second fsync would lie (it reports success for
# pages that were dropped), so the store stays shut until the process starts anew.
_FATAL: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class SqliteDatabase:
    """A connection that is the only one to write its file. Used from one thread at a time, but for `sync` and `shorten`."""

    def __init__(self, path: Path, *, log_pages_max: int = LOG_PAGES_MAX) -> None:
        self.path = path
        self._log_pages_max = log_pages_max
        self._doomed: str | None = None  # why the open transaction cannot be committed any more
        self._shut: str | None = None  # why no transaction can be opened any more
        self.held = Held(self._write_many, self._control)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_mode & 0o077:
            raise ConfigError(
                "others can read the folder of the store", path=str(path), hint=f"chmod 700 {path.parent}"
            )
        self._lock = lock_store(path)
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        os.chmod(self.path, 0o600)
        try:
            self._connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_CACHED
            )
            for pragma in _PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")
            migrate_file(self._connection, self.path)
            self._log = os.open(self.path.with_name(self.path.name + "-wal"), os.O_RDONLY)
            self._mover = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._mover.execute("PRAGMA synchronous = NORMAL")
            self._measure_log()
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self.path}: {error}", hint="restore it from a backup") from None
        self.sync()

    def close(self) -> None:
        """Idempotent. An open transaction is rolled back by SQLite."""
        if self._lock >= 0:
            self._mover.close()
            self._connection.close()
            os.close(self._log)
            os.close(self._lock)
            self._lock = -1

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            self._fail(error)

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        try:
            found: Row | None = self._connection.execute(sql, values).fetchone()
            return found
        except sqlite3.Error as error:
            self._fail(error)

    def gather(self, questions: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        return [self.rows(sql, values) for sql, values in questions]

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Now; how many rows it touched. Raises IllegalTransition outside of a transaction or against a constraint."""
        return self._written(sql, values).rowcount

    def change(self, sql: str, values: Sequence[Any]) -> list[Row]:
        return self._written(sql, values).fetchall()

    def _written(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        self._require_transaction()
        self.held.settle()
        try:
            return self._connection.execute(sql, values)
        except sqlite3.IntegrityError as error:
            raise IllegalTransition(f"the store refuses: {error}") from None
        except sqlite3.Error as error:
            self._fail(error)

    def hold(self, table: str, sql: str, values: Row) -> None:
        """With the others at the end of the transaction, or before the next `write` or `settle`."""
        self._require_transaction()
        self.held.add(table, sql, (values,))

    def hold_all(self, table: str, sql: str, rows: Sequence[Row]) -> None:
        """The same for many rows."""
        self._require_transaction()
        self.held.add(table, sql, rows)

    def _require_transaction(self) -> None:
        if not self._connection.in_transaction:
            raise IllegalTransition(self._doomed or "write outside of a transaction")

    def _write_many(self, sql: str, rows: list[Row]) -> None:
        # Each statement that fires a trigger walks, as it ends, the whole journal that SQLite keeps in memory for a savepoint:
        # the blocks of a link, one by one, took minutes.
        if sql == statements.BLOCK_GONE and len(rows) > 1:
            sql, rows = statements.BLOCKS_GONE, [(json.dumps([block_id for (block_id,) in rows]),)]
        try:
            self._connection.executemany(sql, rows)
        except sqlite3.Error as error:
            self._fail(error)

    @contextmanager
    def transaction(self, flush: Callable[[], None], stale: Callable[[], None]) -> Iterator[None]:
        """Durable when this returns. Nobody else writes this file, so what is remembered is never `stale`."""
        with self.writing(flush):
            yield
        self.sync()
        if self.log_is_long():
            self.shorten()

    def sync(self) -> None:
        """What is committed is durable when this returns. From any thread. Raises StoreUnavailable, and the store is shut."""
        try:
            os.fdatasync(self._log)
        except OSError as error:
            self._shut = str(error)
            raise StoreUnavailable(f"{self.path.name}: {error}", hint="check disk space and health") from None

    def _measure_log(self) -> None:
        (page_bytes,) = self._connection.execute("PRAGMA page_size").fetchone()
        frame_at = _LOG_HEADER_BYTES + (self._log_pages_max - 1) * (_FRAME_HEADER_BYTES + page_bytes)
        self._last_salts_at = frame_at + _FRAME_SALTS_AT

    def _read_log(self, length: int, offset: int) -> bytes:
        return os.pread(self._log, length, offset)

    def log_is_long(self) -> bool:
        """Whether the log of writes is to be moved. Its salts tell: when it begins anew, the file keeps its size."""
        last = self._read_log(_SALTS_BYTES, self._last_salts_at)
        return bool(last) and last == self._read_log(_SALTS_BYTES, _HEADER_SALTS_AT)

    def shorten(self) -> None:
        """Move the log into the file, with a sync before and after. From any thread, beside a transaction.

        Where all of it could be moved, and no transaction is open, the log begins anew with the next one. Raises
        StoreUnavailable, and the store is shut, where the disk fails; a full one is left to the next commit.
        """
        try:
            self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            if is_fatal(error):
                self._shut = str(error)
                raise StoreUnavailable(f"{self.path.name}: {error}", hint="check disk space and health") from None

    @contextmanager
    def writing(self, flush: Callable[[], None]) -> Iterator[None]:
        """BEGIN IMMEDIATE .. COMMIT, to be synced. `flush` holds back the last of it. Whatever raises, all is rolled back."""
        assert not self._connection.in_transaction, "a transaction is open already"
        if self._shut:
            raise StoreUnavailable(f"the store is shut since: {self._shut}", hint="check the disk, then restart")
        self._doomed = None
        self._control("BEGIN IMMEDIATE")
        try:
            yield
            self._check_sound()
            flush()
            self.held.settle()
            self._control("COMMIT")
        except BaseException:
            self.held.clear()
            self._roll_back()
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of the transaction that can fail alone. Nests."""
        assert self._connection.in_transaction, "a savepoint lives inside a transaction"
        self.held.begin_part()
        try:
            yield
        except BaseException:
            # SQLite may have ended the transaction by itself (disk full); then it is doomed and nothing is left to undo
            if self._connection.in_transaction:
                self.held.undo_part()
            raise
        self.held.end_part()

    def _check_sound(self) -> None:
        """A failure may have been swallowed on the way, and SQLite may have ended the transaction by itself."""
        if self._doomed or not self._connection.in_transaction:
            raise StoreUnavailable(f"the store failed within the transaction: {self._doomed}")

    def _control(self, sql: str) -> None:
        try:
            self._connection.execute(sql)
        except sqlite3.Error as error:
            self._fail(error)

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._shut = str(error)

    def _fail(self, error: sqlite3.Error) -> NoReturn:
        self._doomed = str(error)
        if is_fatal(error):
            self._shut = str(error)
        raise StoreUnavailable(f"{self.path.name}: {error}", hint="check disk space and health") from None


def is_fatal(error: sqlite3.Error) -> bool:
    """Whether the store must stay shut after it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _FATAL


def lock_store(path: Path) -> int:
    """An exclusive lock that dies with this process. Raises StoreUnavailable that names the other one."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        other = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise StoreUnavailable(f"{path} is open in process {other}", hint=f"stop process {other} first") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def migrate_file(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a file to this release's schema. Raises ConfigError for one of a later release."""
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, applied_s REAL NOT NULL) STRICT"
    )
    (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"the store has schema {version}, this release knows {len(MIGRATIONS)}",
            path=str(path),
            hint="install the release that wrote it, or a later one",
        )
    for step in MIGRATIONS[version:]:
        version += 1
        for statement in step:
            connection.execute(statement)
        connection.execute("INSERT INTO migrations VALUES (?, ?)", (version, time.time()))
    connection.execute("COMMIT")


class SqliteStore(SqlStore):
    """A store in a file of its own.

    path: made with mode 0600 in a folder of mode 0700. log_pages_max: of writes, before they are moved into the file. Raises
    StoreUnavailable where another process has it open, and later whenever the disk fails; ConfigError for a folder that
    others can read or a schema of a later release.
    """

    def __init__(self, path: str | Path, sealer: Sealer, *, log_pages_max: int = LOG_PAGES_MAX) -> None:
        self._file = SqliteDatabase(Path(path), log_pages_max=log_pages_max)
        super().__init__(self._file, sealer)

    def writing(self) -> AbstractContextManager[None]:
        """A transaction that is durable only after a `sync`, which must come before the next one is committed."""
        return self._within(self._file.writing(self._flush))

    def sync(self) -> None:
        """Make it durable. Blocks; from any thread. Raises StoreUnavailable, and the store is shut from then on."""
        self._file.sync()

    def log_is_long(self) -> bool:
        """Whether `shorten` has something to do."""
        return self._file.log_is_long()

    def shorten(self) -> None:
        """Move the log of writes into the file. Blocks; from any thread, beside a transaction. Raises as `sync` does."""
        self._file.shorten()


class SqliteAuditFile:
    """The audit part of a store file, read without the root key and beside a running site: for offline verification."""

    def __init__(self, path: str | Path) -> None:
        try:
            self._connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
            self._connection.execute("SELECT 1 FROM audit LIMIT 1")
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{path}: {error}", hint="name the store file of a site") from None

    def audit_rows(self, first: int, limit: int) -> list[tuple[int, bytes, bytes]]:
        sql = "SELECT number, record, head FROM audit WHERE number >= ? ORDER BY number LIMIT ?"
        return self._connection.execute(sql, (first, limit)).fetchall()

    def checkpoints(self, first: int = 0) -> list[tuple[int, str]]:
        sql = "SELECT size, note FROM checkpoints WHERE size >= ? ORDER BY size"
        return self._connection.execute(sql, (first,)).fetchall()

    def close(self) -> None:
        self._connection.close()
