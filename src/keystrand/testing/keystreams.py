"""Key streams in memory behind the edge's StreamService: one network, an end for each SAE, key as long as it lasts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from uuid import UUID

from keystrand.core.clock import Entropy, SystemEntropy, new_uuid
from keystrand.core.errors import NotPermitted
from keystrand.core.secret import Secret
from keystrand.wire.etsi004 import Chunk, Opened, Qos, Status, print_metadata

CHUNK_BYTES_MAX = 512


@dataclass(slots=True)
class _Stream:
    pair: frozenset[str]
    chunk_bytes: int
    qos: dict[str, Qos] = field(default_factory=dict)  # of the ends that are open
    next_index: dict[str, int] = field(default_factory=dict)
    chunks: dict[int, bytes] = field(default_factory=dict, repr=False)


@dataclass(slots=True)
class MemoryStreams:
    """Satisfies api.etsi004.StreamService for all SAEs of `pairs`. `stored_bytes`: what may still be drawn."""

    pairs: frozenset[frozenset[str]]
    stored_bytes: int = 1 << 20
    entropy: Entropy = field(default_factory=SystemEntropy)
    streams: dict[UUID, _Stream] = field(default_factory=dict)

    async def open_connect(
        self, identity: str, source: str, destination: str, qos: Qos, ksid: UUID | None, /
    ) -> Opened:
        pair = frozenset((source, destination))
        if identity not in pair or pair not in self.pairs:
            raise NotPermitted(f"no rule joins {source} and {destination}")
        stream = self.streams.get(ksid) if ksid else None
        if stream is not None and stream.pair != pair:
            return Opened(status=Status.KSID_IN_USE, qos=qos)
        size = stream.chunk_bytes if stream else min(qos.chunk_bytes, CHUNK_BYTES_MAX)
        if qos.chunk_bytes != size:
            return Opened(status=Status.QOS_NOT_MET, qos=replace(qos, chunk_bytes=size))
        name = ksid or UUID(new_uuid(self.entropy))
        stream = self.streams.setdefault(name, _Stream(pair, size))
        stream.qos[identity] = qos
        status = Status.SUCCESSFUL if len(stream.qos) == 2 else Status.PEER_NOT_CONNECTED
        return Opened(status=status, qos=qos, ksid=name)

    async def get_key(self, identity: str, ksid: UUID, index: int, metadata_bytes_max: int, /) -> Chunk:
        stream = self.streams.get(ksid)
        if stream is None or identity not in stream.qos:
            return Chunk(status=Status.NO_QKD_CONNECTION, index=index)
        if len(stream.qos) < 2 and index not in stream.chunks:
            return Chunk(status=Status.PEER_NOT_YET_CONNECTED, index=index)
        metadata = print_metadata(age_ms=0, hops=0) if stream.qos[identity].mimetype else b""
        if len(metadata) > metadata_bytes_max:
            return Chunk(status=Status.METADATA_SIZE, index=index, metadata_bytes=len(metadata))
        if index < stream.next_index.get(identity, 0) or not await self._made(stream, index, identity):
            return Chunk(status=Status.INSUFFICIENT_KEY, index=index)
        stream.next_index[identity] = index + 1
        material = Secret(stream.chunks[index])
        return Chunk(
            status=Status.SUCCESSFUL, index=index, material=material, metadata=metadata, metadata_bytes=len(metadata)
        )

    async def _made(self, stream: _Stream, index: int, identity: str) -> bool:
        if index in stream.chunks:
            return True
        if self.stored_bytes < stream.chunk_bytes:
            await asyncio.sleep(stream.qos[identity].timeout_ms / 1000)
        if self.stored_bytes < stream.chunk_bytes:
            return False
        self.stored_bytes -= stream.chunk_bytes
        stream.chunks[index] = self.entropy.bytes(stream.chunk_bytes)
        return True

    async def close(self, identity: str, ksid: UUID, /) -> Status:
        stream = self.streams.get(ksid)
        if stream is not None:
            stream.qos.pop(identity, None)
            if not stream.qos:
                del self.streams[ksid]
        return Status.SUCCESSFUL
