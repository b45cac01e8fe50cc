"""A site of the simulation whose store is SQLite on a disk in memory, and whose every write can be its last."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from keystrand.crypto.seal import Sealer
from keystrand.kme.service import Kme
from keystrand.kme.site import Effect
from keystrand.testing.crash.disk import Disk, Files, Loss, Moment, Recording
from keystrand.testing.crash.vfs import LOG_PAGES_MAX, DiskStore, DiskVfs
from keystrand.testing.world.sitting import Sitting

Explore = Callable[["DiskSitting", str, Recording], None]


def pass_by(sitting: DiskSitting, operation: str, recording: Recording) -> None:
    """Nothing is tried: the life after a crash."""


@dataclass(slots=True, kw_only=True)
class DiskSitting(Sitting):
    """explore: called after each operation that wrote, before any of its effects leaves. pragmas: those of a planted bug."""

    vfs: DiskVfs
    sealer: Sealer
    pragmas: Sequence[str] = ()
    syncs: bool = True  # False: a planted bug
    log_pages_max: int = LOG_PAGES_MAX
    early: bool = False  # a planted bug: effects leave before the commit
    explore: Explore = pass_by
    abandoned: list[Any] = field(default_factory=list)  # stores of dead processes: nobody closes them before the end
    chance: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311

    @contextmanager
    def _watched(self, operation: Callable[[], str]) -> Iterator[None]:
        if self.explore is pass_by:
            yield
            return
        recording = Recording(self.vfs.disk)
        try:
            yield
        finally:
            recording.stop()
        if recording.acts:
            self.explore(self, operation(), recording)

    def open(self) -> None:
        """What a process does first: open the store, which recovers from the log of writes."""
        name = "open" if self.vfs.disk.files else "found"
        with self._watched(lambda: name):
            store = DiskStore(self.vfs, self.sealer, self.pragmas, syncs=self.syncs, log_pages_max=self.log_pages_max)
            self.store = cast(Any, store)

    def start(self, *, restored: bool = False) -> None:
        deliver, kept = self.deliver, list[tuple[str, list[Effect]]]()
        self.deliver = lambda name, effects: kept.append((name, effects))
        try:
            with self._watched(lambda: "new epoch" if restored else "recover"):
                super(DiskSitting, self).start(restored=restored)
        finally:
            self.deliver = deliver
        for name, effects in kept:
            deliver(name, effects)

    def _commit(self, kme: Kme, operations: Sequence[Callable[[Kme], object]], fate: str) -> list[object]:
        if self.early:
            operations = (*operations, lambda kme: self.deliver(self.name, kme.drain()))
        cast(Any, kme).operation()  # forget what the last ones were, if they wrote nothing
        with self._watched(cast(Any, kme).operation):
            results = super(DiskSitting, self)._commit(kme, operations, fate)
        return results[:-1] if self.early else results

    def stop(self) -> None:
        """The process is gone, or the machine: whatever a crash of a random kind leaves."""
        disk = self.vfs.disk
        moment = Moment(disk.durable, tuple(disk.pending), None)
        self.switch_on(moment.after(self.chance.choice(list(Loss)), self.chance))

    def switch_on(self, image: Files) -> None:
        """The machine starts with these files; no process runs yet."""
        super(DiskSitting, self).stop()
        self.abandoned.append(self.store)
        self.vfs = DiskVfs(Disk.of(image))

    def end(self) -> None:
        """Close what was left open."""
        for store in (*self.abandoned, self.store):
            if isinstance(store, DiskStore):
                store.close()
