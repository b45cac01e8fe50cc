"""Key streams between two real sites: their engines, stores, audit logs and TLS; only the photons are missing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from keystrand.api.etsi004 import serve_etsi004
from keystrand.api.etsi015 import etsi015_app
from keystrand.config.load import load_module, load_site
from keystrand.core.limits import Limits
from keystrand.lab.pair import LINK, found_pair
from keystrand.net.http_client import HttpClient
from keystrand.net.http_server import HttpServer
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.sdn import EngineNode
from keystrand.node.site import SiteNode
from keystrand.node.streams import EngineStreams
from keystrand.observe.audit_verify import rows_of, verify
from keystrand.testing.feeder import Feeder
from keystrand.testing.patience import until
from keystrand.transport.etsi004 import KeyStreams
from keystrand.wire.etsi004 import Chunk, Framing, Qos, Status
from keystrand.wire.etsi015 import entity_id

HERE = "127.0.0.1"


@dataclass
class Ends:
    nodes: list[SiteNode]
    feeder: Feeder
    clients: list[KeyStreams]
    saes: list[str]


async def client_of(node: SiteNode, port: int, framing: Framing) -> KeyStreams:
    config = node.config
    assert config.gateway is not None
    files = TlsFiles(config.gateway.certificate, config.gateway.private_key, config.tls.trust, config.tls.revoked)
    contexts = TlsContexts(files, TlsPolicy())
    return await KeyStreams.connect(HERE, port, contexts, kme_id=config.site.kme_id, limits=Limits(), framing=framing)


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Ends]:
    pair = found_pair(folder / "pair")
    nodes = [SiteNode(load_site(file)) for file in pair.site_files.values()]
    stop = asyncio.Event()
    tasks = [asyncio.create_task(node.run(stop)) for node in nodes]
    feeder = Feeder([load_module(file) for file in pair.module_files.values()])
    servers, clients = [], []
    try:
        await until(lambda: all(n.engine.kme.strands.age_s(p) is not None for n in nodes for p in n.config.peers))
        for node, framing in zip(nodes, Framing, strict=True):
            server = await serve_etsi004(
                (HERE, 0), node.contexts, EngineStreams(node.engine), limits=node.config.limits, sink=node.sink
            )
            servers.append(server)
            clients.append(await client_of(node, server.port, framing))
        await feeder.connect()
        saes = [n.config.gateway.sae for n in nodes if n.config.gateway]
        yield Ends(nodes, feeder, clients, saes)
    finally:
        for client in clients:
            await client.close()
        for server in servers:
            await server.close()
        await feeder.close()
        stop.set()
        await asyncio.gather(*tasks)


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    async with running(tmp_path) as ends:
        yield ends


def bits(chunk: Chunk) -> bytes:
    assert chunk.material is not None, chunk
    return chunk.material.reveal()


async def test_I2_two_SAEs_read_one_stream_through_two_sites(ends: Ends) -> None:
    await ends.feeder.feed(65_536)
    await until(lambda: all(node.engine.kme.pool.owned_bits(LINK) for node in ends.nodes))
    (alice, bob), (a, b) = ends.clients, ends.saes
    qos = Qos(chunk_bytes=32, min_bps=100, timeout_ms=5_000, ttl_s=60)
    first = await alice.open_connect(f"qkd://{a}@alpha", f"qkd://{b}@bravo", qos)
    assert first.status is Status.PEER_NOT_CONNECTED
    assert first.ksid is not None
    joined = await bob.open_connect(f"qkd://{a}@alpha", f"qkd://{b}@bravo", qos, first.ksid)
    assert joined.status is Status.SUCCESSFUL
    assert (await alice.open_connect(a, b, qos, first.ksid)).status is Status.SUCCESSFUL
    at_a = [bits(await alice.get_key(first.ksid, index)) for index in range(20)]
    at_b = [bits(await bob.get_key(first.ksid, index)) for index in range(20)]
    assert at_a == at_b
    assert len(set(at_a)) == 20
    for client in ends.clients:
        assert await client.close_stream(first.ksid) is Status.SUCCESSFUL
    for node, sae in zip(ends.nodes, ends.saes, strict=True):
        assert await node.engine.call(lambda kme: kme.check_ledger()) == [], "I9"
        rows = list(rows_of(node.store))
        report = verify(rows, [], site=node.config.site.name, signer=node.notary._signer.verifier)
        assert report.intact, report.findings
        records = [json.loads(record) for _, record, _ in rows]
        delivered = [record for record in records if record["kind"] == "key.delivered"]
        assert [(record["recipient"], record["index"]) for record in delivered] == [(sae, n) for n in range(20)], "I5"


async def test_SDN_controller_reads_links_and_streams_of_a_running_site(ends: Ends) -> None:
    await ends.feeder.feed(65_536)
    await until(lambda: all(node.engine.kme.pool.owned_bits(LINK) for node in ends.nodes))
    (alice, _), (a, b), alpha = ends.clients, ends.saes, ends.nodes[0]
    opened = await alice.open_connect(a, b, Qos(min_bps=50))
    source = EngineNode(alpha.engine, alpha._gauges)
    app = etsi015_app(source, may_read=lambda who: who.name == a, sink=alpha.sink)
    server = HttpServer(app, HERE, contexts=alpha.contexts, limits=Limits())
    await server.start()
    gateway = alpha.config.gateway
    assert gateway is not None
    files = TlsFiles(gateway.certificate, gateway.private_key, alpha.config.tls.trust, alpha.config.tls.revoked)
    expect = ("kme", alpha.config.site.kme_id)
    client = HttpClient(HERE, server.port, TlsContexts(files, TlsPolicy()), expect=expect, limits=Limits())
    answer = await client.request("GET", "/restconf/data/etsi-qkd-sdn-node:qkd_node")
    node = json.loads(answer.body)["etsi-qkd-sdn-node:qkd_node"]
    (link,) = node["qkd_links"]["qkd_link"]
    assert link["qkdl_remote"] == {"qkdn_id": str(entity_id("kme", ends.nodes[1].config.site.kme_id))}
    assert link["qkdl_performance"]["expected_consumption"] == 50
    apps = {app["app_id"]: app for app in node["qkd_applications"]["qkd_app"]}
    assert apps[str(opened.ksid)]["app_qos"] == {"min_bandwidth": 50, "ttl": 3600}
    assert str(opened.ksid) in link["qkdl_applications"]
    await client.close()
    await server.stop()


async def test_calls_wait_as_long_as_the_timeout_says(ends: Ends) -> None:
    (alice, bob), (a, b) = ends.clients, ends.saes
    loop = asyncio.get_running_loop()
    patient, hasty = Qos(chunk_bytes=32, timeout_ms=10_000, ttl_s=60), Qos(chunk_bytes=32, timeout_ms=300, ttl_s=60)
    first = await alice.open_connect(a, b, patient)
    assert first.ksid is not None
    await bob.open_connect(a, b, hasty, first.ksid)
    began_s = loop.time()
    assert (await bob.get_key(first.ksid, 0)).status is Status.INSUFFICIENT_KEY
    assert 0.3 <= loop.time() - began_s < 3.0
    waiting = asyncio.create_task(alice.get_key(first.ksid, 0))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await ends.feeder.feed(65_536)
    assert bits(await waiting)


async def test_named_stream_waits_for_the_other_SAE_or_is_not_opened(ends: Ends) -> None:
    (alice, bob), (a, b) = ends.clients, ends.saes
    ksid = UUID("6a0f2f5e-6f0e-4f57-9d3c-2f4f4d1c9f10")
    late = await alice.open_connect(a, b, Qos(timeout_ms=200), ksid)
    assert late.status is Status.TIMEOUT
    assert (await alice.get_key(ksid, 0)).status is Status.NO_QKD_CONNECTION
    qos = Qos(timeout_ms=8_000)
    both = await asyncio.gather(alice.open_connect(a, b, qos, ksid), bob.open_connect(a, b, qos, ksid))
    assert [opened.status for opened in both] == [Status.SUCCESSFUL, Status.SUCCESSFUL]
