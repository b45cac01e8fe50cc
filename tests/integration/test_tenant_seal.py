"""A tenant that is sealed alone: its keys neither come nor go, at either end, and come back when it is unsealed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from keystrand.config.load import load_module, load_site
from keystrand.config.schema import SiteConfig
from keystrand.lab.pair import found_pair
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.site import SiteNode
from keystrand.node.tenants import Tenants
from keystrand.testing.feeder import Feeder
from keystrand.testing.patience import until
from keystrand.wire import etsi014 as wire

ASK = wire.print_key_request(wire.KeyRequest(number=1, size_bits=256))


def of_acme(file: Path) -> SiteConfig:
    text = re.sub(r"(?m)^(\[saes\..*\])$", r'\1\ntenant = "acme"', file.read_text())
    assert text.count('tenant = "acme"') == 2
    file.write_text(text + "\n[tenants.acme]\n")
    return load_site(file)


def client_of(config: SiteConfig) -> HttpClient:
    assert config.gateway is not None
    files = TlsFiles(config.gateway.certificate, config.gateway.private_key, config.tls.trust, config.tls.revoked)
    port = config.etsi014.listen.port
    return HttpClient("127.0.0.1", port, TlsContexts(files, TlsPolicy()), expect=("kme", config.site.kme_id))


@pytest.mark.proves("R066")
async def test_i8_the_keys_of_a_sealed_tenant_neither_come_nor_go(tmp_path: Path) -> None:
    pair = found_pair(tmp_path / "pair")
    nodes = {name: SiteNode(of_acme(file)) for name, file in pair.site_files.items()}
    stop = asyncio.Event()
    tasks = [asyncio.create_task(node.run(stop)) for node in nodes.values()]
    feeder = Feeder([load_module(file) for file in pair.module_files.values()])
    clients = {name: client_of(node.config) for name, node in nodes.items()}
    tenants = {name: Tenants(node.config, node.engine, node.store.sealer) for name, node in nodes.items()}

    async def draw() -> tuple[int, bytes]:
        answer = await clients["alpha"].request("POST", "/api/v1/keys/gateway-bravo/enc_keys", ASK)
        return answer.status, answer.body

    async def fetch(key_id: str) -> int:
        body = wire.print_key_ids([key_id])
        return (await clients["bravo"].request("POST", "/api/v1/keys/gateway-alpha/dec_keys", body)).status

    try:
        await until(lambda: all(n.engine.kme.strands.usable(p) for n in nodes.values() for p in n.config.peers))
        await feeder.connect()
        await feeder.feed(1_048_576, blocks=1)
        await until(lambda: all(n.store.free_bits(link, name) for name, n in nodes.items() for link in n.config.links))
        status, body = await draw()
        assert status == 200
        (key,) = wire.parse_container(body)

        await tenants["bravo"].seal("acme", actor="officer", reason="a drill")
        assert await fetch(key.key_id) == 503, "what is remembered is as shut as what is kept"
        status, body = await draw()
        assert status == 503, "the peer does not take keys that it cannot keep"

        await tenants["bravo"].unseal("acme", actor="officer", reason="the drill is over")
        assert await fetch(key.key_id) == 200

        await tenants["alpha"].seal("acme", actor="officer", reason="a drill")
        assert (await draw())[0] == 503
        await tenants["alpha"].unseal("acme", actor="officer", reason="the drill is over")
        status, body = await draw()
        assert status == 200
        assert await fetch(wire.parse_container(body)[0].key_id) == 200
        for node in nodes.values():
            assert not await node.engine.call(lambda kme: kme.check_ledger())
    finally:
        for client in clients.values():
            await client.close()
        await feeder.close()
        stop.set()
        await asyncio.gather(*tasks)
