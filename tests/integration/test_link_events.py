"""What a KME tells of a link is what its module says of the light, not that the module is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from keystrand.core.clock import SystemClock
from keystrand.core.errors import PeerUnavailable
from keystrand.core.events import Event
from keystrand.core.identity import Identity
from keystrand.core.limits import Limits
from keystrand.node.devices import Devices, LinkState
from keystrand.node.outbox import Outbox
from keystrand.wire import device
from keystrand.wire.device import LinkReport, ModuleHello, ModuleWelcome

LINK = "lab"
HELLO = ModuleHello(version=device.VERSION, link=LINK, module_id="m", role="transmitter", source="simulated-bb84")


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event, /) -> None:
        self.events.append(event)

    def told(self) -> list[tuple[str, Any]]:
        return [(event.kind, event.fields.get("reason")) for event in self.events]


class Pipe:
    """Frames between a module and its KME, by the test's hand. An empty frame ends the connection."""

    peer = SimpleNamespace(identity=Identity("module", "m"))

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.written: list[bytes] = []

    def say(self, message: device.AnyDeviceMessage) -> None:
        self.frames.put_nowait(device.encode(message))

    async def read(self) -> bytes:
        frame = await self.frames.get()
        if not frame:
            raise PeerUnavailable("gone")
        return frame

    def write(self, frame: bytes) -> None:
        self.written.append(frame)

    async def drain(self) -> None:
        """Nothing waits."""

    async def close(self) -> None:
        """Nothing is open."""


class StoreOnly:
    """The engine, as far as a greeting needs it."""

    kme = SimpleNamespace(site=SimpleNamespace(clock=SystemClock()))

    async def call(self, work: Any) -> int:
        return 0


@asynccontextmanager
async def module_of(heard: Heard) -> AsyncIterator[Pipe]:
    devices = Devices({LINK: "m"}, StoreOnly(), Limits(), heard)  # type: ignore[arg-type]
    pipe = Pipe()
    pipe.say(HELLO)
    serving = asyncio.create_task(devices.serve(pipe))  # type: ignore[arg-type]
    yield pipe
    pipe.frames.put_nowait(b"")
    with pytest.raises(PeerUnavailable):
        await serving


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.proves("R085", "R099")
async def test_a_cut_fibre_is_told_while_the_module_stays() -> None:
    heard = Heard()
    async with module_of(heard) as module:
        await settle()
        assert heard.told() == [], "a module that greets makes no key yet"
        for state in ("starting", "running", "running"):
            module.say(LinkReport(state=state))
        await settle()
        assert heard.told() == [("link.up", None)]
        module.say(LinkReport(state="down", detail="connection"))
        module.say(LinkReport(state="down", detail="connection"))
        module.say(LinkReport(state="running"))
        await settle()
        assert heard.told()[1:] == [("link.down", "connection"), ("link.up", None)]
    assert heard.told()[3:] == [("link.down", "its module is gone")]


def test_a_module_that_only_delivers_is_up_once_it_did() -> None:
    state = LinkState(connected=True)
    assert state.word == "starting"
    state.carries = True
    assert state.word == "up"
    state.report = LinkReport(state="down")
    assert (state.word, state.report.auth_key_bits < 0) == ("down", True), (
        "no figure of a channel that nobody looked at"
    )


@pytest.mark.proves("R025")
async def test_an_attack_that_the_monitor_of_a_module_sees_calls_somebody_at_its_site() -> None:
    heard = Heard()
    async with module_of(heard) as module:
        reports = [("", ""), ("normal", ""), ("normal", ""), ("attack", "trojan"), ("attack", "trojan"), ("normal", "")]
        for health, cause in [*reports, ("learning", ""), ("no such word", "")]:
            module.say(LinkReport(state="running", health=health, cause=cause, confidence=0.5))
        await settle()
    kinds = [event.kind for event in heard.events]
    assert kinds == ["link.up", "link.normal", "link.attack", "link.normal", "link.down"]
    assert heard.events[2].fields["cause"] == "trojan"


async def test_a_module_says_why_it_does_not_reach_its_KME_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystrand.node.outbox.RETRY_S", 0.0)
    told: list[tuple[str, str]] = []
    answers: list[Pipe | Exception] = [PeerUnavailable("the certificate is not for 127.0.0.1")] * 3
    pipe = Pipe()
    pipe.say(ModuleWelcome(next_sequence=0))
    pipe.frames.put_nowait(b"")
    answers += [pipe, OSError("refused"), OSError("refused")]

    async def connect() -> Pipe:
        if not answers:
            await asyncio.Event().wait()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    outbox = Outbox(HELLO, connect, lambda: LinkReport(state="down"), lambda kind, why: told.append((kind, why)))
    task = asyncio.create_task(outbox.run())
    async with asyncio.timeout(10):
        while answers:
            await asyncio.sleep(0)
    await settle()
    task.cancel()
    assert told == [
        ("peer.down", "the certificate is not for 127.0.0.1"),
        ("peer.up", ""),
        ("peer.down", "it ended the connection"),
    ]
