"""Ways for lines to leave: blocking, called from one thread of their own, and honest about what "written" means.

file: appended and synced to the disk. fifo: in the pipe, where its reader can have it. unix, tcp-tls: the collector has said
so; or, without acknowledgements, taken over by its host: no byte is left in our socket's queue, which for a Unix socket means
read, for TCP acknowledged by the other kernel. syslog-tls (RFC 5425 has no acknowledgement) is the latter.

Everything raises OSError or KeystrandError. Whatever failed is closed, and opened anew before the next line.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import stat
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from keystrand.net.blocking import BlockingStream

TAIL_BYTES: Final = 262_144
IO_S: Final = 0.5  # for each step of a socket or a pipe; a file takes as long as its disk
POLL_S: Final = 0.002
PORTION_LINES: Final = 64  # their answers fit any socket's buffer

Tail = tuple[int, str]  # the last record that is there: number, head in hexadecimal


class Way(Protocol):
    """Where lines go."""

    def open(self) -> Tail | None: ...  # what is there already, where that can be told
    def write(self, lines: list[bytes], last: int) -> None: ...  # with their ends; `last`: number of the last record
    def close(self) -> None: ...  # idempotent


class FileWay:
    """Appends to a regular file of mode 0600. A line that was cut off, or that no sync vouches for, is cut away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._inode = 0
        self._durable_bytes = -1  # of this inode, by the last sync that worked; -1: not known

    def open(self) -> Tail | None:
        self.close()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._file = os.open(self.path, flags, 0o600)
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(f"{self.path} is not a regular file")
        if found.st_ino != self._inode:
            self._inode, self._durable_bytes = found.st_ino, -1
        size = self._cut(found.st_size)
        return self._tail(size)

    def _cut(self, size: int) -> int:
        """Drop what was not synced, and half a line. Where the file only ever grows, end the half line instead."""
        good = size if self._durable_bytes < 0 else min(size, self._durable_bytes)
        last = os.pread(self._file, min(TAIL_BYTES, good), max(0, good - TAIL_BYTES))
        if last and not last.endswith(b"\n"):
            good -= len(last) - (last.rfind(b"\n") + 1)
        if good < size:
            try:
                os.ftruncate(self._file, good)
            except PermissionError:  # append-only
                self._write(b"\n")
                good = os.fstat(self._file).st_size
            os.fsync(self._file)
        self._durable_bytes = good
        return good

    def _tail(self, size: int) -> Tail | None:
        block = os.pread(self._file, TAIL_BYTES, max(0, size - TAIL_BYTES))
        for line in reversed(block.splitlines()):
            with contextlib.suppress(msgspec.MsgspecError, KeyError, TypeError, UnicodeDecodeError):
                fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
                return msgspec.json.decode(fields["n"], type=int), msgspec.json.decode(fields["head"], type=str)
        return None

    def write(self, lines: list[bytes], last: int) -> None:
        if self._moved():
            self.open()
        self._write(b"".join(lines))
        os.fdatasync(self._file)
        self._durable_bytes = os.fstat(self._file).st_size

    def _moved(self) -> bool:
        """Somebody rotates our file: it is another one now, or none."""
        try:
            return os.stat(self.path).st_ino != self._inode
        except FileNotFoundError:
            return True

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)


class FifoWay:
    """Writes to a named pipe that somebody reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pipe = -1
        self._is_torn = False

    def open(self) -> Tail | None:
        self.close()
        self._pipe = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        if not stat.S_ISFIFO(os.fstat(self._pipe).st_mode):
            raise FileNotFoundError(f"{self.path} is not a named pipe")
        return None

    def write(self, lines: list[bytes], last: int) -> None:
        data = memoryview((b"\n" if self._is_torn else b"") + b"".join(lines))
        until_s = time.monotonic() + IO_S
        while data:
            try:
                written = os.write(self._pipe, data)
            except BlockingIOError:
                written = 0
                self._wait(until_s)
            data = data[written:]
            self._is_torn = bool(data) and (self._is_torn or written > 0)

    def _wait(self, until_s: float) -> None:
        if not select.select([], [self._pipe], [], max(0.0, until_s - time.monotonic()))[1]:
            raise TimeoutError(f"nobody reads {self.path}")

    def close(self) -> None:
        if self._pipe >= 0:
            pipe, self._pipe = self._pipe, -1
            os.close(pipe)


class UnixWay:
    """A stream socket of this machine."""

    def __init__(self, path: Path, *, acknowledged: bool) -> None:
        self.path = path
        self._acknowledged = acknowledged
        self._socket: socket.socket | None = None

    def open(self) -> Tail | None:
        self.close()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(IO_S)
        self._socket.connect(str(self.path))
        return None

    def write(self, lines: list[bytes], last: int) -> None:
        line = self._socket
        assert line is not None, "opened first"
        line.settimeout(IO_S)
        for part, number in _portions(lines, last):
            line.sendall(part)
            if self._acknowledged:
                _await_number(lambda: line.recv(4096), number, time.monotonic() + IO_S)
        if not self._acknowledged:
            _await_taken(line.fileno(), time.monotonic() + IO_S)

    def close(self) -> None:
        if self._socket is not None:
            line, self._socket = self._socket, None
            line.close()


class TlsWay:
    """A TLS connection that `dial` makes."""

    def __init__(self, dial: Callable[[], BlockingStream], *, acknowledged: bool) -> None:
        self._dial = dial
        self._acknowledged = acknowledged
        self._stream: BlockingStream | None = None

    def open(self) -> Tail | None:
        self.close()
        self._stream = self._dial()
        return None

    def write(self, lines: list[bytes], last: int) -> None:
        if self._stream is None or not self._stream.is_fresh():
            self.open()
        stream = self._stream
        assert stream is not None
        for part, number in _portions(lines, last):
            until_s = stream.deadline_s = time.monotonic() + IO_S
            stream.idle_since_s = time.monotonic()
            stream.write(part)
            if self._acknowledged:
                _await_number(stream.read, number, until_s)
        if not self._acknowledged:
            _await_taken(stream.fileno(), time.monotonic() + IO_S)

    def close(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()


def _portions(lines: list[bytes], last: int) -> Iterator[tuple[bytes, int]]:
    """Bytes of a few lines, and the number of the last of them. A collector that answers each line must not have to wait for
    us to read its answers while we wait for it to read our lines.
    """
    first = last - len(lines) + 1
    for at in range(0, len(lines), PORTION_LINES):
        part = lines[at : at + PORTION_LINES]
        yield b"".join(part), first + at + len(part) - 1


def _await_number(receive: Callable[[], bytes], last: int, until_s: float) -> None:
    """Until the collector's latest line is the number of the last record."""
    got = b""
    while time.monotonic() < until_s:
        part = receive()
        if not part:
            raise ConnectionError("the collector has hung up")
        got = (got + part)[-256:]
        whole = got.rpartition(b"\n")[0].rpartition(b"\n")[2].strip()
        if whole == str(last).encode():
            return
    raise TimeoutError(f"the collector has not acknowledged record {last}")


def _await_taken(descriptor: int, until_s: float) -> None:
    """Until the other side's kernel has all bytes (Linux: SIOCOUTQ)."""
    left = array.array("i", [0])
    while True:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, left, True)
        if left[0] == 0:
            return
        if time.monotonic() >= until_s:
            raise TimeoutError(f"{left[0]} bytes have not been taken over")
        time.sleep(POLL_S)
