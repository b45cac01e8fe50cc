"""Two real sites in one process: real TLS, real stores, real API; only the photons are missing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from pathlib import Path

import pytest

from keystrand.config.load import load_module, load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.limits import Limits
from keystrand.lab.pair import LINK, Pair, found_pair
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.site import SiteNode
from keystrand.observe.audit_verify import rows_of, verify
from keystrand.testing.feeder import Feeder
from keystrand.testing.patience import until
from keystrand.wire import etsi014 as wire


@dataclass
class Running:
    pair: Pair
    nodes: dict[str, SiteNode]
    clients: dict[str, HttpClient]
    feeder: Feeder


def client_of(config: SiteConfig) -> HttpClient:
    gateway = config.gateway
    assert gateway is not None
    files = TlsFiles(gateway.certificate, gateway.private_key, config.tls.trust, config.tls.revoked)
    return HttpClient(
        config.etsi014.listen.host,
        config.etsi014.listen.port,
        TlsContexts(files, TlsPolicy()),
        expect=("kme", config.site.kme_id),
        limits=Limits(),
    )


def met(nodes: dict[str, SiteNode]) -> bool:
    """Whether each has heard its peer, and has a strand with it."""
    ends = [(node.engine.kme, peer) for node in nodes.values() for peer in node.config.peers]
    return all(kme.sessions[peer].up and kme.strands.age_s(peer) is not None for kme, peer in ends)


def ended(tasks: list[asyncio.Task[None]]) -> bool:
    """Raises why, where one of them has failed."""
    return any(task.result() is None for task in tasks if task.done())


@contextlib.asynccontextmanager
async def running(pair: Pair, restored: Collection[str] = ()) -> AsyncIterator[Running]:
    configs = {name: load_site(file) for name, file in pair.site_files.items()}
    nodes = {name: SiteNode(config) for name, config in configs.items()}
    for name in restored:
        nodes[name].begin_epoch()
    stop = asyncio.Event()
    tasks = [asyncio.create_task(node.run(stop)) for node in nodes.values()]
    feeder = Feeder([load_module(file) for file in pair.module_files.values()])
    clients = {name: client_of(config) for name, config in configs.items()}
    try:
        await until(lambda: ended(tasks) or met(nodes))
        await feeder.connect_soon()
        yield Running(pair, nodes, clients, feeder)
    finally:
        for client in clients.values():
            await client.close()
        await feeder.close()
        stop.set()
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def only(pair: Pair, name: str) -> AsyncIterator[SiteNode]:
    """One site, without its peer, once what every site has is open."""
    node, stop = SiteNode(load_site(pair.site_files[name])), asyncio.Event()
    task = asyncio.create_task(node.run(stop))
    try:
        await until(lambda: ended([task]) or len(node._servers) >= 4)
        yield node
    finally:
        stop.set()
        await task


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return found_pair(tmp_path / "pair")


async def settled(site: Running) -> None:
    """Until both KMEs have confirmed the blocks."""
    await until(lambda: all(node.engine.kme.pool.owned_bits(LINK) for node in site.nodes.values()))


ENC, DEC = "/api/v1/keys/gateway-bravo/enc_keys", "/api/v1/keys/gateway-alpha/dec_keys"


@pytest.mark.proves("R027", "R096")
async def test_keys_are_equal_at_both_ends_and_audited(pair: Pair) -> None:
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        answer = await site.clients["alpha"].request("POST", ENC, b'{"number": 5, "size": 256}')
        assert answer.status == 200, answer.body
        drawn = wire.parse_container(answer.body)
        fetched = await site.clients["bravo"].request("POST", DEC, wire.print_key_ids([k.key_id for k in drawn]))
        assert fetched.status == 200, fetched.body
        got = wire.parse_container(fetched.body)
        assert [k.key_id for k in got] == [k.key_id for k in drawn]
        assert all(a.material.matches(b.material) for a, b in zip(drawn, got, strict=True))
        again = await site.clients["bravo"].request("GET", f"{DEC}?key_ID={drawn[0].key_id}")
        assert again.status == 400
        assert b"one or more keys specified are not found on KME" in again.body
        for node in site.nodes.values():
            await node.notary.checkpoint()
            assert node.engine.kme.check_ledger() == []
        await until(lambda: all(node.notary.gauge.cosigned_size for node in site.nodes.values()))
        for name, node in site.nodes.items():
            other = "bravo" if name == "alpha" else "alpha"
            report = verify(
                rows_of(node.store),
                node.store.checkpoints(),
                site=name,
                signer=node.notary._signer.verifier,
                witnesses=[site.nodes[other].notary._signer.verifier],
            )
            assert report.intact, report.findings
            assert report.cosigned > 0


@pytest.mark.proves("R021")
async def test_peer_away_means_refusal_and_nothing_delivered_F7(pair: Pair) -> None:
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        site.nodes["alpha"].lines.send = lambda peer, message, via=None: None  # type: ignore[method-assign]
        answer = await site.clients["alpha"].request("POST", ENC, b'{"size": 256}')
        assert answer.status == 503, answer.body
        assert site.nodes["alpha"].engine.kme.check_ledger() == []


@pytest.mark.proves("R021")
async def test_pool_empty_is_503_and_says_so(pair: Pair) -> None:
    async with running(pair) as site:
        answer = await site.clients["alpha"].request("GET", ENC)
        assert answer.status == 503
        status = await site.clients["alpha"].request("GET", "/api/v1/keys/gateway-bravo/status")
        assert wire.parse_status(status.body).stored_keys == 0


@pytest.mark.proves("R049")
async def test_I14_a_restored_store_uses_nothing_of_before(pair: Pair, tmp_path: Path) -> None:
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        drawn = wire.parse_container((await site.clients["alpha"].request("GET", ENC)).body)
    backup = {name: (load_site(file).site.state_dir / "site.db").read_bytes() for name, file in pair.site_files.items()}
    async with running(pair) as site:
        answer = await site.clients["bravo"].request("GET", f"{DEC}?key_ID={drawn[0].key_id}")
        assert answer.status == 200
    state = load_site(pair.site_files["bravo"]).site.state_dir
    for leftover in state.glob("site.db*"):
        leftover.unlink()
    (state / "site.db").write_bytes(backup["bravo"])
    (state / "site.db").chmod(0o600)
    async with running(pair, restored={"bravo"}) as site:
        again = await site.clients["bravo"].request("GET", f"{DEC}?key_ID={drawn[0].key_id}")
        assert again.status == 400, "the backup held the key as unused"
        for node in site.nodes.values():
            assert node.engine.kme.pool.owned_bits(LINK) == 0, (
                "bits from before the restore are quarantined at both ends"
            )
            assert node.engine.kme.check_ledger() == []
