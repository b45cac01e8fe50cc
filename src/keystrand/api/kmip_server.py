"""KMIP over mutual TLS: TTLV messages on a stream, one after the other on each connection.

What a client can hold is bounded before it is known who it is: connections (handshakes included), bytes of a message,
the time that a message may take to come, and the time that an answer may take to be read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from keystrand.api.kmip import ManagedObjects
from keystrand.api.kmip_operations import Responder
from keystrand.core.clock import SystemClock
from keystrand.core.errors import ConfigError, PeerFault
from keystrand.core.events import Sink
from keystrand.core.identity import Identity
from keystrand.core.limits import Limits
from keystrand.net.gate import Gate
from keystrand.net.tls import TlsContexts, TlsPeer
from keystrand.net.tls_transport import TlsTransport, accepting
from keystrand.wire.kmip_names import Tag
from keystrand.wire.kmip_ttlv import CAPS, Caps, MessageParser


@dataclass(frozen=True, slots=True, kw_only=True)
class KmipLimits:
    """What the edge spends on its clients."""

    connections_max: int = 256  # handshakes included
    connections_per_caller_max: int = 32
    idle_timeout_s: float = 300.0
    message_timeout_s: float = 10.0  # from its first byte to its last
    answer_timeout_s: float = 30.0  # to work out, and again to be read
    caps: Caps = CAPS


class _Connection(asyncio.Protocol):
    """One connection whose client is known. Reading pauses while a message waits for its answer."""

    def __init__(self, server: KmipServer, limits: KmipLimits) -> None:
        self._server = server
        self._limits = limits
        self._parser = MessageParser(Tag.REQUEST_MESSAGE, limits.caps)
        self._waiting: deque[bytes] = deque()
        self._transport: TlsTransport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self._can_write = asyncio.Event()
        self._can_write.set()
        self.fault: PeerFault | None = None
        self.is_over = False

    @property
    def peer(self) -> TlsPeer:
        assert self._transport is not None
        return self._transport.peer

    async def read(self) -> bytes | None:
        """The next message; None once the stream is over or broken."""
        while not self._waiting:
            if self.is_over or self.fault is not None:
                return None
            self._news.clear()
            self._resume()
            await self._news.wait()
        return self._waiting.popleft()

    async def write(self, wire: bytes) -> None:
        """Raises TimeoutError where the client does not read."""
        if self._transport is None or self.is_over:
            return
        self._transport.write(wire)
        await asyncio.sleep(0)  # a turn of the loop lets it reach the socket, which then says whether it is full
        async with asyncio.timeout(self._limits.answer_timeout_s):
            await self._can_write.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(TlsTransport, transport)
        self._server.welcome(self)

    def data_received(self, data: bytes) -> None:
        was_between = self._parser.is_between_messages
        try:
            self._waiting.extend(self._parser.feed(data))
        except PeerFault as problem:
            self.fault = problem
        if self._waiting or self.fault is not None:
            self._limit(None)
            if self._transport is not None:
                self._transport.pause_reading()
            self._news.set()
        elif was_between:
            self._limit(self._limits.message_timeout_s)

    def eof_received(self) -> bool:
        self._finish()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit(None)
        self._finish()
        self._can_write.set()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    # within -----------------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        is_idle = self._parser.is_between_messages
        self._limit(self._limits.idle_timeout_s if is_idle else self._limits.message_timeout_s)
        if self._transport is not None:
            self._transport.resume_reading()

    def _limit(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self.abort)

    def _finish(self) -> None:
        self.is_over = True
        self._news.set()


class KmipServer:
    """A listening socket and its connections. `port` is the one in use, also where 0 was asked for."""

    def __init__(
        self,
        responder: Responder,
        contexts: TlsContexts,
        allow: Callable[[TlsPeer], bool],
        limits: Limits,
        kmip_limits: KmipLimits,
    ) -> None:
        self._responder = responder
        self._contexts = contexts
        self._allow = allow
        self._limits = limits
        self._kmip = kmip_limits
        self._gate = Gate(
            connections_max=kmip_limits.connections_max, per_holder_max=kmip_limits.connections_per_caller_max
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """Connections now, those in a handshake included."""
        return len(self._gate)

    async def listen(self, host: str, port: int) -> None:
        try:
            self._server = await asyncio.get_running_loop().create_server(self._accept, host, port)
        except OSError as problem:
            hint = "is the port in use?"
            raise ConfigError(f"cannot listen on {host}:{port}: {problem.strerror}", hint=hint) from None

    async def close(self) -> None:
        """Stop listening, end what is open, and wait for it."""
        assert self._server is not None
        self._server.close()
        self._gate.cut_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # let the transports tell their protocols

    def welcome(self, connection: _Connection) -> None:
        """Serve a connection whose client is known, unless it has no business here."""
        peer = connection.peer
        if not self._allow(peer):
            self._contexts.emit("tls.refused", reason=f"{peer.identity} has no business here")
            connection.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _accept(self) -> asyncio.BaseProtocol:
        return accepting(self._contexts, self._limits, _Connection(self, self._kmip), self._gate)

    async def _serve(self, connection: _Connection) -> None:
        caller = connection.peer.identity
        try:
            await self._talk(connection, caller)
        except TimeoutError:
            connection.abort()
        finally:
            connection.close()

    async def _talk(self, connection: _Connection, caller: Identity) -> None:
        while (message := await connection.read()) is not None:
            async with asyncio.timeout(self._kmip.answer_timeout_s):
                answer = await self._responder.answer(caller, message)
            await connection.write(answer.wire)
            if answer.is_last:
                return
        if connection.fault is not None:
            await connection.write(self._responder.refuse(str(connection.fault)).wire)


def is_sae(peer: TlsPeer) -> bool:
    """SAEs own keys; where certificates state no kind, their authority vouches for it."""
    return peer.identity.kind in ("sae", None)


async def serve_kmip(
    listen: tuple[str, int],
    contexts: TlsContexts,
    objects: ManagedObjects,
    *,
    sink: Sink,
    limits: Limits,
    kmip_limits: KmipLimits | None = None,
) -> KmipServer:
    """Serve `objects` to SAEs. Raises ConfigError where the address cannot be had."""
    kmip = kmip_limits or KmipLimits()
    responder = Responder(objects, sink=sink, clock=SystemClock(), caps=kmip.caps)
    server = KmipServer(responder, contexts, is_sae, limits, kmip)
    await server.listen(*listen)
    return server
