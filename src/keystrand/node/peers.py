"""The channels to each neighbouring KME, mutual TLS. Every process dials one of its own and asks on it; answers go back on the
channel that the question came by, so that any process of one site can talk with any process of another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from keystrand.core.errors import KeystrandError, OtherRelease, PeerFault
from keystrand.core.events import Event, Sink
from keystrand.core.limits import Limits
from keystrand.core.pool import Wants
from keystrand.core.release import release
from keystrand.kme.service import Kme
from keystrand.kme.site import Send
from keystrand.net.frames import FrameStream, connect_frames
from keystrand.net.tls import TlsContexts, TlsPeer
from keystrand.node.engine import Engine
from keystrand.wire import peer as wire
from keystrand.wire.peer import (
    Checkpoint,
    Cosignature,
    Hello,
    Message,
    Relayed,
    Reserve,
    SourceOffer,
    SourceTaken,
    Void,
)

RECONNECT_S = 0.5
RECONNECT_MAX_S = 10.0
BACKLOG_MAX: Final = 16_384  # operations that wait, whoever asks for them, before neighbours are read no further
BACKLOG_LOOK_S: Final = 0.01
UNSENT_BYTES_MAX: Final = 32 << 20  # a neighbour that lets so much lie does not read any more
FAULT_PAUSE_S: Final = 0.1  # for so long a neighbour is not read whose relay sent what does not fit
CALLS_MAX: Final = 32  # channels that the processes of one neighbour may have to this one


@dataclass(eq=False, slots=True)
class Channel:
    """One stream. Messages of one loop turn share a frame."""

    stream: FrameStream
    waiting: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> None:
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self.waiting.append(message)

    def _flush(self) -> None:
        messages, self.waiting = self.waiting, []
        if self.stream.unsent_bytes > UNSENT_BYTES_MAX:
            self.stream.abort()  # what was not heard is repeated over the next one
            return
        with contextlib.suppress(KeystrandError):  # the stream has ended; its reader sees to that
            for frame in _frames(messages, self.stream.frame_bytes_max):
                self.stream.write(frame)


def _frames(messages: list[Message], bytes_max: int) -> list[bytes]:
    """As few as hold the messages; relays may have many shares to say at once."""
    frame = wire.encode(messages)  # type: ignore[arg-type]
    if len(frame) <= bytes_max or len(messages) == 1:
        return [frame]
    middle = len(messages) // 2
    return _frames(messages[:middle], bytes_max) + _frames(messages[middle:], bytes_max)


@dataclass(slots=True)
class Line:
    """One neighbour: who it is, where, the channel that we dialled, and those that its processes dialled to us."""

    name: str
    kme_id: str
    host: str
    port: int
    own: Channel | None = None
    calls: list[Channel] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    strange: str = ""  # why what it says cannot be understood


Relays = Callable[[str, bytes], None]  # the neighbour, a frame of its relay; raises PeerFault
# the neighbour, what its source says, how to answer
Sources = Callable[[str, SourceOffer | SourceTaken, Callable[[Message], None]], None]
Notary = Callable[[str, Checkpoint | Cosignature, Callable[[Message], None]], None]


class PeerLines:
    """All neighbours of a site. `notary` hears the messages of the audit logs; the KME hears all others."""

    def __init__(
        self,
        lines: Mapping[str, Line],
        engine: Engine,
        contexts: TlsContexts,
        limits: Limits,
        sink: Sink,
        notary: Notary,
    ) -> None:
        self._lines = lines
        self._by_kme_id = {line.kme_id: line for line in lines.values()}
        self._engine = engine
        self._contexts = contexts
        self._limits = limits
        self._sink = sink
        self._notary = notary
        self.relay: Relays | None = None  # hears frames of relays, where this site has one
        self.sources: Sources | None = None  # hears what neighbours say of their devices, where a link is fed by one

    def allow(self, peer: TlsPeer) -> bool:
        return peer.identity.kind in (None, "kme") and peer.identity.name in self._by_kme_id

    def is_up(self, peer: str) -> bool:
        """Whether our own channel to this neighbour stands."""
        return self._lines[peer].own is not None

    def neighbours(self) -> list[Line]:
        return list(self._lines.values())

    def send(self, peer: str, message: Message, via: object | None = None) -> None:
        """Queue a message; while the neighbour is away it is dropped, and whoever cares repeats it."""
        channel = self._lines[peer].own if via is None else via
        if isinstance(channel, Channel):
            channel.send(message)

    async def serve(self, stream: FrameStream) -> None:
        """A process of a neighbour has connected: it will ask, we shall answer."""
        line, channel = self._by_kme_id[stream.peer.identity.name], Channel(stream)
        line.calls.append(channel)
        line.called.set()
        if len(line.calls) > CALLS_MAX:
            await line.calls[0].stream.close()  # the oldest is the likeliest to be a stale one
        try:
            await self._read(line, channel, self._answering(line, channel))
        finally:
            line.calls.remove(channel)
            await stream.close()

    async def keep(self, line: Line) -> None:
        """Dial one neighbour, again and again; at once where it shows that it is there."""
        pause_s, told = RECONNECT_S, ""
        while True:
            line.called.clear()
            try:
                stream = await connect_frames(
                    line.host, line.port, self._contexts, expect=("kme", line.kme_id), limits=self._limits
                )
                pause_s, told = RECONNECT_S, line.strange
                await self._ask(line, Channel(stream))
            except KeystrandError as error:
                if (
                    reason := line.strange or str(error)
                ) != told:  # once, however often it is dialled: status says since when
                    self._emit("peer.down", peer=line.name, reason=reason)
                told = reason
            if line.strange:
                await asyncio.sleep(RECONNECT_MAX_S)  # each of us dialling the other at once would not end
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):  # wait_for of Python 3.11 can lose a cancellation here
                    await line.called.wait()
            pause_s = min(2 * pause_s, RECONNECT_MAX_S)

    async def _ask(self, line: Line, channel: Channel) -> None:
        """Our own channel stands, until it ends."""
        line.own = channel
        group = channel.stream.peer.group
        self._engine.post(lambda kme: kme.peer_up(line.name, group))
        try:
            await self._read(line, channel, lambda kme, message: kme.receive(line.name, message))
        finally:
            line.own = None
            self._engine.post(lambda kme: kme.peer_down(line.name))
            await channel.stream.close()

    async def _read(self, line: Line, channel: Channel, receive: Callable[[Kme, Message], None]) -> None:
        try:
            while True:
                for message in wire.decode(await channel.stream.read()):
                    if isinstance(message, Hello):
                        wire.check_version(message)
                        line.strange = ""
                    if isinstance(message, Checkpoint | Cosignature):
                        self._notary(line.name, message, channel.send)
                    elif isinstance(message, Relayed):
                        await self._relayed(line.name, message.frame)
                    elif isinstance(message, SourceOffer | SourceTaken):
                        if self.sources is not None:
                            self.sources(line.name, message, channel.send)
                    else:
                        self._engine.post(self._receiving(line.name, message, receive), _wants(line.name, message))
                while self._engine.backlog > BACKLOG_MAX:  # who says more than we can do has to wait
                    await asyncio.sleep(BACKLOG_LOOK_S)
        except PeerFault as error:
            if (reason := str(error)) != line.strange:
                self._emit("peer.fault", peer=line.name, reason=reason)
            line.strange = reason if isinstance(error, OtherRelease) else line.strange
            raise

    async def _relayed(self, peer: str, frame: bytes) -> None:
        """One frame for the relay, and a turn for everybody else.

        What does not fit may be the fault of a site behind the neighbour, so the channel stays; but a flood of it costs the
        neighbour time, and fills neither our log nor our day.
        """
        try:
            if self.relay is not None:
                self.relay(peer, frame)
        except PeerFault as error:
            self._emit("peer.fault", peer=peer, reason=str(error))
            await asyncio.sleep(FAULT_PAUSE_S)
        else:
            await asyncio.sleep(0)

    def _receiving(self, peer: str, message: Message, receive: Callable[[Kme, Message], None]) -> Callable[[Kme], None]:
        def hear(kme: Kme) -> None:
            try:
                receive(kme, message)
            except PeerFault as error:
                self._emit("peer.fault", peer=peer, reason=str(error))
                raise

        return hear

    @staticmethod
    def _answering(line: Line, channel: Channel) -> Callable[[Kme, Message], None]:
        """Hear what came by a channel of the neighbour's; what we then send to it goes back there."""

        def receive(kme: Kme, message: Message) -> None:
            outbox = kme.site.outbox
            first = len(outbox)
            if isinstance(message, Hello):
                _greet_back(kme, line.name, message)
            else:
                kme.receive(line.name, message)
            for place in range(first, len(outbox)):
                effect = outbox[place]
                if isinstance(effect, Send) and effect.peer == line.name:
                    outbox[place] = replace(effect, via=channel)

        return receive

    def again(self) -> None:
        """The service was built anew: tell it which neighbours are there."""
        for line in self._lines.values():
            if line.own is not None:
                group, name = line.own.stream.peer.group, line.name
                self._engine.post(lambda kme, name=name, group=group: kme.peer_up(name, group))  # type: ignore[misc]

    def _emit(self, kind: str, **fields: str) -> None:
        self._sink.emit(Event(kind, self._engine.kme.site.clock.now_s(), fields))


def _wants(peer: str, message: Message) -> Wants | None:
    """What hearing it will read."""
    if isinstance(message, Reserve):
        blocks = {block_id: None for key in message.keys for block_id, _, _ in key.segments}
        return Wants(tuple(key.key_id for key in message.keys), ((peer, message.request_id),), tuple(blocks))
    if isinstance(message, Void):
        return Wants(requests=tuple((peer, request_id) for request_id in message.request_ids))
    return None


def _greet_back(kme: Kme, peer: str, hello: Hello) -> None:
    """Answer a Hello on the neighbour's channel. It tells of the neighbour's epoch; whether the neighbour forgot anything is
    seen on our own channel, where it answers us, and that session is left as it is."""
    session = kme.sessions[peer]
    echo, met, process = session.echo, session.met, session.process
    kme.receive(peer, msgspec.structs.replace(hello, echo=0, process=process))
    session.echo, session.met, session.process = echo, met, process
    store = kme.site.store
    answer = Hello(
        version=wire.VERSION,
        site=kme.site.name,
        epoch=store.epoch(),
        op_sent=store.peer(peer).op_sent,
        token=0,
        echo=hello.token,
        process=kme.process,
        release=release(),
    )
    kme.site.send(peer, answer)
