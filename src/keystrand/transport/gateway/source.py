"""What is sent: a file, a directory or a stream, read from any offset on where it can be read again."""

from __future__ import annotations

import io
import os
import select
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from keystrand.core.errors import BadRequest
from keystrand.transport.gateway.digest import Readable
from keystrand.transport.gateway.frames import SIZE_BYTES_MAX
from keystrand.transport.gateway.manifest import MANIFEST_BYTES_MAX, Manifest, mark_of
from keystrand.transport.gateway.names import check_file_name
from keystrand.transport.gateway.tree import TreeReader


class Source(Protocol):
    """size_bytes: None where it is not known; head_bytes, mark: see `Details`; resumable: whether it can be read again;
    spent: whether it was read and cannot be."""

    name: str
    size_bytes: int | None
    head_bytes: int
    mark: int
    resumable: bool
    spent: bool

    def open_at(self, offset_bytes: int) -> Readable:
        """Raises OSError."""

    def ready(self, timeout_s: float) -> bool:
        """Whether a read would answer at once, waiting `timeout_s` for that."""


class FileSource:
    """A regular file."""

    head_bytes = 0
    resumable = True
    spent = False

    def __init__(self, path: Path, name: str | None = None) -> None:
        """Raises BadRequest where there is nothing to read or no name that is safe."""
        try:
            status = path.stat()
            readable = path.is_file() and os.access(path, os.R_OK)
        except OSError as fault:
            raise BadRequest(f"cannot read {path}: {fault.strerror}") from None
        if not readable:
            raise BadRequest(f"{path} is not a readable file", hint="pass a stream for pipes and devices")
        self._path = path
        self.name = check_file_name(name or path.name)
        self.size_bytes: int | None = status.st_size
        self.mark = status.st_mtime_ns % 2**64

    def open_at(self, offset_bytes: int) -> Readable:
        file = self._path.open("rb", buffering=0)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        file.seek(offset_bytes)
        return file

    def ready(self, timeout_s: float) -> bool:
        return True


class TreeSource:
    """A directory whose list was made: nothing of it may change until it is sent."""

    resumable = True
    spent = False

    def __init__(self, folder: Path, manifest: Manifest, name: str | None = None) -> None:
        """Raises BadRequest where the directory's name is not safe or there is too much in it."""
        self._folder, self._manifest, self._head = folder, manifest, manifest.pack()
        self.name = check_file_name(name or folder.resolve().name)
        self.head_bytes = len(self._head)
        self.size_bytes: int | None = self.head_bytes + manifest.body_bytes
        self.mark = mark_of(self._head)
        if self.head_bytes > MANIFEST_BYTES_MAX or self.size_bytes > SIZE_BYTES_MAX:
            raise BadRequest("the directory has too much in it", hint="send its subdirectories one by one")

    def open_at(self, offset_bytes: int) -> Readable:
        return TreeReader(self._folder, self._manifest, self._head, offset_bytes, strict=True)

    def ready(self, timeout_s: float) -> bool:
        return True


class StreamSource:
    """An open binary stream, which is read once; `open_at` does not close it."""

    size_bytes: int | None = None
    head_bytes = 0
    mark = 0
    resumable = False

    def __init__(self, stream: BinaryIO, name: str | None = None) -> None:
        self._stream: Any = getattr(stream, "raw", stream)  # past Python's buffer, so that waiting sees what there is
        self.name = check_file_name(name or "stream")
        self.spent = False

    def open_at(self, offset_bytes: int) -> Readable:
        self.spent = True
        return self

    def readinto(self, view: memoryview) -> int | None:
        got: int | None = self._stream.readinto(view)
        return got

    def close(self) -> None:
        """The stream belongs to who opened it."""

    def ready(self, timeout_s: float) -> bool:
        try:
            poll = select.poll()
            poll.register(self._stream, select.POLLIN)
        except (io.UnsupportedOperation, TypeError):  # no descriptor behind it, so it is never silent
            return True
        return bool(poll.poll(1000 * timeout_s))
