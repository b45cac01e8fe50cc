"""TLS over a blocking socket, for threads."""

from __future__ import annotations

import socket
import time
from typing import Final

from keystrand.core.errors import KeystrandError, PeerUnavailable
from keystrand.core.limits import Limits
from keystrand.net.tls import TlsContexts, TlsPeer
from keystrand.net.tls_engine import TlsEngine

# less than any server keeps an idle connection, so that a request does not run into its close
IDLE_S: Final = 30.0
_READ_BYTES: Final = 65_536


def authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class BlockingStream:
    """A TLS connection over a blocking socket; every wait ends at `deadline_s` (monotonic)."""

    def __init__(self, host: str, port: int, engine: TlsEngine, timeout_s: float) -> None:
        self.deadline_s = time.monotonic() + timeout_s
        self.idle_since_s = time.monotonic()
        self._engine = engine
        self._early = b""  # plaintext that came with the end of the handshake
        try:
            self._socket = socket.create_connection((host, port), timeout_s)
        except OSError as problem:
            raise PeerUnavailable(f"{authority(host, port)} does not answer: {problem}") from None
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._shake_hands()
        except BaseException:
            self._socket.close()
            raise

    def is_fresh(self) -> bool:
        """Idle for not too long, and the server has not said goodbye meanwhile."""
        if time.monotonic() - self.idle_since_s > IDLE_S or self._engine.finished:
            return False
        self._socket.settimeout(0)
        try:
            wire = self._socket.recv(_READ_BYTES)
            return bool(wire) and not self._engine.receive(wire) and not self._engine.finished
        except BlockingIOError:
            return True
        except (OSError, KeystrandError):
            return False

    def fileno(self) -> int:
        """Of the socket, to ask the kernel about it."""
        return self._socket.fileno()

    def write(self, plaintext: bytes) -> None:
        self._engine.send(plaintext)
        self._push()

    def read(self) -> bytes:
        """Some plaintext; empty at the end. Raises PeerUnavailable for a cut or at the deadline."""
        if self._early:
            plaintext, self._early = self._early, b""
            return plaintext
        while not self._engine.finished:
            plaintext = self._engine.receive(self._pull())
            if plaintext:
                return plaintext
        return b""

    def close(self) -> None:
        try:
            self._engine.close()
            self.deadline_s = time.monotonic() + 1.0
            self._push()
        except PeerUnavailable:
            pass  # it is gone already, and so are we
        finally:
            self._socket.close()

    def _shake_hands(self) -> None:
        self._engine.start()
        self._push()
        while self._engine.peer is None:
            try:
                self._early = self._engine.receive(self._pull())
            finally:
                self._push()

    def _pull(self) -> bytes:
        try:
            self._socket.settimeout(max(self.deadline_s - time.monotonic(), 0.001))
            wire = self._socket.recv(_READ_BYTES)
        except OSError as problem:
            raise PeerUnavailable(f"no answer: {problem}") from None
        if not wire:
            raise PeerUnavailable("the connection was cut")
        return wire

    def _push(self) -> None:
        wire = self._engine.outgoing()
        try:
            self._socket.settimeout(max(self.deadline_s - time.monotonic(), 0.001))
            self._socket.sendall(wire)
        except OSError as problem:
            raise PeerUnavailable(f"the server hung up: {problem}") from None


class KeptStream:
    """Where to dial, and the connection to there, which is kept while it is fresh. `expect`: (kind, name) of the server.

    For one thread at a time. handshake_s: how long connecting may take; tries: how often, where nobody answers.
    """

    def __init__(
        self,
        host: str,
        port: int,
        contexts: TlsContexts,
        *,
        expect: tuple[str | None, str],
        limits: Limits,
        handshake_s: float,
        tries: int = 1,
    ) -> None:
        self._host, self._port, self._contexts, self._expect = host, port, contexts, expect
        self._limits, self._handshake_s, self._tries = limits, handshake_s, tries
        self._stream: BlockingStream | None = None
        self.authority = authority(host, port)
        self.peer: TlsPeer | None = None  # of the newest connection

    def ready(self, timeout_s: float) -> BlockingStream:
        """The connection, for an exchange of `timeout_s`. Raises PeerUnavailable, NotPermitted, PeerFault."""
        if self._stream is None or not self._stream.is_fresh():
            self.drop()
            self._stream = self._dialled()
        self._stream.deadline_s = time.monotonic() + timeout_s
        return self._stream

    def drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _dialled(self) -> BlockingStream:
        for _ in range(self._tries - 1):
            try:
                return self._open()
            except PeerUnavailable:
                pass
        return self._open()

    def _open(self) -> BlockingStream:
        engine = TlsEngine(
            self._contexts.client_connection(self._host),
            lambda connection: self._contexts.connected(connection, self._host, self._expect),
            handshake_bytes_max=self._limits.tls_handshake_bytes_max,
        )
        stream = BlockingStream(self._host, self._port, engine, self._handshake_s)
        self.peer = engine.peer
        return stream
