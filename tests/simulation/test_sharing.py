"""Pairs whose fills compete for the bits of a hop, in virtual time: who gets how much, and who must not go short."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keystrand.crypto.onetime import pad_bytes
from keystrand.relay.atlas import Atlas, RelayedLink, SiteFacts, Terms
from keystrand.relay.relay import Relay
from keystrand.relay.supply import Fill
from keystrand.testing.network.hasty import Hasty
from keystrand.testing.network.world import HOP_BLOCK_BYTES, LIMITS, PACE, Network, Rhythm
from keystrand.testing.world.faults import Faults

HUNGRY = Fill(floor_bits=400_000, ahead_s=0.0, most_bits=50_000_000)
SLOW_HOPS = Rhythm(hop_block_s=60.0, key_s=1e9)  # eight blocks' worth a minute
LONG_S = 1500.0


def atlas(hops: str, **links: tuple[str, float]) -> Atlas:
    """hops: "ab bc"; links: ends and expected demand."""
    pairs = tuple((hop[0], hop[1]) for hop in hops.split())
    sites = {name: SiteFacts(name=name) for name in sorted({site for pair in pairs for site in pair})}
    terms = Terms(accept_undocumented=True)
    made = {
        name: RelayedLink(name=name, ends=(ends[0], ends[1]), terms=terms, expected_bps=bps)
        for name, (ends, bps) in links.items()
    }
    return Atlas(sites, pairs, made)


def lived(
    drawn: Atlas, kind: type[Relay], *, until_s: float = LONG_S, neighbours: dict[tuple[str, str], float] | None = None
) -> Network:
    """A network whose links want far more than its hops make."""
    limits = replace(LIMITS, block_ttl_s=86_400.0)
    greedy = replace(HUNGRY, floor_bits=50_000_000)
    world = Network(
        5,
        drawn,
        rhythm=SLOW_HOPS,
        limits=limits,
        liars=dict.fromkeys(drawn.sites, kind),
        fill=greedy,
        neighbours=neighbours or {},
    )
    world.begin()
    world.schedule.run_until(until_s)
    assert world.judge.violations == []
    return world


NEIGHBOURLY = atlas("ah hk kz bh ky", strong=("az", 300.0), weak=("by", 100.0))


@pytest.mark.proves("R036")
def test_of_one_hops_bits_each_pair_gets_in_proportion_to_its_expected_demand() -> None:
    blocks = lived(NEIGHBOURLY, Relay).tally.blocks

    assert 2.4 < blocks["strong"] / blocks["weak"] < 3.6, blocks


@pytest.mark.proves("R036")
def test_a_pair_with_another_way_leaves_the_common_hop_to_the_one_without() -> None:
    """p has two ways, q only that over m: each can have a whole hop, and p goes over both where q wants nothing."""
    both = atlas("pm mz pn nz qm", free=("pz", 100.0), bound=("qz", 100.0))
    blocks = lived(both, Relay).tally.blocks

    assert blocks["free"] / blocks["bound"] == pytest.approx(1.0, abs=0.2), blocks
    alone = lived(atlas("pm mz pn nz", free=("pz", 100.0)), Relay).tally.blocks
    assert alone["free"] > 1.6 * blocks["bound"], "over both at once"


@pytest.mark.proves("R036")
def test_no_fill_starves_the_neighbours_own_applications() -> None:
    """h and k draw keys of their own; with relays that take what there is they are refused."""
    kept = lived(NEIGHBOURLY, Relay, neighbours={("h", "k"): 2.0}, until_s=900.0)
    taken = lived(NEIGHBOURLY, Hasty, neighbours={("h", "k"): 2.0}, until_s=900.0)

    assert taken.tally.hungry["h~k"] > 20, "so this can fail"
    assert kept.tally.hungry["h~k"] == 0
    assert kept.tally.blocks["strong"] > 50


@pytest.mark.parametrize("ways", [2, 4])
@pytest.mark.proves("R036")
def test_a_pair_fills_over_all_its_ways_at_once_however_slow_they_are(ways: int) -> None:
    """Each message takes half a second: one block at a time would fill no faster over four ways than over one."""
    hops = " ".join(f"a{n} {n}z" for n in range(ways))
    world = Network(
        5,
        atlas(hops, az=("az", 100.0)),
        faults=Faults(delay_s=0.5),
        rhythm=SLOW_HOPS,
        limits=replace(LIMITS, block_ttl_s=86_400.0),
        fill=replace(HUNGRY, floor_bits=50_000_000),
    )
    world.begin()
    world.schedule.run_until(400.0)

    made = ways * 400.0 / SLOW_HOPS.hop_block_s * HOP_BLOCK_BYTES / pad_bytes(PACE.block_bytes)
    assert world.judge.violations == []
    assert world.tally.blocks["az"] > 0.8 * made
