"""Real sites in a ring, each its own program: keys over relays by plain ETSI GS QKD 014, a relay killed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from keystrand.core.register import Scope
from keystrand.core.way import Way
from keystrand.lab.network import NetworkLab
from keystrand.node.site import open_store

RING = """\
name = "ring"
[sites.a]
[sites.b]
[sites.c]
[sites.d]
[sites.e]
[[hops]]
ends = ["a", "b"]
[[hops]]
ends = ["b", "d"]
[[hops]]
ends = ["a", "c"]
[[hops]]
ends = ["c", "d"]
[[hops]]
ends = ["a", "e"]
[[hops]]
ends = ["d", "e"]
[links.a-d]
ends = ["a", "d"]
paths = 2
accept_undocumented = true
"""
REROUTED_S = 10.0  # bound of the test; bench_network measures


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkLab]:
    folder = tmp_path_factory.mktemp("ring")
    (folder / "ring.toml").write_text(RING)
    lab = NetworkLab(folder / "ring.toml", folder / "lab", print, rate_bps=400_000.0)
    try:
        lab.found()
        for file in lab.files.values():
            file.write_text(
                file.read_text().replace("[relay]\n", "[relay]\nfill_bits = 400000000\nblock_bytes = 8192\n")
            )
        lab.up()
        yield lab
    finally:
        lab.down()


def ingested(lab: NetworkLab) -> int:
    return int(lab.links_of("d").get("a-d", {}).get("ledger", {}).get("ingested", 0))


@pytest.mark.proves("R034", "R035")
def test_keys_are_equal_at_sites_that_are_no_neighbours(ring: NetworkLab) -> None:
    drawn, picked = ring.draw("a-d", 8)
    assert [key.key_id for key in drawn] == [key.key_id for key in picked]
    assert all(mine.material.matches(theirs.material) for mine, theirs in zip(drawn, picked, strict=True))
    assert {strand.value for strand in drawn[0].strands} == {"qkd", "pqc"}


@pytest.mark.proves("R037", "R101")
def test_a_relay_is_killed_and_the_link_goes_another_way(ring: NetworkLab) -> None:
    """No delivery fails meanwhile: the pool of the relayed link has keys."""
    ring.stop_site("b")
    try:
        gone_s, before = time.monotonic(), ingested(ring)
        while ingested(ring) <= before + 2 * 8 * 8192:
            assert time.monotonic() - gone_s < REROUTED_S, "no block over another way"
            drawn, picked = ring.draw("a-d")
            assert drawn[0].material.matches(picked[0].material)
    finally:
        ring.start_site("b")


def test_the_ledger_of_both_ends_balances_and_blocks_name_their_routes(ring: NetworkLab) -> None:
    """Runs last: it stops the sites."""
    ring.down()
    told = []
    for name in "ad":
        store = open_store(ring.configs[name])
        origins = store.register.origins("a-d", 0, 10**9)
        ways = [Way.parse(origin.source) for origin in origins]
        assert origins
        assert all(way is not None and way.needed == 2 and way.relays <= {"b", "c", "e"} for way in ways)
        told.append({origin.sequence: origin.source for origin in origins})
        assert not store.register.find(Scope(relay="b", link="a-d"), None, 10), (
            "one relay of two has seen no block whole"
        )
        ledger = store.ledger("a-d")
        assert sum(ledger.values()) == 2 * next(bits for account, bits in ledger.items() if account == "ingested")
        store.close()
    common = told[0].keys() & told[1].keys()
    assert common
    assert all(told[0][sequence] == told[1][sequence] for sequence in common)
