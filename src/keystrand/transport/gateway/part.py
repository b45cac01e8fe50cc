"""Where a content lies while it comes in: one file, or a directory that grows from its list."""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

from keystrand.core.errors import NotPermitted, Unavailable
from keystrand.core.files import sync_folder
from keystrand.transport.gateway.digest import Readable
from keystrand.transport.gateway.frames import Details
from keystrand.transport.gateway.manifest import MANIFEST_BYTES_MAX, Entry, Kind, Manifest, parse_manifest
from keystrand.transport.gateway.names import UnsafeName
from keystrand.transport.gateway.tree import TreeReader

_WRITE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class NameTaken(NotPermitted):
    """The final name exists and overwriting was not allowed."""

    hint = "move it away, send under another name, or let the receiver overwrite"


class Part(Protocol):
    """All may raise OSError. Lanes write from their own threads, each its own span."""

    def holds(self, durable_bytes: int) -> bool:
        """Whether what was durable is still here; `durable_bytes` is the end of the last of it, 0 for nothing."""

    def open(self, *, listed: bool) -> None:
        """Make ready to be written; `listed`: the head is durable already."""

    def await_list(self, wait_s: float) -> None:
        """Wait until bytes beyond the head can be placed. Raises Unavailable."""

    def write(self, lane: int, offset_bytes: int, view: memoryview) -> None: ...
    def sync(self) -> None: ...
    def open_at(self, offset_bytes: int) -> Readable: ...

    def place(self, final: Path, *, overwrite: bool) -> None:
        """Give the whole its final name in one step; as if done, where it was done. Raises NameTaken."""

    def close(self) -> None: ...
    def discard(self) -> None: ...


def write_all(handle: int, view: memoryview, offset_bytes: int) -> None:
    while view:
        done = os.pwrite(handle, view, offset_bytes)
        view, offset_bytes = view[done:], offset_bytes + done


