"""Two byte streams joined: what one end writes the other reads, at the pace of the slower, each direction ended by itself.

Bounded: a side that does not read stops its other side from being read, so at most one read and one write buffer wait for
each direction. A stream that was cut never looks as if it had ended well.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

WRITE_BUFFER_BYTES: Final = 1 << 17
_RESET: Final = struct.pack("ii", 1, 0)


class Leg(asyncio.Protocol):
    """One side of a relay. Bytes that come before the other side stands wait; reading is paused until then."""

    def __init__(self, ready: Callable[[Leg], None] | None = None) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Leg | None = None
        self.bytes_read = 0
        self.ended = False  # the peer of this side writes no more
        self._stuffed = False  # what this side was given waits to be written
        self.lost = asyncio.get_running_loop().create_future()
        self._ready = ready
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.other is None:
            self.transport.pause_reading()
        if self._ready is not None:
            self._ready(self)

    def data_received(self, data: bytes) -> None:
        self.bytes_read += len(data)
        if self.other is None or self.other.transport is None:
            self._early.append(data)
            self._read(False)  # uvloop does not keep to one within connection_made
            return
        self.other.transport.write(data)
        if self.other.transport.get_write_buffer_size() > WRITE_BUFFER_BYTES:
            # uvloop would read on, up to 32 times, before TLS has its turn to encrypt and to say that it has enough
            self._read(False)
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if self.other is not None and not self.other._stuffed:
            self._read(True)

    def eof_received(self) -> bool:
        self.ended = True
        if self.other is not None:
            self._pass_end_on()
        return True

    def _pass_end_on(self) -> None:
        assert self.other is not None
        if self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.write_eof()
        if self.other.ended:  # both directions are done
            for leg in (self, self.other):
                if leg.transport is not None:
                    leg.transport.close()

    def pause_writing(self) -> None:
        self._stuffed = True
        if self.other is not None:
            self.other._read(False)

    def resume_writing(self) -> None:
        self._stuffed = False
        if self.other is not None:
            self.other._read(True)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        other = self.other
        if other is None or other.transport is None or other.transport.is_closing():
            return
        if exc is None and self.ended:
            other.transport.close()
        else:
            other.cut()

    def cut(self) -> None:
        """End it at once, so that its peer sees an error."""
        if self.transport is None or self.lost.done():
            return
        with contextlib.suppress(OSError, RuntimeError):  # uvloop raises the latter where it has just been closed
            if not self.transport.is_closing():
                sock = self.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def _read(self, on: bool) -> None:
        """Read on, or rest; without effect once it is ending."""
        if self.transport is not None and not self.transport.is_closing():
            with contextlib.suppress(RuntimeError):
                (self.transport.resume_reading if on else self.transport.pause_reading)()

    def _let_go(self) -> None:
        """The other side stands: what waited goes on, and reading begins."""
        assert self.other is not None
        early, self._early = self._early, []
        if self.other.transport is not None:
            for data in early:
                self.other.transport.write(data)
        if self.ended:
            self._pass_end_on()
        self._read(True)


def join(one: Leg, two: Leg) -> None:
    """Both have a transport."""
    one.other, two.other = two, one
    one._let_go()
    two._let_go()
