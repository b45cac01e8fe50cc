"""ETSI GS QKD 004 V2.1.1 over mutual TLS: key streams for SAEs, in either framing.

The caller is whom the client certificate names. Source and destination of a stream name SAEs, and the caller must be one of
the two. A call gets one answer, in order; calls that wait hold up their own connection only.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol
from uuid import UUID

from keystrand.api.exchange import refusal_event
from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import BadRequest, NotPermitted, PeerFault
from keystrand.core.events import Sink
from keystrand.core.limits import Limits
from keystrand.net.frames import FrameServer, FrameStream
from keystrand.net.headed import serve_headed
from keystrand.net.tls import ServerSide, TlsPeer
from keystrand.wire import etsi004 as wire
from keystrand.wire.etsi004 import (
    Answer,
    Chunk,
    Close,
    Closed,
    Failed,
    Framing,
    GetKey,
    OpenConnect,
    Opened,
    Qos,
    Status,
)

IDLE_S: Final = 300.0  # until the next call has come as a whole
READ_S: Final = 30.0  # for a client to read its answer
CONNECTIONS_PER_SAE_MAX: Final = 32


class StreamService(Protocol):
    """What stands behind the edge. `identity` is authenticated; source and destination are SAE IDs.

    Calls wait as their stream's Timeout says. Errors are those of core.errors; the SAE reads them as status 4. The material
    of a chunk belongs to the edge, which wipes it once the answer is built.
    """

    async def open_connect(
        self, identity: str, source: str, destination: str, qos: Qos, ksid: UUID | None, /
    ) -> Opened: ...

    async def get_key(self, identity: str, ksid: UUID, index: int, metadata_bytes_max: int, /) -> Chunk: ...

    async def close(self, identity: str, ksid: UUID, /) -> Status: ...


@dataclass(frozen=True, slots=True)
class _Edge:
    service: StreamService
    sink: Sink
    clock: Clock
    connections: Counter[str] = field(default_factory=Counter)

    def refuse(self, call: str, error: Exception) -> None:
        self.sink.emit(refusal_event(error, int(Status.NO_QKD_CONNECTION), self.clock.now_s(), method=call))


async def serve_etsi004(
    listen: tuple[str, int],
    contexts: ServerSide,
    service: StreamService,
    *,
    limits: Limits,
    sink: Sink,
) -> FrameServer:
    """Listen for SAEs. `port` and `close` are the server's. Raises ConfigError where the address cannot be had."""
    edge = _Edge(service, sink, SystemClock())
    return await serve_headed(
        listen,
        contexts,
        partial(_serve, edge),
        header_bytes=wire.HEADER_BYTES,
        measure=lambda header: wire.message_bytes(header, wire.REQUEST_BYTES_MAX),
        allow=_is_sae,
        limits=limits,
    )


def _is_sae(peer: TlsPeer) -> bool:
    return peer.identity.kind in (None, "sae") and bool(peer.identity.name)


async def _serve(edge: _Edge, stream: FrameStream) -> None:
    """One connection, until it ends, goes quiet or breaks the protocol."""
    caller = stream.peer.identity.name
    if edge.connections[caller] >= CONNECTIONS_PER_SAE_MAX:
        edge.refuse("connect", NotPermitted("too many connections"))
        return
    edge.connections[caller] += 1
    try:
        while await _exchange(edge, stream, caller):
            pass
    except (TimeoutError, PeerFault) as fault:
        edge.refuse("read", fault)
    finally:
        edge.connections[caller] -= 1
        if not edge.connections[caller]:
            del edge.connections[caller]


async def _exchange(edge: _Edge, stream: FrameStream, caller: str) -> bool:
    """One call and its answer; whether there may be another on this connection."""
    async with asyncio.timeout(IDLE_S):
        message = await stream.read()
    try:
        framing, request = wire.parse_request(message)
    except BadRequest as fault:
        edge.refuse("parse", fault)
        await _send(stream, Framing.FORGE, Failed())
        return False
    await _send(stream, framing, await _answer(edge, caller, request))
    return True


async def _send(stream: FrameStream, framing: Framing, answer: Answer) -> None:
    stream.write(wire.print_answer(framing, answer))
    if isinstance(answer, Chunk) and answer.material is not None:
        answer.material.wipe()
    async with asyncio.timeout(READ_S):
        await stream.drain()


async def _answer(edge: _Edge, caller: str, request: wire.Request) -> Answer:
    call = type(request).__name__
    try:
        match request:
            case OpenConnect():
                return await _open_connect(edge, caller, request)
            case GetKey():
                return await edge.service.get_key(caller, request.ksid, request.index, request.metadata_bytes_max)
            case Close():
                return Closed(await edge.service.close(caller, request.ksid))
    except Exception as error:  # the edge answers whatever happens; the event says what
        edge.refuse(call, error)
        return _refused(request)


async def _open_connect(edge: _Edge, caller: str, request: OpenConnect) -> Opened:
    source, destination = wire.sae_of(request.source), wire.sae_of(request.destination)
    if caller not in (source, destination):
        raise NotPermitted(f"{caller} is neither source nor destination")
    return await edge.service.open_connect(caller, source, destination, request.qos, request.ksid)


def _refused(request: wire.Request) -> Answer:
    """One status for whatever the SAE may not or cannot have: no oracle."""
    if isinstance(request, OpenConnect):
        return Opened(status=Status.NO_QKD_CONNECTION, qos=request.qos)
    if isinstance(request, GetKey):
        return Chunk(status=Status.NO_QKD_CONNECTION, index=request.index)
    return Closed(Status.TIMEOUT)
