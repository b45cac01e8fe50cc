"""Plain TCP for connectors that bring their own cryptography: blocking sockets with deadlines, made for bulk."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from typing import Final

from keystrand.core.errors import ConfigError, PeerUnavailable

Address = tuple[str, int]
BACKLOG: Final = 64


class TcpStream:
    """One connection. `idle_s` bounds how long a read or write may make no progress (TimeoutError, an OSError).

    The socket stays in blocking mode with kernel timeouts, so that MSG_WAITALL can fill a whole buffer in one call.
    """

    def __init__(self, sock: socket.socket, *, idle_s: float) -> None:
        self._socket = sock
        self._idle_s = idle_s
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.limit_idle(idle_s)

    def limit_idle(self, idle_s: float) -> None:
        self._idle_s = idle_s
        packed = struct.pack("@ll", int(idle_s), int(idle_s % 1 * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, packed)

    @property
    def peer(self) -> str:
        """The other end as text, for logs."""
        try:
            host, port = self._socket.getpeername()[:2]
        except OSError:
            return "closed"
        return f"{host}:{port}"

    def fill(self, view: memoryview, *, deadline_s: float | None = None) -> None:
        """Read exactly `len(view)` bytes. Raises EOFError at an early end, OSError; `deadline_s` is monotonic."""
        done = 0
        flags = socket.MSG_WAITALL if deadline_s is None else 0
        while done < len(view):
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise TimeoutError("the other side is too slow")
            try:
                got = self._socket.recv_into(view[done:], 0, flags)
            except BlockingIOError:
                raise TimeoutError(f"nothing came for {self._idle_s:g} s") from None
            if not got:
                raise EOFError("the other side closed the connection")
            done += got

    def read(self, length_bytes: int, *, deadline_s: float | None = None) -> bytes:
        """Like `fill`, into a new object."""
        buffer = bytearray(length_bytes)
        self.fill(memoryview(buffer), deadline_s=deadline_s)
        return bytes(buffer)

    def write(self, data: bytes | memoryview) -> None:
        """Raises OSError."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                raise TimeoutError(f"the other side took nothing for {self._idle_s:g} s") from None

    def pending(self) -> bool:
        """Whether something to read has come, the end of the stream included."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def half_close(self) -> None:
        """Say that nothing more is written; reading goes on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def drain(self, *, seconds: float) -> None:
        """Throw away what still comes, so that the last words written are not lost to a reset."""
        until_s = time.monotonic() + seconds
        scrap = bytearray(1 << 18)
        with contextlib.suppress(OSError):
            self.limit_idle(max(seconds, 0.01))
            while time.monotonic() < until_s and self._socket.recv_into(scrap):
                pass

    def interrupt(self) -> None:
        """Wake whoever is blocked on this stream, from any thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


def connect(address: Address, *, timeout_s: float, idle_s: float) -> TcpStream:
    """Raises PeerUnavailable."""
    try:
        sock = socket.create_connection(address, timeout=timeout_s)
    except OSError as fault:
        raise PeerUnavailable(
            f"no connection to {address[0]}:{address[1]}: {fault.strerror or fault}",
            hint="is the gateway at the other site running?",
        ) from None
    return TcpStream(sock, idle_s=idle_s)


class TcpListener:
    """Port 0 takes a free one; `port` says which."""

    def __init__(self, address: Address) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._socket = socket.create_server(address, family=family, backlog=BACKLOG)
        except OSError as fault:
            raise ConfigError(
                f"cannot listen on {address[0]}:{address[1]}: {fault.strerror or fault}",
                hint="choose another address or port",
            ) from None
        self.port: int = self._socket.getsockname()[1]

    def accept(self, *, idle_s: float) -> TcpStream:
        """The next connection. Raises OSError once `close` was called."""
        sock, _ = self._socket.accept()
        return TcpStream(sock, idle_s=idle_s)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
