"""Orders to a proxy: who answers, who does not, and what that means for a block."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from keystrand.core.errors import Unavailable
from keystrand.observe.logs import LogSink
from keystrand.testing.patience import PATIENCE_S, until
from keystrand.testing.tunnels import place_of
from keystrand.transport.tls import control
from keystrand.transport.tls.connector import TlsConnector
from keystrand.transport.tls.control import ControlServer, Order, ProxyAbsent, short_path, tell
from keystrand.transport.tls.proxy import Proxy, Way
from keystrand.transport.tls.settings import TlsSettings

WAY = Way(
    role="initiator",
    listen=("127.0.0.1", 0),
    connect=("127.0.0.1", 1),
    peer_sae="sae-b",
    drain_s=1.0,
    connections_max=10,
)
SETTINGS = TlsSettings(listen="127.0.0.1:7001", connect="127.0.0.1:7002")


async def test_orders_are_answered_until_one_says_stop(tmp_path: Path) -> None:
    socket = tmp_path / "proxy.sock"
    job = asyncio.create_task(ControlServer(Proxy(WAY), socket, LogSink()).run())
    await until(lambda: socket.exists() and socket.stat().st_mode & 0o077 == 0)
    assert control.is_of(await tell(socket, Order(verb="way")), WAY)
    assert not control.health_of(await tell(socket, Order(verb="health"))).up
    with pytest.raises(Unavailable, match="unknown order"):
        await tell(socket, Order(verb="obey"))
    with pytest.raises(Unavailable, match="cannot be read"):
        await tell(socket, Order(verb="prepare", number=1, psk="no hex"))
    with pytest.raises(Unavailable, match="not prepared"):
        await tell(socket, Order(verb="activate", number=1))
    await tell(socket, Order(verb="stop"))
    await asyncio.wait_for(job, PATIENCE_S)
    with pytest.raises(ProxyAbsent):
        await tell(socket, Order(verb="way"))


async def test_a_line_that_is_no_order_or_has_no_end_costs_the_others_nothing(tmp_path: Path) -> None:
    socket = tmp_path / "proxy.sock"
    job = asyncio.create_task(ControlServer(Proxy(WAY), socket, LogSink()).run())
    await until(socket.exists)
    for words in (b"{}\n", b'{"verb": 7}\n', b"\xff\n", b"x" * (control.LINE_BYTES_MAX * 2)):
        with short_path(socket) as path:
            reader, writer = await asyncio.open_unix_connection(path)
        writer.write(words)
        try:
            answer = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        except ConnectionError:
            answer = b""
        assert answer == b"" or b"cannot be read" in answer
        writer.close()
    assert control.is_of(await tell(socket, Order(verb="way")), WAY)
    await tell(socket, Order(verb="stop"))
    await job


async def test_a_block_succeeds_without_a_proxy_and_not_with_one_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(tmp_path, "initiator")
    end = TlsConnector(place, SETTINGS)
    await end.block()
    place.state_dir.mkdir(parents=True)
    monkeypatch.setattr(control, "ANSWER_S", 0.2)
    with short_path(place.state_dir / "proxy.sock") as path:
        deaf = await asyncio.start_unix_server(lambda _reader, _writer: None, path)
    with pytest.raises(Unavailable, match="does not answer"):
        await end.block()
    assert not (await end.health()).up
    deaf.close()
