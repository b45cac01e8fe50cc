"""The list of a directory that is sent: names, kinds, modes, times, sizes. Pack and parse, no I/O.

It stands in front of the content of the files, which follow one another in its order, so that one offset names a file
and a place in it. docs/reference/gateway-format.md has it byte by byte.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from typing import Final

from keystrand.core.errors import PeerFault
from keystrand.transport.gateway.names import UnsafeName, check_link, check_member_path

TREE_MAGIC: Final = b"KSTREE\x00\x01"  # the last byte is the version
ENTRIES_MAX: Final = 200_000
MANIFEST_BYTES_MAX: Final = 64 << 20
MODE_BITS: Final = 0o777  # set-user-ID, set-group-ID and sticky bits do not travel
_COUNT = struct.Struct(">8sI")
_ENTRY = struct.Struct(">BHqQHH")
_SIZE_MAX: Final = 2**62


class Kind(IntEnum):
    DIRECTORY = 1
    FILE = 2
    LINK = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One member. `path` is relative, with "/" between names; "" is the directory itself. `target` is that of a link."""

    kind: Kind
    path: str
    mode: int
    modified_ns: int
    size_bytes: int = 0
    target: str = ""

    def pack(self) -> bytes:
        path, target = self.path.encode(), self.target.encode()
        numbers = (self.kind, self.mode, self.modified_ns, self.size_bytes, len(path), len(target))
        return _ENTRY.pack(*numbers) + path + target


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one file that lie next to one another: `length_bytes` from `offset_bytes` of it on."""

    entry: Entry
    offset_bytes: int
    length_bytes: int


class Manifest:
    """Entries in order, a directory before what is in it. Raises UnsafeName where they do not make one safe tree."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        _check(entries)
        self.entries = tuple(entries)
        self.files = [entry for entry in entries if entry.kind is Kind.FILE and entry.size_bytes]
        self._ends = list(accumulate(entry.size_bytes for entry in self.files))

    @property
    def body_bytes(self) -> int:
        """Of all files together."""
        return self._ends[-1] if self._ends else 0

    def pieces(self, offset_bytes: int, length_bytes: int) -> Iterator[Piece]:
        """Which files the content from `offset_bytes` on lies in; offsets count from the first file's first byte."""
        place = bisect_right(self._ends, offset_bytes)
        while length_bytes > 0 and place < len(self.files):
            entry = self.files[place]
            start_bytes = offset_bytes - (self._ends[place] - entry.size_bytes)
            part_bytes = min(length_bytes, entry.size_bytes - start_bytes)
            yield Piece(entry, start_bytes, part_bytes)
            offset_bytes, length_bytes, place = offset_bytes + part_bytes, length_bytes - part_bytes, place + 1

    def pack(self) -> bytes:
        return _COUNT.pack(TREE_MAGIC, len(self.entries)) + b"".join(entry.pack() for entry in self.entries)


def mark_of(packed: bytes) -> int:
    """What tells one packed manifest from another, in 8 bytes."""
    return int.from_bytes(hashlib.sha256(packed).digest()[:8], "big")


def parse_manifest(raw: bytes) -> Manifest:
    """Raises PeerFault for what is no manifest, UnsafeName for one with names or links that are not safe."""
    try:
        magic, count = _COUNT.unpack_from(raw)
        if magic != TREE_MAGIC or count > ENTRIES_MAX:
            raise PeerFault("not a list of a directory, or one of too many entries")
        entries, end = [], _COUNT.size
        for _ in range(count):
            entry, end = _take_entry(raw, end)
            entries.append(entry)
    except (struct.error, ValueError):  # ValueError: no UTF-8, no kind
        raise PeerFault("the list of the directory cannot be read") from None
    if end != len(raw):
        raise PeerFault("the list of the directory has another length than it says")
    return Manifest(entries)


def _take_entry(raw: bytes, start: int) -> tuple[Entry, int]:
    kind, mode, modified_ns, size_bytes, path_bytes, target_bytes = _ENTRY.unpack_from(raw, start)
    middle = start + _ENTRY.size + path_bytes
    end = middle + target_bytes
    if end > len(raw):
        raise PeerFault("the list of the directory ends within an entry")
    path, target = raw[start + _ENTRY.size : middle].decode(), raw[middle:end].decode()
    return Entry(Kind(kind), path, mode, modified_ns, size_bytes, target), end


def _check(entries: Sequence[Entry]) -> None:
    if not entries or entries[0].kind is not Kind.DIRECTORY or entries[0].path:
        raise UnsafeName("a list starts with its directory")
    if len(entries) > ENTRIES_MAX:
        raise UnsafeName(f"more than {ENTRIES_MAX} entries", hint="send its subdirectories one by one, or an archive")
    seen, directories = {""}, {""}
    for entry in entries[1:]:
        check_member_path(entry.path)
        if entry.path in seen or entry.path.rpartition("/")[0] not in directories:
            raise UnsafeName(f"{entry.path!r} is listed twice, or before its directory")
        seen.add(entry.path)
        if entry.kind is Kind.DIRECTORY:
            directories.add(entry.path)
        if entry.kind is Kind.LINK:
            check_link(entry.path, entry.target)
    for entry in entries:
        _check_numbers(entry)


def _check_numbers(entry: Entry) -> None:
    sized, aimed = entry.kind is Kind.FILE, entry.kind is Kind.LINK
    if entry.mode & ~MODE_BITS or (entry.size_bytes and not sized) or entry.size_bytes > _SIZE_MAX:
        raise UnsafeName(f"{entry.path!r} has an impossible mode or size")
    if bool(entry.target) is not aimed:
        raise UnsafeName(f"{entry.path!r} has a target where none belongs, or none")
