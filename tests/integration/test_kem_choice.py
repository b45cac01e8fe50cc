"""Which ML-KEM two sites agree their strand by is stated at both, and never settled at the weaker one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from test_site_pair import DEC, ENC, running, settled

from keystrand.config.load import load_site
from keystrand.crypto import pki
from keystrand.lab.pair import Pair, found_pair
from keystrand.node.site import SiteNode
from keystrand.testing.patience import until
from keystrand.wire import etsi014 as wire


def choose(pair: Pair, *sites: str) -> None:
    for name in sites:
        file = pair.site_files[name]
        file.write_text(file.read_text().replace('audit.pub"\n', 'audit.pub"\nkem = "ML-KEM-1024"\n', 1))
        (peer,) = load_site(file).peers.values()
        assert peer.kem == "ML-KEM-1024"


def records(node: SiteNode, kind: str) -> list[dict[str, object]]:
    found = [json.loads(raw) for _, raw, _ in node.store.audit_rows(0, 2**31)]
    return [record for record in found if record["kind"] == kind]


@pytest.mark.proves("R068")
async def test_ml_kem_1024_at_both_ends_weaves_the_same_keys(tmp_path: Path) -> None:
    pair = found_pair(tmp_path / "pair")
    choose(pair, "alpha", "bravo")
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        answer = await site.clients["alpha"].request("POST", ENC, b'{"number": 3, "size": 256}')
        drawn = wire.parse_container(answer.body)
        fetched = await site.clients["bravo"].request("POST", DEC, wire.print_key_ids([key.key_id for key in drawn]))
        got = wire.parse_container(fetched.body)
        assert all(a.material.matches(b.material) for a, b in zip(drawn, got, strict=True))
        for node in site.nodes.values():
            assert {record["algorithm"] for record in records(node, "strand.renewed")} == {"ML-KEM-1024"}


@pytest.mark.proves("R068")
async def test_a_site_with_ml_dsa_certificates_beside_a_classical_one(tmp_path: Path) -> None:
    """Its KME, module and SAE authenticate by ML-DSA-65 (FIPS 204) to a site that does by ECDSA, and keys are equal."""
    pair = found_pair(tmp_path / "pair", certificates={"alpha": "ml-dsa-65"})
    kinds = [pki.load_certificate(load_site(file).tls.certificate).public_key() for file in pair.site_files.values()]
    assert [type(kind).__name__.lstrip("_") for kind in kinds] == ["MLDSA65PublicKey", "ECPublicKey"], kinds
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        answer = await site.clients["alpha"].request("POST", ENC, b'{"number": 3, "size": 256}')
        drawn = wire.parse_container(answer.body)
        fetched = await site.clients["bravo"].request("POST", DEC, wire.print_key_ids([key.key_id for key in drawn]))
        got = wire.parse_container(fetched.body)
        assert all(a.material.matches(b.material) for a, b in zip(drawn, got, strict=True))


@pytest.mark.proves("R068")
async def test_T10_ends_that_state_different_ones_have_no_strand_and_no_hybrid_key(tmp_path: Path) -> None:
    pair = found_pair(tmp_path / "pair")
    choose(pair, "alpha")
    nodes = {name: SiteNode(load_site(file)) for name, file in pair.site_files.items()}
    stop = asyncio.Event()
    tasks = [asyncio.create_task(node.run(stop)) for node in nodes.values()]
    try:
        ends = [(node.engine.kme, peer) for node in nodes.values() for peer in node.config.peers]
        await until(lambda: all(kme.sessions[peer].up for kme, peer in ends))
        await asyncio.sleep(1.0)
        for node in nodes.values():
            assert not any(node.engine.kme.strands.usable(peer) for peer in node.config.peers)
            assert records(node, "strand.renewed") == []
    finally:
        stop.set()
        await asyncio.gather(*tasks)
