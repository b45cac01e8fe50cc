"""What is sent: a file or a stream, read ahead by a thread, and hashed where that is wanted."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from keystrand.core.errors import BadRequest, Unavailable
from keystrand.transport.gateway.digest import ContentDigest
from keystrand.transport.gateway.inbox import check_file_name
from keystrand.transport.gateway.ports import GatewayLimits


class Content:
    """The bytes to send: a file, which can be read again, or a stream, which cannot."""

    def __init__(self, source: Path | BinaryIO, name: str | None) -> None:
        """Raises BadRequest where there is nothing to read or no name that is safe."""
        self.path = source if isinstance(source, Path) else None
        self._stream = None if isinstance(source, Path) else source
        self.size_bytes: int | None = None
        self.modified_ns = 0
        if self.path is not None:
            self._look(self.path)
        self.name = check_file_name(name or (self.path.name if self.path else "stream"))
        self.digest = ContentDigest()
        self.touched = False  # once a reader was started

    def _look(self, path: Path) -> None:
        try:
            status = path.stat()
            readable = path.is_file() and os.access(path, os.R_OK)
        except OSError as fault:
            raise BadRequest(f"cannot read {path}: {fault.strerror}") from None
        if not readable:
            raise BadRequest(f"{path} is not a readable file", hint="pass a stream for pipes and devices")
        self.size_bytes, self.modified_ns = status.st_size, status.st_mtime_ns

    @property
    def resumable(self) -> bool:
        return self.path is not None

    def open(self, offset_bytes: int, *, hashed: bool) -> BinaryIO:
        """A reader from `offset_bytes` on, with everything before it hashed if `hashed`. Raises OSError, EOFError."""
        if self._stream is not None:
            return self._stream
        assert self.path is not None
        if hashed:
            self.digest.catch_up(self.path, offset_bytes)
        file = self.path.open("rb", buffering=0)
        file.seek(offset_bytes)
        return file

    def close(self, reader: BinaryIO) -> None:
        if reader is not self._stream:
            reader.close()


Chunk = tuple[bytearray, int]


class Reader:
    """Reads ahead, and hashes if `hashed`: `queue_chunks` buffers at most. A fault ends the queue and is raised by `take`."""

    def __init__(self, content: Content, offset_bytes: int, limits: GatewayLimits, *, hashed: bool) -> None:
        self._content = content
        content.touched = True
        self._offset_bytes = offset_bytes
        self._hashed = hashed
        self._free: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[Chunk | BaseException] = queue.SimpleQueue()
        for _ in range(limits.queue_chunks):
            self._free.put(bytearray(limits.chunk_bytes))
        self._thread = threading.Thread(target=self._run, name="gateway-reader", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            reader = self._content.open(self._offset_bytes, hashed=self._hashed)
            try:
                self._read(reader)
            finally:
                self._content.close(reader)
        except BaseException as fault:  # carried to the thread that waits for the bytes
            self._full.put(fault)

    def _read(self, reader: BinaryIO) -> None:
        fill: Callable[[memoryview], int | None] = getattr(reader, "readinto1", None) or reader.readinto  # type: ignore[attr-defined]
        offset_bytes = self._offset_bytes
        while (buffer := self._free.get()) is not None:
            view = memoryview(buffer)
            got = fill(view) or 0
            if self._hashed:
                self._content.digest.update(offset_bytes, view[:got])
            offset_bytes += got
            self._full.put((buffer, got))
            if not got:
                return

    def take(self, timeout_s: float) -> Chunk | None:
        """The next buffer and its length, 0 at the end; None when nothing came in time. Raises the reader's fault."""
        try:
            item = self._full.get(timeout=max(timeout_s, 0.001))
        except queue.Empty:
            return None
        if isinstance(item, OSError | EOFError):
            raise Unavailable(f"the source cannot be read: {item}", hint="send again when it can")
        if isinstance(item, BaseException):
            raise item
        return item

    def give_back(self, buffer: bytearray) -> None:
        self._free.put(buffer)

    def stop(self) -> None:
        """A reader that is blocked on a silent stream ends with the process."""
        self._free.put(None)
        if self._content.resumable:
            self._thread.join()
