"""Slow clients at the edge of ETSI GS QKD 014, behind mutual TLS: they are ended in time, others are served meanwhile (L16)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from keystrand.api.etsi014 import Etsi014
from keystrand.core.events import Event
from keystrand.core.limits import Limits
from keystrand.crypto import pki
from keystrand.net.http_client import HttpClient
from keystrand.net.http_server import HttpServer
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.keyservice import MemoryNetwork
from keystrand.testing.patience import PATIENCE_S, until

HERE = "127.0.0.1"
SLOW = 30
LIMITS = Limits(http_header_timeout_s=0.8, http_idle_timeout_s=1.2, http_connections_max=SLOW + 10)
ENC = "/api/v1/keys/sae-b/enc_keys"


class Deaf:
    def emit(self, event: Event, /) -> None:
        """Nobody listens."""


class Served:
    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        pki.create_ca(folder, "lab")
        for kind, name in (("kme", "kme-a"), ("sae", "sae-a"), ("sae", "sae-d")):
            pki.issue(folder, kind=kind, name=name, hosts=(HERE,))
        self.folder = folder
        self.network = MemoryNetwork({"sae-a": "alpha", "sae-d": "alpha", "sae-b": "bravo"})
        app = Etsi014(self.network.at("alpha"), limits=limits, sink=Deaf())
        self.server = HttpServer(app, HERE, contexts=self.contexts("kme-kme-a"), limits=limits)

    def contexts(self, holder: str) -> TlsContexts:
        home = self.folder
        return TlsContexts(
            TlsFiles(home / f"{holder}.pem", home / f"{holder}.key", home / "ca.pem", home / "ca.crl"),
            TlsPolicy(require_pqc_group=False),  # for Python's own ssl, which the slow ones use
        )

    def client(self) -> HttpClient:
        return HttpClient(HERE, self.server.port, self.contexts("sae-sae-d"), expect=("kme", "kme-a"))

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(self.folder / "sae-sae-a.pem", self.folder / "sae-sae-a.key")
        return await asyncio.open_connection(HERE, self.server.port, ssl=context)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    served = Served(tmp_path / "pki")
    await served.server.start()
    yield served
    await served.server.stop(grace_s=1.0)


async def trickle(served: Served, first: bytes, then: Callable[[int], bytes]) -> bool:
    """Send a little every 0.1 s, for 20 s at least; whether the server ended it before."""
    reader, writer = await served.open()
    writer.write(first)
    try:
        for number in range(200):
            writer.write(then(number))
            await writer.drain()
            if reader.at_eof():
                return True
            await asyncio.sleep(0.1)
    except (ConnectionError, ssl.SSLError):
        return True
    finally:
        writer.close()
    return False


SLOWNESS: dict[str, tuple[bytes, Callable[[int], bytes]]] = {
    "headers": (f"POST {ENC} HTTP/1.1\r\nHost: x\r\n".encode(), lambda n: b"a%d: b\r\n" % n),
    "body": (
        f"POST {ENC} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n\r\n".encode(),
        lambda n: b" ",
    ),
    "chunks": (
        f"POST {ENC} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
        lambda n: b"1\r\n \r\n",
    ),
    "silence": (b"", lambda n: b""),
    "request line": (b"POST ", lambda n: b"/"),
}


@pytest.mark.proves("R021", "R046")
@pytest.mark.parametrize("name", SLOWNESS)
async def test_l16_slow_clients_are_ended_and_an_honest_one_is_served_beside_them(served: Served, name: str) -> None:
    first, then = SLOWNESS[name]
    slow = [asyncio.create_task(trickle(served, first, then)) for _ in range(SLOW)]
    await until(lambda: served.server.connections >= SLOW or any(task.done() for task in slow))
    async with served.client() as honest:
        answer = await asyncio.wait_for(honest.request("POST", ENC, b"{}"), 15)
        assert answer.status == 200
    assert all(await asyncio.gather(*slow))
    assert [held.initiator for held in served.network.held.values()] == ["sae-d"], "slow ones drew nothing"


async def test_l16_connections_that_never_finish_their_handshake_hold_nobody_up(tmp_path: Path) -> None:
    served = Served(tmp_path / "pki", replace(LIMITS, tls_handshake_timeout_s=2.0))
    await served.server.start()
    waiting = [await asyncio.open_connection(HERE, served.server.port) for _ in range(SLOW)]
    async with served.client() as honest:
        assert (await honest.request("POST", ENC, b"{}")).status == 200
    for reader, writer in waiting:
        assert await asyncio.wait_for(reader.read(1), PATIENCE_S) == b""
        writer.close()
    await served.server.stop(grace_s=1.0)
