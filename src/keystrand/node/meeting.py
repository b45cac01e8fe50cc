"""Where the two modules of a link meet: one end listens, the other connects, as often as it takes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from keystrand.net.frames import FrameServer, FrameStream, connect_plain_frames, serve_plain_frames

# Classical messages hold a few blobs of wire.classical.BLOB_BYTES_MAX at most.
FRAME_BYTES_MAX = 16_000_000


class Frames(Protocol):
    """What a module needs of a connection."""

    async def read(self) -> bytes: ...
    def write(self, frame: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    async def close(self) -> None: ...


class Meeting(Protocol):
    """A place to get the next connection to the other end."""

    async def meet(self) -> Frames: ...
    async def close(self) -> None: ...


class Dialling:
    """Connects. `meet` raises PeerUnavailable where nobody answers."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def meet(self) -> Frames:
        return await connect_plain_frames(self._host, self._port, frame_bytes_max=FRAME_BYTES_MAX)

    async def close(self) -> None:
        """Nothing to give back."""


class Listening:
    """Accepts. Whoever connects last is the other end: a connection that waits unused is stale and dropped."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[FrameStream] = asyncio.Queue()
        self._server: FrameServer | None = None

    async def listen(self, host: str, port: int) -> None:
        """Raises ConfigError where the address cannot be had."""
        self._server = await serve_plain_frames((host, port), self._arrive, frame_bytes_max=FRAME_BYTES_MAX)

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.port

    async def meet(self) -> Frames:
        stream = await self._waiting.get()
        while not self._waiting.empty():
            stream.abort()
            stream = self._waiting.get_nowait()
        return stream

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _arrive(self, stream: FrameStream) -> None:
        # The server closes a stream when its handler returns, so stay until the one who took it is done with it.
        self._waiting.put_nowait(stream)
        await stream.closed()
