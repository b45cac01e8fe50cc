"""Frames over a stream: four bytes of length, big endian, then the frame. Over mutual TLS, or plain where the
protocol above authenticates itself (the classical channel between QKD modules).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, cast

from keystrand.core.errors import ConfigError, KeystrandError, PeerFault, PeerUnavailable, Unavailable
from keystrand.core.limits import Limits
from keystrand.net.gate import Gate
from keystrand.net.tls import ServerSide, TlsContexts, TlsPeer
from keystrand.net.tls_transport import CLOSE_GRACE_S, PEER, accepting, connect_tls

HEADER_BYTES: Final = 4
BUFFERED_BYTES_MAX: Final = 1 << 20  # beyond one frame: reading pauses when whole frames of this size wait
HANDSHAKES_MAX: Final = 128  # at a time, beyond the connections that a server has
_PARTS_MAX: Final = 1024  # a frame that comes byte by byte must not cost an object for each
_FRAME_COST_BYTES: Final = 128  # so that a flood of empty frames counts, too

Handler = Callable[["FrameStream"], Awaitable[None]]


class FrameParser:
    """Bytes in, frames out. Holds at most one frame in the making. Raises PeerFault for a frame beyond the limit."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._parts: list[bytes] = []  # of the frame in the making; joined once, when all of it is there
        self._have_bytes = 0
        self._need_bytes = HEADER_BYTES

    def feed(self, data: bytes) -> list[bytes]:
        self._parts.append(data)
        self._have_bytes += len(data)
        if self._have_bytes < self._need_bytes:
            if len(self._parts) >= _PARTS_MAX:
                self._parts = [b"".join(self._parts)]
            return []
        buffer = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        frames, start = [], 0
        while len(buffer) - start >= (need := self._whole_bytes(buffer, start)):
            frames.append(buffer[start + HEADER_BYTES : start + need])
            start += need
        rest = buffer[start:]
        self._parts, self._have_bytes, self._need_bytes = [rest], len(rest), need
        return frames

    @property
    def is_between_frames(self) -> bool:
        return not self._have_bytes

    def _whole_bytes(self, buffer: bytes, start: int) -> int:
        """Length of the frame at `start` with its header; of the header alone while that is not there yet."""
        if len(buffer) - start < HEADER_BYTES:
            return HEADER_BYTES
        length = int.from_bytes(buffer[start : start + HEADER_BYTES], "big")
        if length > self._frame_bytes_max:
            raise PeerFault(f"a frame of {length} bytes is over the limit of {self._frame_bytes_max}")
        return HEADER_BYTES + length


