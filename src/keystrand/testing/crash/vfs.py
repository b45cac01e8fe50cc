"""SQLite on the disk in memory: a virtual file system for apsw, and the store's connection over it.

The store is the product's own, above the driver; apsw stands where the standard library's sqlite3 is, since that has no
virtual file systems. One difference: the index of the write-ahead log is in the heap (locking_mode EXCLUSIVE), as there is
no shared memory here, so the log is moved into the file between two transactions and never beside one. What is written to
the files, and when it is synced, is the same.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from keystrand.core.errors import StoreUnavailable
from keystrand.crypto.seal import Sealer
from keystrand.store.sql import SqlStore
from keystrand.store.sqlite import _PRAGMAS, STATEMENTS_CACHED, SqliteDatabase, migrate_file
from keystrand.store.working import Held
from keystrand.testing.crash.disk import FOLDER, Act, Deed, Disk, Files

SECTOR_BYTES: Final = 4096  # what SQLite's own system for Unix says
FILE: Final = "site.db"
LOG: Final = f"{FILE}-wal"
LOG_PAGES_MAX: Final = 1000
JOURNALS: Final = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL  # their folder is synced with their first sync


class DiskVfs(apsw.VFS):  # type: ignore[misc,unused-ignore]
    """The file system of one machine from one start to the next: of a later one it touches nothing."""

    _count = itertools.count()

    def __init__(self, disk: Disk) -> None:
        self.name = f"disk-{next(self._count)}"
        self.disk = disk
        super().__init__(self.name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> DiskFile:  # type: ignore[override]  # noqa: N802
        flags[1] = flags[0]
        path = str(name.filename() if isinstance(name, apsw.URIFilename) else name)
        return DiskFile(self.disk, path, sync_folder=bool(flags[0] & JOURNALS))

    def xAccess(self, name: str, flags: int) -> bool:  # noqa: N802
        return name in self.disk.files

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xDelete(self, name: str, sync_folder: bool) -> None:  # noqa: N802
        self.disk.act(Act(Deed.REMOVE, name))
        if sync_folder:
            self.disk.act(Act(Deed.SYNC, FOLDER))


class DiskFile:
    """A file that is open. It stays on the disk on which it was opened."""

    def __init__(self, disk: Disk, name: str, *, sync_folder: bool) -> None:
        self._disk, self._name, self._sync_folder = disk, name, sync_folder
        if name not in disk.files:
            disk.act(Act(Deed.TRUNCATE, name, 0))

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self._disk.files.get(self._name, b"")[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.act(Act(Deed.WRITE, self._name, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._disk.act(Act(Deed.TRUNCATE, self._name, size))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.act(Act(Deed.SYNC, self._name))
        if self._sync_folder:
            self._disk.act(Act(Deed.SYNC, FOLDER))
            self._sync_folder = False

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._disk.files.get(self._name, b""))

    def xSectorSize(self) -> int:  # noqa: N802
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xFileControl(self, op: int, pointer: int) -> bool:  # noqa: N802
        return False

    def xLock(self, level: int) -> None:  # noqa: N802
        """One process has the disk to itself."""

    xUnlock = xLock  # noqa: N815

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xClose(self) -> None:  # noqa: N802
        """Nothing is kept back to be written now."""


class Rows:
    """What a statement gave. rowcount: rows that it touched."""

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows, self.rowcount = rows, rowcount

    def fetchall(self) -> list[Any]:
        return self._rows

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None


class Connection:
    """As much of sqlite3.Connection as the store uses, over apsw."""

    def __init__(self, vfs: str, path: Path = Path(FILE)) -> None:
        self._connection = apsw.Connection(str(path), vfs=vfs, statementcachesize=STATEMENTS_CACHED)

    @property
    def in_transaction(self) -> bool:
        return not self._connection.getautocommit()

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        try:
            rows = list(self._connection.execute(sql, values))  # to the end: apsw steps no further than it is asked to
        except apsw.Error as error:
            raise _as_sqlite3(error) from None
        return Rows(rows, self._connection.changes())

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        for values in rows:
            self.execute(sql, values)

    def close(self) -> None:
        self._connection.close()


def _as_sqlite3(error: apsw.Error) -> sqlite3.Error:
    kind = sqlite3.IntegrityError if isinstance(error, apsw.ConstraintError) else sqlite3.OperationalError
    found = kind(str(error))
    found.sqlite_errorcode = getattr(error, "extendedresult", 0)
    return found


class DiskDatabase(SqliteDatabase):
    """The product's database on a disk in memory. pragmas: after the product's own; a planted bug is one of them, or that it
    does not sync."""

    def __init__(
        self, vfs: DiskVfs, pragmas: Sequence[str] = (), *, syncs: bool = True, log_pages_max: int = LOG_PAGES_MAX
    ) -> None:
        self.path = Path(FILE)
        self._log_pages_max = log_pages_max
        self._doomed = self._shut = None
        self._lock = -1  # no other process can have it open
        self.held = Held(self._write_many, self._control)
        self._disk, self._syncs = vfs.disk, syncs
        connection = Connection(vfs.name)
        self._connection = self._mover = connection  # type: ignore[assignment]  # no index of the log to share
        try:
            for pragma in ("locking_mode = EXCLUSIVE", *_PRAGMAS, *pragmas):
                connection.execute(f"PRAGMA {pragma}")
            migrate_file(connection, self.path)  # type: ignore[arg-type]
            self._measure_log()
            self.sync()
        except sqlite3.Error as error:
            connection.close()
            raise StoreUnavailable(f"{self.path}: {error}", hint="restore it from a backup") from None

    def sync(self) -> None:
        """The product syncs the log by itself."""
        if self._syncs:
            self._disk.act(Act(Deed.SYNC, LOG))

    def _read_log(self, length: int, offset: int) -> bytes:
        return bytes(self._disk.files.get(LOG, b"")[offset : offset + length])

    def close(self) -> None:
        self._connection.close()


class DiskStore(SqlStore):
    """A site's store on a disk in memory."""

    def __init__(
        self,
        vfs: DiskVfs,
        sealer: Sealer,
        pragmas: Sequence[str] = (),
        *,
        syncs: bool = True,
        log_pages_max: int = LOG_PAGES_MAX,
    ) -> None:
        self.database = DiskDatabase(vfs, pragmas, syncs=syncs, log_pages_max=log_pages_max)
        super().__init__(self.database, sealer)


def content_of(image: Files) -> bytes:
    """What a store that starts with these files holds, as a digest of its pages: the same for the same transactions.

    Raises StoreUnavailable when it does not open.
    """
    vfs = DiskVfs(Disk.of(image))
    database = DiskDatabase(vfs)
    try:
        database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        return hashlib.blake2b(vfs.disk.files[FILE]).digest()
    finally:
        database.close()
