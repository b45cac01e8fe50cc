"""TLS as an asyncio transport: a protocol towards the socket, a transport towards the application's protocol."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from OpenSSL import SSL

from keystrand.core.errors import KeystrandError, NotPermitted, PeerUnavailable
from keystrand.core.limits import Limits
from keystrand.net.gate import Gate
from keystrand.net.tls import ClientSide, ServerSide, TlsPeer
from keystrand.net.tls_engine import TlsEngine

CLOSE_GRACE_S: Final = 5.0  # for what is still to be sent, and then for the peer to read it
PEER: Final = "keystrand.tls"  # extra info: the TlsPeer
REVIEW_S: Final = 5.0  # how often an open connection is held against the files of today

Ready = Callable[["TlsTransport"], None]
Refused = Callable[[KeystrandError], None]
Review = Callable[[SSL.Connection, TlsPeer], None]


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The application's protocol hears connection_made only after the handshake, with the peer known and vetted.

    Writes of one turn of the event loop leave as one record. `refused` hears why there was no connection, and why an open
    one was ended by `review`, which raises where the peer would not be let in any more. gate: where it is counted.
    """

    def __init__(
        self,
        engine: TlsEngine,
        protocol: asyncio.Protocol,
        *,
        handshake_timeout_s: float,
        refused: Refused,
        review: Review,
        gate: Gate | None = None,
        start: bool = False,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._protocol: asyncio.BaseProtocol = protocol
        self._handshake_timeout_s = handshake_timeout_s
        self._refused = refused
        self._review = review
        self._gate = gate
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._socket: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._reviewing: asyncio.TimerHandle | None = None
        self._plain: list[bytes] = []
        self._made = False
        self._closing = False
        self._eof_written = False
        self._paused = False
        self._lost_by: Exception | None = None

    # towards the socket -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        if self._closing:  # ended before it began
            self._socket.abort()
            return
        _send_at_once(transport)
        self._deadline = self._loop.call_later(self._handshake_timeout_s, self._too_slow)
        if self._start:
            self._engine.start()
            self._push()

    def data_received(self, data: bytes) -> None:
        engine = self._engine
        try:
            plaintext = engine.receive(data)
        except KeystrandError as problem:
            self._fail(problem)
            return
        if not self._made:
            self._push()
            if engine.peer is None:
                return
            if not self._begin():
                return
        if plaintext and not self._closing:
            cast(asyncio.Protocol, self._protocol).data_received(plaintext)
        if engine.finished:
            self._peer_finished()

    def eof_received(self) -> bool:
        if self._made and not self._engine.finished:
            # without close_notify the end may be an attacker's cut: an error for whoever waits for more
            self._fail(PeerUnavailable("the connection was cut"))
        elif not self._made:
            self._fail(PeerUnavailable("the connection ended within the TLS handshake"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        if self._reviewing is not None:
            self._reviewing.cancel()
        if self._gate is not None:
            self._gate.leave(self)
        self._closing = True
        self._plain.clear()
        if self._made:
            self._made = False
            self._protocol.connection_lost(self._lost_by or exc)
        elif self._lost_by is None:
            self._lost_by = PeerUnavailable("the connection ended within the TLS handshake")
            self._refused(self._lost_by)

    def pause_writing(self) -> None:
        if self._made:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._made:
            self._protocol.resume_writing()

    # towards the application --------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing or self._eof_written or not data:
            return
        if not self._plain:
            self._loop.call_soon(self._flush)
        self._plain.append(data if isinstance(data, bytes) else bytes(data))

    def write_eof(self) -> None:
        """Half-close: close_notify goes out, reading goes on."""
        if self._eof_written or self._closing:
            return
        self._flush()
        self._eof_written = True
        self._engine.close()
        self._push()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        """Send what was written, say close_notify, then end; cut after CLOSE_GRACE_S if the peer does not read."""
        if self._closing or self._socket is None:
            return
        self._flush()
        if self._closing:  # the flush failed
            return
        self._closing = True
        if not self._eof_written:
            self._engine.close()
            self._push()
        self._cancel_deadline()
        self._deadline = self._loop.call_later(CLOSE_GRACE_S, self._socket.abort)
        self._socket.close()

    def abort(self) -> None:
        self._closing = True
        self._plain.clear()
        if self._socket is not None:
            self._socket.abort()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        if self._socket is not None and not self._paused and not self._closing:
            self._paused = True
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        if self._socket is not None and self._paused and not self._closing:
            self._paused = False
            self._socket.resume_reading()

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == PEER:
            return self._engine.peer
        if name == "sslcontext":  # how others ask whether this is TLS
            return self._engine
        return default if self._socket is None else self._socket.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        waiting = sum(map(len, self._plain))
        return waiting + (self._socket.get_write_buffer_size() if self._socket else 0)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._socket is not None:
            self._socket.set_write_buffer_limits(high, low)

    # within ---------------------------------------------------------------------------------------------------------

    @property
    def peer(self) -> TlsPeer:
        assert self._engine.peer is not None
        return self._engine.peer

    def _begin(self) -> bool:
        self._cancel_deadline()
        if self._gate is not None and not self._gate.know(self, str(self.peer.identity)):
            self._fail(NotPermitted(f"{self.peer.identity} has too many connections"))
            return False
        self._made = True
        self._reviewing = self._loop.call_later(REVIEW_S, self._look_again)
        self._protocol.connection_made(self)
        return True

    def _look_again(self) -> None:
        try:
            self._engine.review(self._review)
        except KeystrandError as problem:
            self._lost_by = self._lost_by or problem
            self._refused(problem)
            self.abort()
        else:
            self._reviewing = self._loop.call_later(REVIEW_S, self._look_again)

    def _flush(self) -> None:
        if not self._plain or self._closing:
            return
        plaintext = self._plain[0] if len(self._plain) == 1 else b"".join(self._plain)
        self._plain.clear()
        try:
            self._engine.send(plaintext)
        except KeystrandError as problem:
            self._fail(problem)
        else:
            self._push()

    def _push(self) -> None:
        wire = self._engine.outgoing()
        if wire and self._socket is not None and not self._socket.is_closing():
            self._socket.write(wire)

    def _peer_finished(self) -> None:
        if self._closing:
            return
        keep_open = cast(asyncio.Protocol, self._protocol).eof_received()
        if not keep_open:
            self.close()

    def _fail(self, problem: KeystrandError) -> None:
        if self._lost_by is None and not self._made:
            self._refused(problem)
        self._lost_by = self._lost_by or problem
        self._push()  # the alert, if OpenSSL made one
        self._closing = True
        self._plain.clear()
        if self._socket is not None:
            self._cancel_deadline()
            self._deadline = self._loop.call_later(CLOSE_GRACE_S, self._socket.abort)
            self._socket.close()

    def _too_slow(self) -> None:
        problem = PeerUnavailable(f"no TLS handshake within {self._handshake_timeout_s:g} s")
        self._lost_by = problem
        self._refused(problem)
        self.abort()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def accepting(
    contexts: ServerSide, limits: Limits, protocol: asyncio.Protocol, gate: Gate | None = None
) -> asyncio.BaseProtocol:
    """The server's end of one new connection, to be returned from a protocol factory. gate: may have no place for it."""
    engine = TlsEngine(
        contexts.server_connection(), contexts.accepted, handshake_bytes_max=limits.tls_handshake_bytes_max
    )

    def refused(problem: KeystrandError) -> None:
        contexts.emit("tls.refused", reason=str(problem), address=_address(transport))

    transport = TlsTransport(
        engine,
        protocol,
        handshake_timeout_s=limits.tls_handshake_timeout_s,
        refused=refused,
        review=contexts.review,
        gate=gate,
    )
    return transport if gate is None or gate.enter(transport) else Refusal()


class Refusal(asyncio.Protocol):
    """What a connection over the limit gets: nothing. Cheaper than a handshake, which is the point."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


async def connect_tls(
    host: str,
    port: int,
    contexts: ClientSide,
    protocol: asyncio.Protocol,
    *,
    expect: tuple[str | None, str],
    limits: Limits,
) -> TlsTransport:
    """Connect, shake hands, and check that the server is `expect` (kind, name) and certified for `host`.

    Raises NotPermitted (who it is, who we are), PeerUnavailable (nobody, or too slow), PeerFault (no TLS).
    """
    loop = asyncio.get_running_loop()
    made: asyncio.Future[None] = loop.create_future()
    engine = TlsEngine(
        contexts.client_connection(host),
        lambda connection: contexts.connected(connection, host, expect),
        handshake_bytes_max=limits.tls_handshake_bytes_max,
    )
    # a refusal and our own time-out may both come; the first counts
    transport = TlsTransport(
        engine,
        _Introduction(protocol, made),
        handshake_timeout_s=limits.tls_handshake_timeout_s,
        refused=lambda problem: None if made.done() else made.set_exception(problem),
        review=contexts.review,
        start=True,
    )
    await _dial(host, port, transport, timeout_s=limits.tls_handshake_timeout_s)
    try:
        await made
    except asyncio.CancelledError:
        transport.abort()
        raise
    return transport


class _Introduction(asyncio.Protocol):
    """Stands in for the application's protocol until the handshake is done."""

    def __init__(self, protocol: asyncio.Protocol, made: asyncio.Future[None]) -> None:
        self._inner = protocol
        self._done = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(TlsTransport, transport).set_protocol(self._inner)
        self._inner.connection_made(transport)
        if not self._done.done():
            self._done.set_result(None)


async def _dial(host: str, port: int, protocol: asyncio.BaseProtocol, *, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(lambda: protocol, host, port)
    except (OSError, TimeoutError) as problem:
        raise PeerUnavailable(f"{host}:{port} does not answer: {str(problem) or 'timed out'}") from None


def _send_at_once(transport: asyncio.BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _address(transport: TlsTransport) -> str:
    address = transport.get_extra_info("peername")
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else ""
