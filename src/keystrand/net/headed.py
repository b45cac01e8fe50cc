"""Messages that bring a header of their own, over mutual TLS: as net.frames, where another standard says how long they are."""

from __future__ import annotations

from collections.abc import Callable

from keystrand.core.limits import Limits
from keystrand.net.frames import FrameParser, FrameServer, FrameStream, Handler, serve_streams
from keystrand.net.tls import ServerSide, TlsContexts, TlsPeer
from keystrand.net.tls_transport import connect_tls

Measure = Callable[[bytes], int]  # a header -> length of the whole message; raises PeerFault where that is too much


class HeadedParser(FrameParser):
    """Bytes in, whole messages out, headers included. Holds at most one in the making, and none that is too long."""

    def __init__(self, header_bytes: int, measure: Measure) -> None:
        super().__init__(0)
        self._header_bytes = header_bytes
        self._measure = measure
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        messages = []
        while len(self._buffer) >= self._header_bytes:
            whole = self._measure(bytes(self._buffer[: self._header_bytes]))
            if len(self._buffer) < whole:
                break
            messages.append(bytes(self._buffer[:whole]))
            del self._buffer[:whole]
        return messages

    @property
    def is_between_frames(self) -> bool:
        return not self._buffer


class HeadedStream(FrameStream):
    """One connection; `read` and `write` whole messages."""

    def __init__(
        self, header_bytes: int, measure: Measure, accepted: Callable[[FrameStream], None] | None = None
    ) -> None:
        super().__init__(0, accepted)
        self._parser = HeadedParser(header_bytes, measure)

    def _framed(self, frame: bytes) -> bytes:
        return frame  # it has its header


async def serve_headed(
    listen: tuple[str, int],
    contexts: ServerSide,
    handler: Handler,
    *,
    header_bytes: int,
    measure: Measure,
    allow: Callable[[TlsPeer], bool],
    limits: Limits,
    connections_max: int = 256,
) -> FrameServer:
    """Serve each peer that `allow` lets in by one task of `handler`. Raises ConfigError where the address cannot be had."""
    server = FrameServer(handler, connections_max)

    def made(admit: Callable[[FrameStream], None]) -> HeadedStream:
        return HeadedStream(header_bytes, measure, admit)

    await serve_streams(server, listen, contexts, made, allow=allow, limits=limits)
    return server


async def connect_headed(
    host: str,
    port: int,
    contexts: TlsContexts,
    *,
    header_bytes: int,
    measure: Measure,
    expect: tuple[str | None, str],
    limits: Limits,
) -> HeadedStream:
    """Connect to `expect` (kind, name) at `host`. Raises NotPermitted, PeerUnavailable or PeerFault."""
    stream = HeadedStream(header_bytes, measure)
    await connect_tls(host, port, contexts, stream, expect=expect, limits=limits)
    return stream