class FilePart:
    """`path` becomes the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1

    def holds(self, durable_bytes: int) -> bool:
        return not durable_bytes or (self._path.exists() and self._path.stat().st_size >= durable_bytes)

    def open(self, *, listed: bool) -> None:
        self._handle = os.open(self._path, _WRITE, 0o600)

    def await_list(self, wait_s: float) -> None:
        """A file has none."""

    def write(self, lane: int, offset_bytes: int, view: memoryview) -> None:
        write_all(self._handle, view, offset_bytes)

    def sync(self) -> None:
        os.fdatasync(self._handle)

    def open_at(self, offset_bytes: int) -> Readable:
        file = self._path.open("rb", buffering=0)
        file.seek(offset_bytes)
        return file

    def place(self, final: Path, *, overwrite: bool) -> None:
        if not self._path.exists():
            return
        if overwrite and not self._linked(final):
            self._path.replace(final)
        else:
            try:
                os.link(self._path, final, follow_symlinks=False)
            except FileExistsError:
                if not self._linked(final):
                    raise NameTaken(f"{final.name} is there already") from None
            self._path.unlink()
        sync_folder(final.parent)

    def _linked(self, final: Path) -> bool:
        return final.exists() and final.samefile(self._path)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)


class TreePart:
    """`path` becomes the directory; its list lies beside it until then.

    While it grows nobody else sees it and it holds no symbolic link: those are made last, so that no write can follow one.
    """

    def __init__(self, path: Path, details: Details) -> None:
        if details.head_bytes > MANIFEST_BYTES_MAX:
            raise UnsafeName("the list of the directory is too long")
        self._path = path
        self._list_path = path.with_suffix(".list")
        self._head_bytes = details.head_bytes
        self._root = self._list = -1
        self._manifest: Manifest | None = None
        self._listed = threading.Event()
        self._open_files: dict[int, tuple[str, int]] = {}  # by lane

    def holds(self, durable_bytes: int) -> bool:
        if not durable_bytes:
            return True
        return self._path.is_dir() and self._list_path.exists() and self._list_path.stat().st_size >= self._head_bytes

    def open(self, *, listed: bool) -> None:
        self._path.mkdir(mode=0o700, exist_ok=True)
        self._root = os.open(self._path, _FOLDER)
        self._list = os.open(self._list_path, _WRITE, 0o600)
        if listed:
            self._known()

    def await_list(self, wait_s: float) -> None:
        if not self._listed.wait(wait_s):
            raise Unavailable("the list of the directory does not come")

    def write(self, lane: int, offset_bytes: int, view: memoryview) -> None:
        if offset_bytes < self._head_bytes:
            head, view = view[: self._head_bytes - offset_bytes], view[self._head_bytes - offset_bytes :]
            write_all(self._list, head, offset_bytes)
            offset_bytes += len(head)
        if offset_bytes >= self._head_bytes:
            self._write_body(lane, offset_bytes - self._head_bytes, view)

    def _write_body(self, lane: int, offset_bytes: int, view: memoryview) -> None:
        for piece in self._known().pieces(offset_bytes, len(view)):
            part, view = view[: piece.length_bytes], view[piece.length_bytes :]
            write_all(self._file(lane, piece.entry.path), part, piece.offset_bytes)

    def _file(self, lane: int, path: str) -> int:
        opened = self._open_files.get(lane)
        if opened is not None:
            if opened[0] == path:
                return opened[1]
            os.close(opened[1])
            del self._open_files[lane]
        handle = os.open(path, _WRITE, 0o600, dir_fd=self._root)
        self._open_files[lane] = path, handle
        return handle

    def _known(self) -> Manifest:
        """The list, once it is whole: then its directories and empty files are made, too. Raises UnsafeName, PeerFault."""
        if self._manifest is None:
            manifest = _read_list(self._list_path, self._head_bytes)
            for entry in manifest.entries[1:]:
                self._make(entry)
            self._manifest = manifest
            self._listed.set()
        return self._manifest

    def _make(self, entry: Entry) -> None:
        if entry.kind is Kind.DIRECTORY:
            try:
                os.mkdir(entry.path, 0o700, dir_fd=self._root)
            except FileExistsError:  # from before a crash
                return
        elif entry.kind is Kind.FILE and not entry.size_bytes:
            os.close(os.open(entry.path, _WRITE, 0o600, dir_fd=self._root))

    def sync(self) -> None:
        sync_filesystem(self._root)

    def open_at(self, offset_bytes: int) -> Readable:
        return _PartReader(self._path, self._list_path, self._head_bytes, offset_bytes)

    def place(self, final: Path, *, overwrite: bool) -> None:
        if self._path.exists():
            if os.path.lexists(final) and not overwrite:
                raise NameTaken(f"{final.name} is there already")
            manifest = self._manifest or _read_list(self._list_path, self._head_bytes)
            self._finish(manifest)
            if os.path.lexists(final):
                self._set_aside(final)
            self._path.rename(final)
            top = manifest.entries[0]
            os.chmod(final, top.mode)
            os.utime(final, ns=(top.modified_ns, top.modified_ns))
            sync_folder(final.parent)
        self._list_path.unlink(missing_ok=True)

    def _finish(self, manifest: Manifest) -> None:
        """Links, modes and times; a directory after what is in it, as each change of a member changes its time."""
        self._close_files()
        root = os.open(self._path, _FOLDER)
        try:
            for entry in reversed(manifest.entries[1:]):
                _finish_entry(root, entry)
            sync_filesystem(root)
        finally:
            os.close(root)

    def _set_aside(self, final: Path) -> None:
        old = self._path.with_suffix(".old")
        final.rename(old)
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()

    def _close_files(self) -> None:
        for _, handle in self._open_files.values():
            os.close(handle)
        self._open_files.clear()

    def close(self) -> None:
        self._close_files()
        for handle in (self._root, self._list):
            if handle >= 0:
                os.close(handle)
        self._root = self._list = -1

    def discard(self) -> None:
        if self._path.exists():
            shutil.rmtree(self._path)
        self._list_path.unlink(missing_ok=True)


def _read_list(path: Path, head_bytes: int) -> Manifest:
    """Raises UnsafeName, PeerFault."""
    return parse_manifest(path.read_bytes()[:head_bytes])


class _PartReader:
    """Reads what is there of a directory that comes in: its list first, of which nothing is known until it is whole."""

    def __init__(self, path: Path, list_path: Path, head_bytes: int, offset_bytes: int) -> None:
        self._path, self._list_path, self._head_bytes = path, list_path, head_bytes
        self._offset_bytes = offset_bytes
        self._list = list_path.open("rb", buffering=0)
        self._body: TreeReader | None = None

    def readinto(self, view: memoryview) -> int:
        if self._offset_bytes < self._head_bytes:
            self._list.seek(self._offset_bytes)
            got = self._list.readinto(view[: self._head_bytes - self._offset_bytes])
        else:
            got = self._after_the_list().readinto(view)
        self._offset_bytes += got
        return got

    def _after_the_list(self) -> TreeReader:
        if self._body is None:
            manifest = _read_list(self._list_path, self._head_bytes)
            self._body = TreeReader(self._path, manifest, b"", self._offset_bytes - self._head_bytes, strict=False)
        return self._body

    def close(self) -> None:
        self._list.close()
        if self._body is not None:
            self._body.close()


def _finish_entry(root: int, entry: Entry) -> None:
    if entry.kind is Kind.LINK:
        if not _is_link(root, entry.path):
            os.symlink(entry.target, entry.path, dir_fd=root)
    else:
        os.chmod(entry.path, entry.mode, dir_fd=root)
    times = (entry.modified_ns, entry.modified_ns)
    os.utime(entry.path, ns=times, dir_fd=root, follow_symlinks=False)


def _is_link(root: int, path: str) -> bool:
    try:
        os.readlink(path, dir_fd=root)
    except FileNotFoundError:
        return False
    return True


def part_of(path: Path, details: Details) -> Part:
    """`path` has no suffix yet."""
    if details.head_bytes:
        return TreePart(path.with_suffix(".tree"), details)
    return FilePart(path.with_suffix(".part"))


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def sync_filesystem(handle: int) -> None:
    """One syncfs(2) for all files of a tree: an fsync of each would cost more than sending them. Raises OSError."""
    if _libc().syncfs(handle):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
