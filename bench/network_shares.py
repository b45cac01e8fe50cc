"""How well fills share a network: the pair that is worst off, beside naive relays and beside the best of all routings.

The bound is the maximum concurrent flow, a linear program over all ways at once (Shahrokhi and Matula, J. ACM 37(2), 1990),
solved by HiGHS.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from keystrand.crypto.onetime import pad_bytes
from keystrand.relay.atlas import Atlas, RelayedLink, day_of
from keystrand.relay.relay import Relay
from keystrand.relay.sharing import Claim, Hop, share, ways_of
from keystrand.relay.supply import Fill
from keystrand.testing.clock import EPOCH_S
from keystrand.testing.network.hasty import Hasty
from keystrand.testing.network.maps import drawn_atlas
from keystrand.testing.network.world import HOP_BLOCK_BYTES, LIMITS, PACE, Network, Rhythm

RHYTHM = Rhythm(hop_block_s=60.0, key_s=1e9)
ENDLESS = Fill(floor_bits=50_000_000, ahead_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """Of the pairs of a network: the least of what each gets, as a part of what is expected of it."""

    bound: float
    fair: float
    naive: float


def contested(seed: int, sites: int, links: int) -> Atlas:
    """Pairs over one route each, of which some are expected to draw four times as much as others."""
    rng = random.Random(seed)
    drawn = drawn_atlas(rng, sites, links, paths=1)
    made = {name: replace(link, expected_bps=rng.choice((100.0, 200.0, 400.0))) for name, link in drawn.links.items()}
    return Atlas(drawn.sites, drawn.hops, made)


def bound(rates_bps: Mapping[Hop, float], links: list[RelayedLink]) -> float:
    """The greatest part of what is expected of them that all links can have together, whatever their ways."""
    hops = sorted(rates_bps)
    arcs = [*hops, *((other, one) for one, other in hops)]
    sites = sorted({site for hop in hops for site in hop})
    place = {site: number for number, site in enumerate(sites)}
    size = len(arcs)
    balance, room = [], []
    for number, link in enumerate(links):
        for column, (tail, head) in enumerate(arcs):
            at = number * size + column
            balance += [(number * len(sites) + place[tail], at, 1.0), (number * len(sites) + place[head], at, -1.0)]
            room.append((column % len(hops), at, 1.0))
        last = len(links) * size
        balance.append((number * len(sites) + place[link.origin], last, -link.expected_bps))
        balance.append((number * len(sites) + place[link.target], last, link.expected_bps))
    width = len(links) * size + 1
    cost = np.zeros(width)
    cost[-1] = -1.0
    solved = linprog(
        cost,
        A_ub=_matrix(room, (len(hops), width)),
        b_ub=[rates_bps[hop] for hop in hops],
        A_eq=_matrix(balance, (len(links) * len(sites), width)),
        b_eq=np.zeros(len(links) * len(sites)),
        method="highs",
    )
    assert solved.success, solved.message
    return float(solved.x[-1])


def _matrix(entries: list[tuple[int, int, float]], shape: tuple[int, int]) -> coo_matrix:
    rows, columns, values = zip(*entries, strict=True)
    return coo_matrix((values, (rows, columns)), shape=shape)


def planned(sites: int, links: int, seed: int) -> tuple[float, float]:
    """Of the plan alone, for hops of very different rates: the pair that is worst off, and the bound."""
    atlas, rng = contested(seed, sites, links), random.Random(seed)
    rates = {hop: float(rng.randrange(1_000, 100_000)) for hop in atlas.hops}
    claims = [
        Claim(link=name, ways=ways_of(atlas, link, day_of(EPOCH_S)), live_bps=0.0, due=link.expected_bps)
        for name, link in atlas.links.items()
    ]
    shares = share(rates, claims)
    worst = min(sum(shares[name].values()) / link.expected_bps for name, link in atlas.links.items())
    return worst, bound(rates, list(atlas.links.values()))


def lived(sites: int, links: int, seed: int, hours: float) -> Worst:
    """The same of whole networks in virtual time, by the blocks that came."""
    atlas = contested(seed, sites, links)
    block, pad = 8 * PACE.block_bytes, 8 * pad_bytes(PACE.block_bytes)
    rates = dict.fromkeys(atlas.hops, 8 * HOP_BLOCK_BYTES / RHYTHM.hop_block_s * block / pad)
    found = [_worst(atlas, kind, seed, hours) for kind in (Relay, Hasty)]
    return Worst(bound=bound(rates, list(atlas.links.values())), fair=found[0], naive=found[1])


def _worst(atlas: Atlas, kind: type[Relay], seed: int, hours: float) -> float:
    limits = replace(LIMITS, block_ttl_s=1e6)
    world = Network(seed, atlas, rhythm=RHYTHM, limits=limits, liars=dict.fromkeys(atlas.sites, kind), fill=ENDLESS)
    world.begin()
    world.schedule.run_until(3600.0 * hours)
    assert not world.judge.violations
    rate = {name: 8 * PACE.block_bytes * count / (3600.0 * hours) for name, count in world.tally.blocks.items()}
    return min(rate.get(name, 0.0) / link.expected_bps for name, link in atlas.links.items())
