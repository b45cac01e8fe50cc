"""A device or KME that streams key by ETSI GS QKD 004 V2.1.1: both ends read the same stream, chunk by chunk.

The name of a key is its place, `KSID/index`. The leading end opens a stream, which its device names; a first offer without
bits, `KSID/join`, lets the far end join it. Where keys are lost, the next draw opens another stream.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar
from uuid import UUID

from keystrand.core.errors import BadRequest, KeystrandError, PeerFault, Unavailable
from keystrand.core.secret import Secret
from keystrand.sources.device import DeviceKey
from keystrand.wire.etsi004 import Chunk, Opened, Qos, Status

_T = TypeVar("_T")
JOIN: Final = "join"
_NAME: Final = re.compile(r"([0-9a-f-]{36})/(join|0|[1-9][0-9]{0,8})", re.ASCII)
_OPEN: Final = (Status.SUCCESSFUL, Status.PEER_NOT_CONNECTED)


class Streams(Protocol):
    """A connection to the device, as transport.etsi004.KeyStreams."""

    async def open_connect(self, source: str, destination: str, qos: Qos, ksid: UUID | None = None) -> Opened: ...
    async def get_key(self, ksid: UUID, index: int) -> Chunk: ...
    async def close_stream(self, ksid: UUID) -> Status: ...
    async def close(self) -> None: ...


class Etsi004Device:
    """source, destination: the SAEs of the leading and of the far end, as URIs. number: the most chunks of one draw."""

    keeps = False

    def __init__(
        self, connect: Callable[[], Awaitable[Streams]], *, source: str, destination: str, qos: Qos, number: int
    ) -> None:
        self._connect = connect
        self._source, self._destination, self._qos, self._number = source, destination, qos, number
        self._streams: Streams | None = None
        self._ksid: UUID | None = None
        self._index = 0
        self._read: dict[str, Secret] = {}

    async def draw(self) -> list[DeviceKey]:
        if self._ksid is None:
            return [DeviceKey(f"{await self._open(None)}/{JOIN}", Secret(b""))]
        ksid, keys = self._ksid, list[DeviceKey]()
        while len(keys) < self._number:
            try:
                material = await self._chunk(ksid, self._index)
            except Unavailable:
                if not keys:
                    raise
                break
            keys.append(DeviceKey(f"{ksid}/{self._index}", material))
            self._index += 1
        return keys

    async def fetch(self, names: tuple[str, ...]) -> list[DeviceKey]:
        for name in names:
            ksid, place = _place(name)
            if self._ksid != ksid:
                await self.reset()
                await self._open(ksid)
            if name not in self._read:  # a chunk is read once: what was had before another one failed is kept
                self._read[name] = Secret(b"") if place == JOIN else await self._chunk(ksid, int(place))
        return [DeviceKey(name, self._read.pop(name)) for name in names]

    async def claimed(self, names: tuple[str, ...]) -> None:
        """The device forgets what it has handed out."""

    async def reset(self) -> None:
        streams, ksid, self._ksid, self._index = self._streams, self._ksid, None, 0
        self._read.clear()
        if streams is not None and ksid is not None:
            await self._called(streams.close_stream(ksid))

    async def close(self) -> None:
        streams, self._streams, self._ksid = self._streams, None, None
        if streams is not None:
            await streams.close()

    async def _open(self, ksid: UUID | None) -> UUID:
        if self._streams is None:
            self._streams = await self._connect()
        opened = await self._called(self._streams.open_connect(self._source, self._destination, self._qos, ksid))
        if opened.status not in _OPEN or opened.ksid is None or (ksid is not None and opened.ksid != ksid):
            raise Unavailable(f"the device opens no stream: {opened.status.name}")
        if opened.qos.chunk_bytes != self._qos.chunk_bytes:
            raise PeerFault(f"the device's chunks have {opened.qos.chunk_bytes} bytes, not {self._qos.chunk_bytes}")
        self._ksid, self._index = opened.ksid, 0
        return opened.ksid

    async def _chunk(self, ksid: UUID, index: int) -> Secret:
        if self._streams is None:
            raise Unavailable("the connection to the device is gone")
        chunk = await self._called(self._streams.get_key(ksid, index))
        if chunk.status is not Status.SUCCESSFUL or chunk.material is None:
            raise Unavailable(f"the device has no chunk {index}: {chunk.status.name}")
        if chunk.index != index or len(chunk.material) != self._qos.chunk_bytes:
            raise PeerFault(f"the device gave chunk {chunk.index} of {len(chunk.material)} bytes for chunk {index}")
        return chunk.material

    async def _called(self, call: Awaitable[_T]) -> _T:
        try:
            return await call
        except KeystrandError:  # the connection is closed; whatever was open on it counts as lost
            await self.close()
            raise


def _place(name: str) -> tuple[UUID, str]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise BadRequest(f"{name[:64]} is not the place of a chunk")
    return UUID(found[1]), found[2]
