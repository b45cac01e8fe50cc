"""The channel to each neighbouring KME: one mutual TLS stream, kept up by the site whose name comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from keystrand.core.errors import KeystrandError, PeerFault
from keystrand.core.events import Event, Sink
from keystrand.core.limits import Limits
from keystrand.kme.service import Kme
from keystrand.net.frames import FrameStream, connect_frames
from keystrand.net.tls import TlsContexts, TlsPeer
from keystrand.node.engine import Engine
from keystrand.wire import peer as wire
from keystrand.wire.peer import Checkpoint, Cosignature, Message

RECONNECT_S = 0.5
RECONNECT_MAX_S = 10.0


@dataclass(slots=True)
class Line:
    """One neighbour: who it is, where, and the stream that stands now. Messages of one loop turn share a frame."""

    name: str
    kme_id: str
    host: str
    port: int
    stream: FrameStream | None = None
    waiting: list[Message] = field(default_factory=list)


class PeerLines:
    """All neighbours of a site. `notary` hears the messages of the audit logs; the KME hears all others."""

    def __init__(
        self,
        site: str,
        lines: Mapping[str, Line],
        engine: Engine,
        contexts: TlsContexts,
        limits: Limits,
        sink: Sink,
        notary: Callable[[str, Checkpoint | Cosignature], None],
    ) -> None:
        self._site = site
        self._lines = lines
        self._by_kme_id = {line.kme_id: line for line in lines.values()}
        self._engine = engine
        self._contexts = contexts
        self._limits = limits
        self._sink = sink
        self._notary = notary

    def allow(self, peer: TlsPeer) -> bool:
        return peer.identity.kind in (None, "kme") and peer.identity.name in self._by_kme_id

    def neighbours(self) -> list[Line]:
        return list(self._lines.values())

    def send(self, peer: str, message: Message) -> None:
        """Queue a message; while the neighbour is away it is dropped, and whoever cares repeats it."""
        line = self._lines[peer]
        if line.stream is None:
            return
        if not line.waiting:
            asyncio.get_running_loop().call_soon(self._flush, line)
        line.waiting.append(message)

    def _flush(self, line: Line) -> None:
        messages, line.waiting = line.waiting, []
        if line.stream is None:
            return
        try:
            line.stream.write(wire.encode(messages))  # type: ignore[arg-type]
        except KeystrandError:
            line.stream = None

    async def serve(self, stream: FrameStream) -> None:
        """A neighbour has connected."""
        await self._talk(self._by_kme_id[stream.peer.identity.name], stream)

    async def keep(self, line: Line) -> None:
        """Connect to one neighbour, again and again. Only one of the two sites does so: the first in the alphabet."""
        pause_s = RECONNECT_S
        while self._site < line.name:
            try:
                stream = await connect_frames(
                    line.host, line.port, self._contexts, expect=("kme", line.kme_id), limits=self._limits
                )
                pause_s = RECONNECT_S
                await self._talk(line, stream)
            except KeystrandError as error:
                self._emit("peer.down", peer=line.name, reason=str(error))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RECONNECT_MAX_S)

    async def _talk(self, line: Line, stream: FrameStream) -> None:
        """Read until the stream ends. A newer stream replaces an older one: the other side knows which it lost."""
        old, line.stream = line.stream, stream
        if old is not None:
            await old.close()
        group = stream.peer.group
        self._engine.post(lambda kme: kme.peer_up(line.name, group))
        try:
            while True:
                self._hear(line.name, wire.decode(await stream.read()))
        except PeerFault as error:
            self._emit("peer.fault", peer=line.name, reason=str(error))
            raise
        finally:
            if line.stream is stream:
                line.stream = None
                self._engine.post(lambda kme: kme.peer_down(line.name))
            await stream.close()

    def _hear(self, peer: str, messages: list[wire.AnyMessage]) -> None:
        for message in messages:
            if isinstance(message, Checkpoint | Cosignature):
                self._notary(peer, message)
            else:
                self._engine.post(self._receiving(peer, message))

    def _receiving(self, peer: str, message: Message) -> Callable[[Kme], None]:
        def receive(kme: Kme) -> None:
            try:
                kme.receive(peer, message)
            except PeerFault as error:
                self._emit("peer.fault", peer=peer, reason=str(error))
                raise

        return receive

    def again(self) -> None:
        """The service was built anew: tell it which neighbours are there."""
        for line in self._lines.values():
            if (stream := line.stream) is not None:
                group, name = stream.peer.group, line.name
                self._engine.post(lambda kme, name=name, group=group: kme.peer_up(name, group))  # type: ignore[misc]

    def _emit(self, kind: str, **fields: str) -> None:
        self._sink.emit(Event(kind, self._engine.kme.site.clock.now_s(), fields))
