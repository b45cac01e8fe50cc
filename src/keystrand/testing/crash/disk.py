"""A disk in memory that remembers what was synced, so that the power can be cut at any write, sync, truncation or removal."""

from __future__ import annotations

import enum
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

SECTOR_BYTES: Final = 512
FOLDER: Final = "."  # to sync it makes removals last


class Deed(enum.Enum):
    """What a program can do to a disk."""

    WRITE = "write"
    TRUNCATE = "truncate"
    REMOVE = "remove"
    SYNC = "sync"


@dataclass(frozen=True, slots=True)
class Act:
    """One deed on one file. offset: where it writes, or the length it truncates to."""

    deed: Deed
    name: str
    offset: int = 0
    data: bytes = b""


class Loss(enum.Enum):
    """What a crash does to writes that were not synced."""

    EXIT = "exit"  # the process dies, the machine goes on: all of them are there
    LOST = "lost"  # the power fails: none is
    REORDERED = "reordered"  # the power fails: some are, whichever order they were made in
    TORN = "torn"  # the power fails: some are, and of each only some sectors of 512 bytes


Files = dict[str, bytearray]


@dataclass(slots=True)
class Disk:
    """files: as the running program sees them. durable: as of the last sync of each. pending: all since, in order."""

    files: Files = field(default_factory=dict)
    durable: Files = field(default_factory=dict)
    pending: list[Act] = field(default_factory=list)
    heard: Callable[[Act], None] | None = None  # told of every act before it takes effect

    @classmethod
    def of(cls, image: Mapping[str, bytes | bytearray]) -> Disk:
        """A machine that was switched on with these files."""
        return cls(
            {name: bytearray(content) for name, content in image.items()},
            {name: bytearray(content) for name, content in image.items()},
        )

    def act(self, act: Act) -> None:
        if self.heard is not None:
            self.heard(act)
        if act.deed is Deed.SYNC:
            self._sync(act.name)
            return
        apply(self.files, act)
        self.pending.append(act)

    def _sync(self, name: str) -> None:
        settled = [act for act in self.pending if name == (FOLDER if act.deed is Deed.REMOVE else act.name)]
        for act in settled:
            apply(self.durable, act)
        self.pending = [act for act in self.pending if act not in settled]
        if name in self.files:
            self.durable.setdefault(name, bytearray())

    def image(self) -> Files:
        """What the next process finds when this one ends now."""
        return {name: bytearray(content) for name, content in self.files.items()}


def apply(files: Files, act: Act) -> None:
    """Do it. A write past the end leaves zeros between."""
    if act.deed is Deed.REMOVE:
        files.pop(act.name, None)
        return
    content = files.setdefault(act.name, bytearray())
    if act.deed is Deed.TRUNCATE:
        del content[act.offset :]
        content.extend(bytes(act.offset - len(content)))
    else:
        content.extend(bytes(max(0, act.offset - len(content))))
        content[act.offset : act.offset + len(act.data)] = act.data


@dataclass(frozen=True, slots=True)
class Moment:
    """A disk at the instant before an act: what was durable, and what was not yet. `act` is None after the last one."""

    durable: Files
    pending: tuple[Act, ...]
    act: Act | None

    @property
    def unsynced(self) -> tuple[Act, ...]:
        """What a crash now may lose. A write that is under way counts."""
        under_way = () if self.act is None or self.act.deed is Deed.SYNC else (self.act,)
        return (*self.pending, *under_way)

    def losses(self) -> tuple[Loss, ...]:
        """The crashes that differ here: where everything is synced, they are all the same."""
        return tuple(Loss) if self.unsynced else (Loss.EXIT,)

    def after(self, loss: Loss, rng: random.Random) -> Files:
        """The files that are found after a crash at this moment."""
        files = {name: bytearray(content) for name, content in self.durable.items()}
        for act in _survivors(self.unsynced, loss, rng):
            apply(files, act)
        return files


def _survivors(pending: tuple[Act, ...], loss: Loss, rng: random.Random) -> list[Act]:
    if loss is Loss.EXIT:
        return list(pending)
    if loss is Loss.LOST:
        return []
    some = [act for act in pending if rng.random() < 0.5]
    if loss is Loss.REORDERED:
        rng.shuffle(some)
        return some
    return [part for act in some for part in _torn(act, rng)]


def _torn(act: Act, rng: random.Random) -> list[Act]:
    """Those sectors of a write that made it. Sectors are counted on the disk, not from where the write begins."""
    if act.deed is not Deed.WRITE:
        return [act]
    end = act.offset + len(act.data)
    cuts = [act.offset, *range((act.offset // SECTOR_BYTES + 1) * SECTOR_BYTES, end, SECTOR_BYTES), end]
    return [
        Act(Deed.WRITE, act.name, a, act.data[a - act.offset : b - act.offset])
        for a, b in itertools.pairwise(cuts)
        if rng.random() < 0.5
    ]


class Recording:
    """What one operation did to a disk: every instant at which it could have been cut short."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._durable: Files = {}
        self._pending: tuple[Act, ...] = ()
        self.acts: list[Act] = []
        disk.heard = self._hear

    def _hear(self, act: Act) -> None:
        if not self.acts:
            self._durable = {name: bytearray(content) for name, content in self._disk.durable.items()}
            self._pending = tuple(self._disk.pending)
        self.acts.append(act)

    def stop(self) -> None:
        self._disk.heard = None

    def moment(self, number: int) -> Moment:
        """The instant before act `number`; after all of them for number = len(acts)."""
        disk = Disk({}, {name: bytearray(content) for name, content in self._durable.items()}, list(self._pending))
        for act in self.acts[:number]:
            disk.act(act)
        return Moment(disk.durable, tuple(disk.pending), self.acts[number] if number < len(self.acts) else None)
