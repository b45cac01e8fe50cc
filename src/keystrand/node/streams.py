"""The stream service that the API edge sees: each call becomes operations of the engine, and waits happen here.

The logic answers at once, with what is so now; a call whose stream grants it time asks again until something has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import UUID

from keystrand.core.errors import KeystrandError
from keystrand.kme.service import Kme
from keystrand.kme.stream import Streams
from keystrand.kme.streaming import StreamingKme
from keystrand.node.engine import Engine
from keystrand.wire.etsi004 import Chunk, Opened, Qos, Status

POLL_S: Final = 0.02  # about the time that two KMEs need to agree


class EngineStreams:
    """Satisfies api.etsi004.StreamService. The engine's service must be a StreamingKme."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def open_connect(
        self, identity: str, source: str, destination: str, qos: Qos, ksid: UUID | None, /
    ) -> Opened:
        """An SAE that names the stream waits for the other one as long as its Timeout says; status 6 leaves no end open."""
        named = str(ksid) if ksid else None
        other = destination if identity == source else source

        def attempt(kme: Kme) -> tuple[Opened, bool]:
            streams = streams_of(kme)
            was_open = named is not None and streams.has_end(identity, named)
            return streams.open_connect(identity, source, destination, qos, named), was_open

        note = _note("OPEN_CONNECT", identity, other)
        opened, was_open = await self._engine.call(attempt, refused=note)
        if named is None or not qos.timeout_ms:
            return opened
        deadline_s = self._now_s() + qos.timeout_ms / 1000
        while opened.status is Status.PEER_NOT_CONNECTED and self._now_s() < deadline_s:
            await asyncio.sleep(POLL_S)
            opened, _ = await self._engine.call(attempt, refused=note)
        if opened.status is not Status.PEER_NOT_CONNECTED:
            return opened
        if not was_open:
            await self.close(identity, UUID(named))
        return replace(opened, status=Status.TIMEOUT)

    async def get_key(self, identity: str, ksid: UUID, index: int, metadata_bytes_max: int, /) -> Chunk:
        named, began_s = str(ksid), self._now_s()

        def attempt(kme: Kme) -> tuple[Chunk, bool, float]:
            streams = streams_of(kme)
            chunk, may_come = streams.get_key(identity, named, index, metadata_bytes_max)
            return chunk, may_come, streams.timeout_s(identity, named)

        while True:
            chunk, may_come, timeout_s = await self._engine.call(attempt, refused=_note("GET_KEY", identity, ""))
            if not may_come or self._now_s() - began_s >= timeout_s:
                return chunk
            await asyncio.sleep(POLL_S)

    async def close(self, identity: str, ksid: UUID, /) -> Status:
        return await self._engine.call(lambda kme: streams_of(kme).close(identity, str(ksid)))

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def streams_of(kme: Kme) -> Streams:
    assert isinstance(kme, StreamingKme), "this site serves no streams"
    return kme.streams


def _note(operation: str, caller: str, other: str) -> Callable[[Kme, KeystrandError], None]:
    return lambda kme, error: kme.note_refusal(operation, caller, other, error)
