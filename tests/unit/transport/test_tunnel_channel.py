"""The channel between the ends lets in one SAE, hears one tunnel, and notices silence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import PeerFault
from keystrand.core.limits import Limits
from keystrand.crypto import pki
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.patience import until
from keystrand.transport.tunnel import channel as channels
from keystrand.transport.tunnel.channel import Channel
from keystrand.transport.tunnel.contract import Role
from keystrand.transport.tunnel.messages import NUMBER_MAX, Active, Hello, Message, Propose, decode, encode


@dataclass
class Ear:
    joins: int = 0
    messages: list[Message] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def joined(self) -> None:
        self.joins += 1

    def heard(self, message: Message) -> None:
        self.messages.append(message)

    def parted(self, reason: str) -> None:
        self.reasons.append(reason)


@dataclass
class Street:
    """Three SAEs of one CA, and channels between them."""

    folder: Path
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ca, _ = pki.create_ca(self.folder, "street")
        for name in ("sae-a", "sae-b", "sae-c"):
            pki.issue(self.folder, kind="sae", name=name, hosts=("127.0.0.1",))

    def open(self, me: str, peer: str, role: Role, port: int = 0, tunnel: str = "t") -> tuple[Channel, Ear]:
        pair = self.folder / f"sae-{me}.pem", self.folder / f"sae-{me}.key"
        contexts, ear = TlsContexts(TlsFiles(*pair, self.ca), TlsPolicy()), Ear()
        end = Channel(
            tunnel=tunnel,
            role=role,
            address=("127.0.0.1", port),
            contexts=contexts,
            expect=("sae", peer),
            listener=ear,
            limits=Limits(),
        )
        self.tasks.append(asyncio.create_task(end.run()))
        return end, ear

    async def responder(self) -> tuple[Channel, Ear]:
        end, ear = self.open("sae-b", "sae-a", "responder")
        while not end.port:
            await asyncio.sleep(0.01)
        return end, ear


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    made = Street(tmp_path / "pki")
    yield made
    for task in made.tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_what_one_end_says_the_other_hears_in_order(street: Street) -> None:
    responder, far = await street.responder()
    initiator, near = street.open("sae-a", "sae-b", "initiator", responder.port)
    await until(lambda: near.joins and far.joins)
    for number in range(1, 50):
        initiator.send(Active(tunnel="t", number=number))
        responder.send(Active(tunnel="t", number=number))
    await until(lambda: len(near.messages) == len(far.messages) == 49)
    assert [message.number for message in near.messages] == [message.number for message in far.messages]


async def test_another_sae_is_not_let_in_at_either_end(street: Street) -> None:
    responder, far = await street.responder()
    stranger, _ = street.open("sae-c", "sae-b", "initiator", responder.port)
    await asyncio.sleep(1.0)
    stranger.send(Active(tunnel="t", number=1))
    await asyncio.sleep(0.2)
    assert (far.joins, far.messages) == (0, [])
    _, misled = street.open("sae-a", "sae-c", "initiator", responder.port)  # it expects another at this address
    await until(lambda: misled.reasons)
    assert (misled.joins, misled.messages) == (0, [])


async def test_tunnels_of_different_names_do_not_meet(street: Street) -> None:
    responder, far = await street.responder()
    initiator, near = street.open("sae-a", "sae-b", "initiator", responder.port, tunnel="other")
    await until(lambda: near.joins and far.joins)
    initiator.send(Hello(tunnel="other", number=1, current=0))
    await until(lambda: far.reasons)
    assert "calls this tunnel 'other'" in far.reasons[0]
    assert far.messages == []


async def test_an_end_that_falls_silent_is_given_up_and_joined_again(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    responder, _ = await street.responder()
    monkeypatch.setattr(channels, "QUIET_S", 0.5)
    _, near = street.open("sae-a", "sae-b", "initiator", responder.port)
    await until(lambda: "the other end is silent" in near.reasons)
    await until(lambda: near.joins >= 2)


async def test_the_beat_keeps_a_quiet_channel_up(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "QUIET_S", 1.5)
    monkeypatch.setattr(channels, "BEAT_S", 0.1)
    responder, far = await street.responder()
    _, near = street.open("sae-a", "sae-b", "initiator", responder.port)
    await until(lambda: near.joins)
    await asyncio.sleep(2.5)
    assert (near.reasons, far.reasons, near.joins, near.messages) == ([], [], 1, [])


@given(st.binary(max_size=200))
def test_what_is_no_message_is_a_fault_of_the_peer(frame: bytes) -> None:
    with contextlib.suppress(PeerFault):
        assert encode(decode(frame))


@pytest.mark.parametrize(
    "message",
    [
        Active(tunnel="t", number=-1),
        Active(tunnel="t", number=NUMBER_MAX + 1),
        Propose(tunnel="t", number=1, key_id="k" * 65),
        Hello(tunnel="t", number=1, current=0, version=2),
    ],
)
def test_what_is_out_of_range_is_a_fault_of_the_peer(message: Message) -> None:
    with pytest.raises(PeerFault):
        decode(msgspec.msgpack.encode(message))
