"""What a transaction has changed but not written: undone in memory when a part of it fails, written together at the end.

With group commit a transaction holds many requests, each a handful of small writes. Writing them one by one costs more than
the disk; held back, they go out table by table, and a request that fails costs no SQL at all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar

from keystrand.core.pool import Copy
from keystrand.core.secret import Secret

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Row = tuple[Any, ...]
Write = tuple[str, str, Sequence[Row]]  # table, SQL, values of each row

_ABSENT: Final = object()


class Journal:
    """Changes of dictionaries, so that they can be taken back to a mark."""

    __slots__ = ("_changes",)

    def __init__(self) -> None:
        self._changes: list[tuple[dict[Any, Any], Any, object]] = []

    def put(self, table: dict[K, V], key: K, value: V) -> None:
        self._changes.append((table, key, table.get(key, _ABSENT)))
        table[key] = value

    def put_all(self, table: dict[K, V], entries: Mapping[K, V]) -> None:
        self._changes += [(table, key, table.get(key, _ABSENT)) for key in entries]
        table.update(entries)

    def drop(self, table: dict[K, V], key: K) -> None:
        self._changes.append((table, key, table.pop(key, _ABSENT)))

    def mark(self) -> int:
        return len(self._changes)

    def undo(self, mark: int) -> None:
        while len(self._changes) > mark:
            table, key, before = self._changes.pop()
            if before is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = before

    def clear(self) -> None:
        self._changes.clear()


@dataclass(slots=True)
class Part:
    """A savepoint. It begins in SQL only when something inside it has to be written before the transaction's end."""

    held: int  # how much was held back when it began
    begun: bool = False


class Held:
    """Writes held back, and the savepoints among them. `write` runs one statement for many rows; `control` runs a word."""

    def __init__(self, write: Callable[[str, list[Row]], None], control: Callable[[str], None]) -> None:
        self._write = write
        self._control = control
        self._writes: list[Write] = []
        self._parts: list[Part] = []

    def add(self, table: str, sql: str, rows: Sequence[Row]) -> None:
        """Only tables that do not refer to each other: those of one table stay in order, tables do not."""
        self._writes.append((table, sql, rows))

    @property
    def is_settled(self) -> bool:
        """Whether `settle` has nothing to do."""
        return not self._writes and all(part.begun for part in self._parts)

    def clear(self) -> None:
        self._writes.clear()
        self._parts.clear()

    def settle(self) -> None:
        """Write everything held so far, with the savepoints where they belong."""
        at = 0
        for part in self._parts:
            if not part.begun:
                self._send(self._writes[at : part.held])
                at, part.held, part.begun = part.held, 0, True
                self._control("SAVEPOINT part")
        self._send(self._writes[at:])
        self._writes.clear()

    def _send(self, writes: list[Write]) -> None:
        writes.sort(key=itemgetter(0))  # stable
        for (_, sql), same in groupby(writes, key=itemgetter(0, 1)):
            self._write(sql, [values for _, _, rows in same for values in rows])

    def begin_part(self) -> None:
        self._parts.append(Part(len(self._writes)))

    def end_part(self) -> None:
        if self._parts.pop().begun:
            self._control("RELEASE part")

    def undo_part(self) -> None:
        part = self._parts.pop()
        del self._writes[part.held :]
        if part.begun:
            self._control("ROLLBACK TO part")
            self._control("RELEASE part")


class Waiting(NamedTuple):
    """A copy as this process remembers it. material: None once it is finished, or where only the file has it."""

    copy: Copy
    material: Secret | None = None

    def wipe(self) -> None:
        if self.material is not None:
            self.material.wipe()


def oldest(table: dict[K, V], keep: int) -> Iterator[tuple[K, V]]:
    """Take the oldest entries out of a table until `keep` are left."""
    # at once: a dictionary is searched from its beginning, over all that was taken out before
    for key in list(islice(table, max(0, len(table) - keep))):
        yield key, table.pop(key)
