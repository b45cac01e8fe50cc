"""What a site says to a neighbour in one turn: in frames that the neighbour takes, and never without end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from keystrand.core.errors import PeerFault
from keystrand.core.events import Event
from keystrand.core.limits import Limits
from keystrand.node import peers
from keystrand.node.peers import UNSENT_BYTES_MAX, Channel, Line, PeerLines
from keystrand.testing.patience import until
from keystrand.testing.sinks import Ears
from keystrand.wire.peer import VERSION, Heard, Hello, Message, Relayed, decode, encode


@dataclass
class Stream:
    frame_bytes_max: int = 1000
    unsent_bytes: int = 0
    frames: list[bytes] = field(default_factory=list)
    is_cut: bool = False

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    def abort(self) -> None:
        self.is_cut = True


def said(count: int) -> list[Message]:
    return [Relayed(frame=bytes([number]) * 300) for number in range(count)]


async def sent(stream: Stream, messages: list[Message]) -> None:
    channel = Channel(stream)  # type: ignore[arg-type]
    for message in messages:
        channel.send(message)
    await asyncio.sleep(0)


async def test_messages_of_one_turn_share_a_frame_and_too_many_share_several() -> None:
    few, many = Stream(), Stream()
    await sent(few, said(2))
    assert len(few.frames) == 1
    await sent(many, said(20))
    assert all(len(frame) <= many.frame_bytes_max for frame in many.frames)
    assert [message for frame in many.frames for message in decode(frame)] == said(20)


async def test_a_neighbour_that_does_not_read_is_cut_off() -> None:
    stream = Stream(unsent_bytes=UNSENT_BYTES_MAX + 1)
    await sent(stream, said(1))
    assert stream.is_cut
    assert stream.frames == []


class Busy:
    """An engine that does nothing yet."""

    backlog = 0

    def post(self, operation: Callable[..., Any], wants: object = None) -> None:
        self.backlog += 1


@dataclass
class Flood:
    frames: int = 0

    async def read(self) -> bytes:
        self.frames += 1
        await asyncio.sleep(0)
        return encode([Heard(notice_id="n")] * 10)


async def test_a_neighbour_is_read_no_further_than_we_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "BACKLOG_MAX", 100)
    engine, flood, line = Busy(), Flood(), Line("bravo", "kme-bravo", "127.0.0.1", 1)
    lines = PeerLines({"bravo": line}, engine, None, Limits(), Ears(), lambda *_: None)  # type: ignore[arg-type]
    reading = asyncio.create_task(lines._read(line, Channel(flood), lambda kme, message: None))  # type: ignore[arg-type]
    for _ in range(1000):
        await asyncio.sleep(0)
    assert (flood.frames, engine.backlog) == (11, 110)
    engine.backlog = 0
    await until(lambda: flood.frames > 11)
    reading.cancel()
    await asyncio.wait([reading])


class Foreigner:
    """A neighbour of another release; it says so at once."""

    peer = None

    async def read(self) -> bytes:
        return encode([hello(VERSION + 1)])

    async def close(self) -> None:
        return


def hello(version: int) -> Hello:
    return Hello(version=version, site="b", epoch=1, op_sent=0, token=1, echo=0, release="9.9")


async def test_a_neighbour_of_another_version_is_told_once_and_dialled_at_leisure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both ends would else dial each other again and again."""
    ears, line = Ears(), Line("b", "kme-b", "localhost", 1)
    lines = PeerLines({"b": line}, Busy(), None, Limits(), ears, lambda *_: None)  # type: ignore[arg-type]
    monkeypatch.setattr(lines, "_emit", lambda kind, **fields: ears.emit(Event(kind, 0.0, fields)))
    dials: list[int] = []
    pauses: list[float] = []
    enough = asyncio.Event()

    async def connect(*_: object, **__: object) -> Any:
        dials.append(1)
        line.called.set()  # it dials us as well
        if len(dials) == 4:
            enough.set()
        return Foreigner()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await yielding(0)

    yielding = asyncio.sleep
    monkeypatch.setattr(peers, "connect_frames", connect)
    monkeypatch.setattr(lines, "_ask", lambda line, channel: lines._read(line, channel, lambda kme, message: None))
    monkeypatch.setattr(peers.asyncio, "sleep", pause)
    task = asyncio.create_task(lines.keep(line))
    await enough.wait()
    task.cancel()
    await asyncio.wait([task])
    assert set(pauses) == {peers.RECONNECT_MAX_S}
    assert ears.kinds == ["peer.fault", "peer.down"]
    assert all("9.9" in str(event.fields["reason"]) for event in ears.events)


@dataclass
class Relays:
    """Frames for the relay without end, all there at once."""

    frames: int = 0

    async def read(self) -> bytes:
        self.frames += 1
        return encode([Relayed(frame=b"no advert")] * 10)


async def test_T9_a_neighbour_whose_relay_floods_gets_neither_the_day_nor_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "FAULT_PAUSE_S", 3600.0)
    ears, heard, flood = Ears(), [], Relays()
    line = Line("bravo", "kme-bravo", "127.0.0.1", 1)
    clock = SimpleNamespace(now_s=lambda: 0.0)
    engine = SimpleNamespace(backlog=0, kme=SimpleNamespace(site=SimpleNamespace(clock=clock)))
    lines = PeerLines({"bravo": line}, engine, None, Limits(), ears, lambda *_: None)  # type: ignore[arg-type]
    lines.relay = lambda peer, frame: heard.append((peer, frame))
    reading = asyncio.create_task(lines._read(line, Channel(flood), lambda kme, message: None))  # type: ignore[arg-type]
    for _ in range(100):
        await asyncio.sleep(0)
    assert 90 <= len(heard) <= 110, "one frame, then a turn for everybody else"

    def refuse(peer: str, frame: bytes) -> None:
        raise PeerFault("the signature does not fit")

    lines.relay = refuse
    for _ in range(100):
        await asyncio.sleep(0)
    assert ears.kinds == ["peer.fault"], "what does not fit is told once in a while, and read no faster"
    assert not reading.done(), "the channel stays: the fault may be of a site behind"
    reading.cancel()
    await asyncio.wait([reading])