class FrameStream(asyncio.Protocol):
    """One connection. One reader and one writer at a time; `peer` is known over TLS only."""

    def __init__(self, frame_bytes_max: int, accepted: Callable[[FrameStream], None] | None = None) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._accepted = accepted
        self._parser = FrameParser(frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._can_write = asyncio.Event()
        self._lost = asyncio.Event()
        self._can_write.set()

    @property
    def tls_peer(self) -> TlsPeer | None:
        """The other end as TLS knows it; None over plain TCP."""
        return None if self._transport is None else self._transport.get_extra_info(PEER)

    @property
    def peer(self) -> TlsPeer:
        """The other end. Raises PeerFault over plain TCP, where nobody vouches for it."""
        found = self.tls_peer
        if found is None:
            raise PeerFault("a plain channel does not know its peer")
        return found

    @property
    def address(self) -> str:
        """host:port of the other end, for logs."""
        name = self._transport and self._transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    async def read(self) -> bytes:
        """The next frame. Raises PeerUnavailable at the end of the stream, PeerFault for what is no frame."""
        while not self._frames:
            if self._failure is not None:
                raise self._failure
            await self._more()
        frame = self._frames.popleft()
        self._waiting_bytes -= len(frame) + _FRAME_COST_BYTES
        if self._paused and self._waiting_bytes < BUFFERED_BYTES_MAX // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return frame

    def write(self, frame: bytes) -> None:
        """Queue one frame. Raises PeerUnavailable once the stream is down. Follow up with `drain`."""
        wire = self._framed(frame)
        if self._transport is None or self._transport.is_closing():
            raise self._failure or PeerUnavailable("the stream is closed")
        self._transport.write(wire)

    async def drain(self) -> None:
        """Wait until the peer has taken enough of what was written. Raises PeerUnavailable if the stream is down."""
        # a turn of the loop lets what was written reach the socket, which then says whether it is full
        await asyncio.sleep(0)
        await self._can_write.wait()
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Send what is queued, then end. Never raises for a peer that is gone."""
        if self._transport is None:
            return
        self._transport.close()
        try:
            async with asyncio.timeout(CLOSE_GRACE_S):
                await self._lost.wait()
        except TimeoutError:
            self._transport.abort()

    async def closed(self) -> None:
        """Wait until the connection is gone, whoever ended it."""
        await self._lost.wait()

    @property
    def frame_bytes_max(self) -> int:
        return self._frame_bytes_max

    @property
    def unsent_bytes(self) -> int:
        """What was written and the other end has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """End at once; what is queued is lost."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._accepted is not None:
            self._accepted(self)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._parser.feed(data)
        except PeerFault as problem:
            self._end(problem)
            self.abort()
            return
        self._frames.extend(frames)
        self._waiting_bytes += sum(map(len, frames)) + _FRAME_COST_BYTES * len(frames)
        if self._waiting_bytes >= BUFFERED_BYTES_MAX and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if frames:
            self._wake()

    def eof_received(self) -> bool:
        self._end(self._end_of_stream())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc if isinstance(exc, KeystrandError) else self._end_of_stream())
        self._can_write.set()
        self._lost.set()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    # within ---------------------------------------------------------------------------------------------------------

    def _framed(self, frame: bytes) -> bytes:
        assert len(frame) <= self._frame_bytes_max, "a frame of ours is over the limit"
        return len(frame).to_bytes(HEADER_BYTES, "big") + frame

    def _end_of_stream(self) -> PeerUnavailable:
        whole = self._parser.is_between_frames
        return PeerUnavailable("the peer ended the stream" if whole else "the stream ended within a frame")

    def _end(self, why: Exception) -> None:
        self._failure = self._failure or why
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _more(self) -> None:
        assert self._reader is None, "two readers on one stream"
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None


class FrameServer:
    """A listening socket and the handlers of its connections. `port` is the one in use, also where 0 was asked for."""

    def __init__(self, handler: Handler, connections_max: int) -> None:
        self._handler = handler
        self._connections_max = connections_max
        self._tasks: dict[asyncio.Task[None], FrameStream] = {}
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def gate(self) -> Gate:
        """Nobody but a few at a time in a handshake, and three quarters of the places at most for one holder."""
        share = max(1, 3 * self._connections_max // 4)
        return Gate(connections_max=self._connections_max + HANDSHAKES_MAX, per_holder_max=share)

    async def close(self) -> None:
        """Stop listening, cancel the handlers, and wait for them."""
        assert self._server is not None
        self._server.close()
        for task, stream in list(self._tasks.items()):
            task.cancel()
            stream.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # let the transports tell their protocols: nothing of this server runs any more after this
        await asyncio.sleep(0)

    async def listen(self, host: str, port: int, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        try:
            self._server = await asyncio.get_running_loop().create_server(factory, host, port)
        except OSError as problem:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {problem.strerror}", hint="is the port in use?"
            ) from None

    def welcome(self, stream: FrameStream) -> None:
        """Start the handler of a new stream, unless there are too many."""
        if len(self._tasks) >= self._connections_max:
            stream.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._tasks[task] = stream
        task.add_done_callback(self._gone)

    async def _serve(self, stream: FrameStream) -> None:
        try:
            await self._handler(stream)
        except Unavailable:
            pass  # the peer hung up, which is how streams end; or the site cannot serve it, and has said so
        finally:
            await stream.close()

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            context = {"message": "a frame handler failed", "exception": problem, "task": task}
            asyncio.get_running_loop().call_exception_handler(context)


async def serve_frames(
    listen: tuple[str, int],
    contexts: TlsContexts,
    handler: Handler,
    *,
    allow: Callable[[TlsPeer], bool],
    limits: Limits,
    frame_bytes_max: int | None = None,
    connections_max: int = 64,
) -> FrameServer:
    """Serve each peer that `allow` lets in by one task of `handler`; the stream closes when it returns.

    Raises ConfigError where the address cannot be had.
    """
    size = frame_bytes_max or limits.peer_frame_bytes_max
    server = FrameServer(handler, connections_max)
    await serve_streams(server, listen, contexts, lambda admit: FrameStream(size, admit), allow=allow, limits=limits)
    return server


async def serve_streams(
    server: FrameServer,
    listen: tuple[str, int],
    contexts: ServerSide,
    made: Callable[[Callable[[FrameStream], None]], FrameStream],
    *,
    allow: Callable[[TlsPeer], bool],
    limits: Limits,
) -> None:
    """Let `server` listen for mutual TLS. made: the stream of a new connection, which is admitted once it stands."""

    def admit(stream: FrameStream) -> None:
        if allow(stream.peer):
            server.welcome(stream)
            return
        reason = f"{stream.peer.identity} has no business here"
        contexts.emit("tls.refused", reason=reason, address=stream.address)
        stream.abort()

    gate = server.gate()

    def factory() -> asyncio.BaseProtocol:
        return accepting(contexts, limits, made(admit), gate)

    await server.listen(*listen, factory)


async def connect_frames(
    host: str,
    port: int,
    contexts: TlsContexts,
    *,
    expect: tuple[str | None, str],
    limits: Limits,
    frame_bytes_max: int | None = None,
) -> FrameStream:
    """Connect to `expect` (kind, name) at `host`. Raises NotPermitted, PeerUnavailable or PeerFault."""
    stream = FrameStream(frame_bytes_max or limits.peer_frame_bytes_max)
    await connect_tls(host, port, contexts, stream, expect=expect, limits=limits)
    return stream


async def serve_plain_frames(
    listen: tuple[str, int], handler: Handler, *, frame_bytes_max: int, connections_max: int = 8
) -> FrameServer:
    """Without TLS: the protocol above must authenticate what it reads. Raises ConfigError as serve_frames."""
    server = FrameServer(handler, connections_max)
    await server.listen(*listen, lambda: FrameStream(frame_bytes_max, server.welcome))
    return server


async def connect_plain_frames(host: str, port: int, *, frame_bytes_max: int, timeout_s: float = 10.0) -> FrameStream:
    """Without TLS. Raises PeerUnavailable if nobody answers."""
    stream = FrameStream(frame_bytes_max)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(lambda: stream, host, port)
    except (OSError, TimeoutError) as problem:
        raise PeerUnavailable(f"{host}:{port} does not answer: {str(problem) or 'timed out'}") from None
    return stream
