"""The SAE's side of ETSI GS QKD 004 V2.1.1: three calls over one mutual TLS connection to its own KME."""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from keystrand.core.errors import PeerFault, PeerUnavailable
from keystrand.core.limits import Limits
from keystrand.net.headed import HeadedStream, connect_headed
from keystrand.net.tls import TlsContexts
from keystrand.wire import etsi004 as wire
from keystrand.wire.etsi004 import (
    Answer,
    Chunk,
    Close,
    Closed,
    Framing,
    GetKey,
    OpenConnect,
    Opened,
    Qos,
    Request,
    Status,
)

GRACE_S: Final = 10.0  # for an answer, beyond the Timeout that the KME may use up
METADATA_BYTES_MAX: Final = 1024


class KeyStreams:
    """A connection to a KME. One call at a time; others wait their turn.

    Every call raises PeerUnavailable when the KME does not answer, PeerFault when it answers something else; the connection
    is closed then. What the call itself came to is its status.
    """

    def __init__(self, stream: HeadedStream, framing: Framing = Framing.FORGE) -> None:
        self._stream = stream
        self._framing = framing
        self._turn = asyncio.Lock()
        self._timeout_s = GRACE_S

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        contexts: TlsContexts,
        *,
        kme_id: str,
        limits: Limits,
        framing: Framing = Framing.FORGE,
    ) -> KeyStreams:
        """Raises NotPermitted, PeerUnavailable or PeerFault."""
        stream = await connect_headed(
            host,
            port,
            contexts,
            header_bytes=wire.HEADER_BYTES,
            measure=lambda header: wire.message_bytes(header, wire.ANSWER_BYTES_MAX),
            expect=("kme", kme_id),
            limits=limits,
        )
        return cls(stream, framing)

    async def open_connect(self, source: str, destination: str, qos: Qos, ksid: UUID | None = None) -> Opened:
        """Open an end, or join a stream that the other SAE has opened. Source and destination are URIs of SAEs."""
        self._timeout_s = GRACE_S + qos.timeout_ms / 1000
        answer = await self._call(OpenConnect(source=source, destination=destination, qos=qos, ksid=ksid))
        if not isinstance(answer, Opened):
            raise self._mistaken("OPEN_CONNECT")
        return answer

    async def get_key(self, ksid: UUID, index: int, metadata_bytes_max: int = METADATA_BYTES_MAX) -> Chunk:
        """The chunk at `index`; its material is the caller's, to wipe."""
        answer = await self._call(GetKey(ksid=ksid, index=index, metadata_bytes_max=metadata_bytes_max))
        if not isinstance(answer, Chunk):
            raise self._mistaken("GET_KEY")
        return answer

    async def close_stream(self, ksid: UUID) -> Status:
        """CLOSE this end of a stream; the connection stays."""
        answer = await self._call(Close(ksid))
        if not isinstance(answer, Closed):
            raise self._mistaken("CLOSE")
        return answer.status

    async def close(self) -> None:
        """End the connection. Streams stay open at the KME."""
        await self._stream.close()

    def _mistaken(self, call: str) -> PeerFault:
        self._stream.abort()  # whatever comes next would be taken for the answer to another call
        return PeerFault(f"the KME answers something else than {call}")

    async def _call(self, request: Request) -> Answer:
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout_s):
                    self._stream.write(wire.print_request(self._framing, request))
                    await self._stream.drain()
                    return wire.parse_answer(await self._stream.read())
            except TimeoutError:
                self._stream.abort()
                raise PeerUnavailable("the KME does not answer in time") from None
            except (PeerFault, asyncio.CancelledError):
                self._stream.abort()
                raise
