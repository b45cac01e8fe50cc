"""The log of writes is moved into the file beside open transactions: cut short at every write and sync, nothing is lost.

The exhaustive crash test has one connection and so moves the log between transactions only. Here two connections share the
index of the log as in a running site, on real files whose writes and syncs are heard by a disk that can lose power.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from keystrand.core.errors import StoreUnavailable
from keystrand.store.sqlite import _PRAGMAS, SqliteDatabase, migrate_file
from keystrand.store.working import Held, Row
from keystrand.testing.crash.disk import FOLDER, Act, Deed, Disk, Files, Recording
from keystrand.testing.crash.vfs import FILE, JOURNALS, LOG, Connection, DiskDatabase, DiskVfs

TRANSACTIONS = 24
PAGES_MAX = 12  # so that the log begins anew several times
SEED = 5


class HeardFile(apsw.VFSFile):
    """A real file; a disk hears what is done to it."""

    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], disk: Disk) -> None:
        super().__init__("unix", name, flags)
        self._disk, self._sync_folder = disk, bool(flags[0] & JOURNALS)
        self._name = Path(str(name.filename() if isinstance(name, apsw.URIFilename) else name)).name

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._disk.act(Act(Deed.WRITE, self._name, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        super().xTruncate(size)
        self._disk.act(Act(Deed.TRUNCATE, self._name, size))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._disk.act(Act(Deed.SYNC, self._name))
        if self._sync_folder:  # as SQLite's own system for Unix does with the first sync of a journal
            self._disk.act(Act(Deed.SYNC, FOLDER))
            self._sync_folder = False


class HeardVfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.disk, self.name = disk, "heard"
        super().__init__(self.name, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> HeardFile:
        return HeardFile(name, flags, self.disk)

    def xDelete(self, name: str, sync_folder: bool) -> None:
        super().xDelete(name, sync_folder)
        self.disk.act(Act(Deed.REMOVE, Path(name).name))
        if sync_folder:
            self.disk.act(Act(Deed.SYNC, FOLDER))


class HeardDatabase(SqliteDatabase):
    """The product's database with its two connections, on the files of a folder."""

    def __init__(self, folder: Path, vfs: HeardVfs, mover_syncs: str) -> None:
        self.path = folder / FILE
        self._log_pages_max, self._disk, self._lock = PAGES_MAX, vfs.disk, -1
        self._doomed = self._shut = None
        self.held = Held(self._write_many, self._control)
        self._connection = Connection(vfs.name, self.path)  # type: ignore[assignment]
        for pragma in _PRAGMAS:
            self._connection.execute(f"PRAGMA {pragma}")
        migrate_file(self._connection, self.path)
        self._mover = Connection(vfs.name, self.path)  # type: ignore[assignment]
        self._mover.execute(f"PRAGMA synchronous = {mover_syncs}")
        self._measure_log()
        self.sync()

    def sync(self) -> None:
        self._disk.act(Act(Deed.SYNC, LOG))

    def _read_log(self, length: int, offset: int) -> bytes:
        return bytes(self._disk.files[LOG][offset : offset + length])

    def close(self) -> None:
        self._mover.close()
        self._connection.close()


@pytest.fixture
def vfs() -> Iterator[HeardVfs]:
    vfs = HeardVfs(Disk())
    yield vfs
    vfs.unregister()


def content_of(database: SqliteDatabase) -> list[Row]:
    return database.rows("SELECT bits, link FROM ledger ORDER BY bits")


def found_in(image: Files) -> list[Row]:
    """What a store that starts with these files has."""
    with closing(DiskDatabase(DiskVfs(Disk.of(image)))) as database:
        assert database.rows("PRAGMA integrity_check") == [("ok",)]
        return content_of(database)


@dataclass(frozen=True)
class Played:
    """One transaction. acknowledged_at: the act before which the one before it was."""

    recording: Recording
    acknowledged_at: int
    before: list[list[Row]]  # what was there after each of those before it, from none on


def play(database: HeardDatabase, disk: Disk, rng: random.Random) -> Iterator[Played]:
    """Transactions as the engine makes them, the log moved at any instant."""
    states = [content_of(database)]
    for number in range(TRANSACTIONS):
        recording, acknowledged_at = Recording(disk), 0
        with database.writing(lambda: None):
            if rng.random() < 0.5:
                database.shorten()  # what the last one wrote is still on its way to the disk
            database.sync()
            acknowledged_at = len(recording.acts)
            database.write("INSERT INTO ledger VALUES (?, 'a', ?)", (f"link-{number}-{'y' * 300}", number))
            database.write("UPDATE ledger SET link = link || 'x' WHERE bits % 3 = ?", (number % 3,))
            if rng.random() < 0.5:
                database.shorten()
        if rng.random() < 0.3:
            database.sync()
            database.shorten()  # between two transactions: the log begins anew
        recording.stop()
        states.append(content_of(database))
        yield Played(recording, acknowledged_at, states[-3:])


def lost_in(folder: Path, vfs: HeardVfs, mover_syncs: str) -> tuple[list[str], int, int]:
    """What crashes lost; how many were tried; how often the log began anew."""
    rng, lost, tried, begun = random.Random(SEED), list[str](), 0, 0
    with closing(HeardDatabase(folder, vfs, mover_syncs)) as database:
        for number, played in enumerate(play(database, vfs.disk, rng)):
            acts = played.recording.acts
            begun += sum(act.deed is Deed.WRITE and act.name == LOG and act.offset == 0 for act in acts)
            for at in range(len(acts)):
                moment = played.recording.moment(at)
                allowed = played.before[-2:] if at >= played.acknowledged_at else played.before
                for loss in moment.losses():
                    tried += 1
                    if problem := problem_of(moment.after(loss, rng), allowed):
                        lost.append(f"transaction {number}, act {at}, {loss.value}: {problem}")
    return lost, tried, begun


def problem_of(image: Files, allowed: list[list[Row]]) -> str:
    try:
        found = found_in(image)
    except (StoreUnavailable, AssertionError) as error:
        return str(error)
    return "" if found in allowed else f"{len(found)} rows, as after none of the last transactions"


@pytest.mark.proves("R021", "R098")
def test_I3_nothing_is_lost_when_the_power_fails_while_the_log_is_moved(tmp_path: Path, vfs: HeardVfs) -> None:
    lost, tried, begun = lost_in(tmp_path, vfs, "NORMAL")
    assert not lost, (SEED, lost[:5])
    assert tried > 500
    assert begun >= 3, "a log that never begins anew proves little"


def test_a_move_without_syncs_is_found(tmp_path: Path, vfs: HeardVfs) -> None:
    assert lost_in(tmp_path, vfs, "OFF")[0]
