"""A directory as one content: listing it, and reading the list and the files behind it from any offset on."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from keystrand.core.errors import BadRequest
from keystrand.transport.gateway.manifest import MODE_BITS, Entry, Kind, Manifest
from keystrand.transport.gateway.names import check_link

Symlinks = Literal["keep", "skip"]
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO put in a file's place must not block


def list_tree(folder: Path, *, symlinks: Symlinks, skipped: Callable[[str], None]) -> Manifest:
    """The manifest of `folder`. A link that leads out of it is refused, or told to `skipped` like every link under "skip".

    Raises BadRequest, also for devices, sockets and pipes, which cannot be sent; OSError.
    """
    top = folder.stat()
    if not stat.S_ISDIR(top.st_mode):
        raise BadRequest(f"{folder} is not a directory")
    entries = [Entry(Kind.DIRECTORY, "", top.st_mode & MODE_BITS, top.st_mtime_ns)]
    waiting = [""]
    while waiting:
        above = waiting.pop()
        for item in _members(folder, above):
            path = f"{above}/{item.name}" if above else item.name
            entry = _entry(item, path)
            if entry.kind is Kind.LINK and symlinks == "skip":
                skipped(path)
                continue
            if entry.kind is Kind.LINK:
                _check_kept(path, entry.target)
            if entry.kind is Kind.DIRECTORY:
                waiting.append(path)
            entries.append(entry)
    return Manifest(entries)


def _members(folder: Path, above: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder / above) as items:
        return sorted(items, key=lambda item: item.name)


def _entry(item: os.DirEntry[str], path: str) -> Entry:
    status = item.stat(follow_symlinks=False)
    mode, modified_ns = status.st_mode & MODE_BITS, status.st_mtime_ns
    if stat.S_ISREG(status.st_mode):
        return Entry(Kind.FILE, path, mode, modified_ns, status.st_size)
    if stat.S_ISDIR(status.st_mode):
        return Entry(Kind.DIRECTORY, path, mode, modified_ns)
    if stat.S_ISLNK(status.st_mode):
        return Entry(Kind.LINK, path, MODE_BITS, modified_ns, target=os.readlink(item.path))
    raise BadRequest(f"{path!r} is a device, socket or pipe", hint="move it out of the directory, then send again")


def _check_kept(path: str, target: str) -> None:
    try:
        check_link(path, target)
    except BadRequest as fault:
        raise BadRequest(str(fault), hint="leave symbolic links out: --symlinks skip") from None


class TreeReader:
    """Reads `head` and then the files of `manifest` under `root`, as one run of bytes from `offset_bytes` on.

    `strict`: a file whose size or time is not the listed one is refused (BadRequest), so that a directory that changes
    underneath is not sent half old, half new.
    """

    def __init__(self, root: Path, manifest: Manifest, head: bytes, offset_bytes: int, *, strict: bool) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._manifest = manifest
        self._head = head
        self._offset_bytes = offset_bytes
        self._strict = strict
        self._open: tuple[str, int] | None = None

    def readinto(self, view: memoryview) -> int:
        """Fills `view`, but at the end of the content. Raises OSError, EOFError where a file is shorter than listed."""
        done = 0
        if self._offset_bytes < len(self._head):
            part = self._head[self._offset_bytes : self._offset_bytes + len(view)]
            view[: len(part)] = part
            done = len(part)
        start_bytes = self._offset_bytes + done - len(self._head)
        for piece in self._manifest.pieces(start_bytes, len(view) - done):
            self._fill(self._file(piece.entry), view[done : done + piece.length_bytes], piece.offset_bytes)
            done += piece.length_bytes
        self._offset_bytes += done
        return done

    def _file(self, entry: Entry) -> int:
        if self._open is not None and self._open[0] == entry.path:
            return self._open[1]
        self._close_file()
        handle = os.open(entry.path, _READ, dir_fd=self._root)
        self._open = entry.path, handle
        status = os.fstat(handle)
        same = stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (
            entry.size_bytes,
            entry.modified_ns,
        )
        if self._strict and not same:
            raise BadRequest(f"{entry.path!r} changed while it was sent", hint="send again when nothing writes to it")
        return handle

    @staticmethod
    def _fill(handle: int, view: memoryview, offset_bytes: int) -> None:
        while view:
            got = os.preadv(handle, [view], offset_bytes)
            if not got:
                raise EOFError("a file is shorter than it was")
            view, offset_bytes = view[got:], offset_bytes + got

    def _close_file(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def close(self) -> None:
        self._close_file()
        os.close(self._root)
