"""Length-prefixed frames over a stream: how KMEs and modules talk.

A frame is a 32-bit big-endian length and that many bytes. `connect_frames` and `serve_frames` put it over mutual TLS;
the plain variants are for the two ends of a QKD module pair, which authenticate every message themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from keystrand.core.errors import ConfigError, NotPermitted, PeerFault, PeerUnavailable
from keystrand.core.limits import Limits
from keystrand.net.tls import TlsContexts, TlsPeer, check_peer
from keystrand.net.tls_transport import HIGH_WATER, TlsProtocol

HEADER_BYTES: Final = 4
CONNECT_TIMEOUT_S: Final = 10.0


class FrameStream(asyncio.Protocol):
    """One connection. `read` and `drain` wait; `write` does not. `peer` is None on a plain connection."""

    def __init__(self, peer: TlsPeer | None, limits: Limits) -> None:
        self.peer = peer
        self._max = limits.peer_frame_bytes_max
        self._transport: asyncio.Transport | None = None
        self._reader = asyncio.StreamReader(limit=HIGH_WATER)
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._reader.set_transport(transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._reader.feed_eof()
        self._writable.set()
        self._closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # frames

    async def read(self) -> bytes:
        """The next frame. Raises PeerUnavailable at the end of the stream, PeerFault for a frame that is too long."""
        try:
            length = int.from_bytes(await self._reader.readexactly(HEADER_BYTES), "big")
            if length > self._max:
                await self.close()
                raise PeerFault(f"frame of {length} bytes, at most {self._max} are allowed")
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise PeerUnavailable("the connection is closed") from None

    def write(self, frame: bytes) -> None:
        """Queue a frame. Raises PeerUnavailable when the connection is gone."""
        if self._transport is None or self._transport.is_closing():
            raise PeerUnavailable("the connection is closed")
        assert len(frame) <= self._max
        self._transport.write(len(frame).to_bytes(HEADER_BYTES, "big") + frame)

    async def drain(self) -> None:
        """Wait until the other side keeps up."""
        await self._writable.wait()
        if self._closed.is_set():
            raise PeerUnavailable("the connection is closed")

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), 1.0)

    @property
    def closed(self) -> bool:
        return self._closed.is_set()


Handler = Callable[[FrameStream], Awaitable[None]]


class FrameServer:
    """A listening socket and the tasks of its connections."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def begin(self, stream: FrameStream, handler: Handler) -> None:
        """Serve one connection in a task of its own."""

        async def serve() -> None:
            try:
                await handler(stream)
            except (PeerUnavailable, PeerFault, NotPermitted, ConnectionError):
                pass  # the handler has told whoever must know; the connection is over
            finally:
                await stream.close()

        task = asyncio.create_task(serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def listen(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
        try:
            self._server = await asyncio.get_running_loop().create_server(factory, host, port)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Serving(FrameStream):
    """A served connection: its handler begins when it stands."""

    def __init__(self, peer: TlsPeer | None, limits: Limits, server: FrameServer, handler: Handler) -> None:
        super().__init__(peer, limits)
        self._server = server
        self._handler = handler

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.begin(self, self._handler)


async def serve_frames(
    host: str,
    port: int,
    contexts: TlsContexts,
    handler: Handler,
    *,
    allow: Callable[[TlsPeer], bool],
    limits: Limits,
    refused: Callable[[str, str], None] = lambda reason, address: None,
) -> FrameServer:
    """Serve mutual TLS connections from peers that `allow` accepts; `refused` hears of the others and why."""
    server = FrameServer()

    def accept(peer: TlsPeer) -> asyncio.Protocol:
        if not allow(peer):
            raise NotPermitted(f"{peer.identity.kind} {peer.identity.name} may not connect here")
        return _Serving(peer, limits, server, handler)

    await server.listen(lambda: TlsProtocol(contexts.server(), contexts.policy, limits, accept, refused), host, port)
    return server


async def serve_plain_frames(host: str, port: int, handler: Handler, *, limits: Limits) -> FrameServer:
    """As `serve_frames`, in clear and without identities."""
    server = FrameServer()
    await server.listen(lambda: _Serving(None, limits, server, handler), host, port)
    return server


async def connect_frames(
    host: str, port: int, contexts: TlsContexts, *, expect: tuple[str, str], limits: Limits
) -> FrameStream:
    """Connect by mutual TLS to `expect` (kind, name). Raises PeerUnavailable or NotPermitted."""
    opened: asyncio.Future[FrameStream] = asyncio.get_running_loop().create_future()

    def accept(peer: TlsPeer) -> asyncio.Protocol:
        check_peer(peer, *expect)
        stream = FrameStream(peer, limits)
        if not opened.done():
            opened.set_result(stream)
        return stream

    def refused(reason: str, address: str) -> None:
        if not opened.done():
            opened.set_exception(NotPermitted(f"{host}:{port}: {reason}"))

    await _open(
        lambda: TlsProtocol(contexts.client(host), contexts.policy, limits, accept, refused, host=host), host, port
    )
    stream = await opened
    return stream


async def connect_plain_frames(host: str, port: int, *, limits: Limits) -> FrameStream:
    """As `connect_frames`, in clear and without identities."""
    stream = FrameStream(None, limits)
    await _open(lambda: stream, host, port)
    return stream


async def _open(factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.get_running_loop().create_connection(factory, host, port)
    except (OSError, TimeoutError) as error:
        raise PeerUnavailable(f"cannot reach {host}:{port}: {error or 'timed out'}") from None
