"""Random networks to place trusted nodes in: small ones with the cheapest placement by trying every set of paths (the oracle of
`keystrand.plan.place`), and large ones as a country has them."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

from keystrand.plan.placement import PAIRS_MAX, Hop, Network, Want

Paths = tuple[tuple[str, ...], ...]


def country(sites: int, wants: int, seed: int) -> Network:
    """Sites at random in 600 km by 600 km, each joined to its six nearest; keys wanted between random pairs of twenty of them.

    Key per pair of modules falls by 0.27 dB/km over 1.35 times the straight way, from 1 Mb/s less 2.25 dB.
    """
    dice = random.Random(seed)
    places = {f"s{n:03}": (dice.uniform(0, 600), dice.uniform(0, 600)) for n in range(sites)}
    hops = {}
    for name, here in places.items():
        near = sorted((math.dist(here, there), other) for other, there in places.items() if other != name)[:6]
        for km, other in near:
            ends = (min(name, other), max(name, other))
            bps = 1e6 * 10 ** (-(0.27 * 1.35 * km + 2.25) / 10)
            if bps > 10:
                hops[ends] = Hop(ends, bps)
    ends_of = list(places)[:: max(1, sites // 20)][:20]
    asked = []
    for _ in range(wants):
        one, other = dice.sample(ends_of, 2)
        asked.append(Want((one, other), dice.choice([10.0, 50.0, 100.0])))
    return Network(dict.fromkeys(places, 1.0), tuple(hops.values()), tuple(asked))


def network(seed: int) -> Network:
    """Four to six sites, one to three wants, some of them for two paths or with few relays of others."""
    dice = random.Random(seed)
    names = "abcdef"[: dice.randint(4, 6)]
    hops = tuple(
        Hop((a, b), dice.choice([50.0, 100.0, 300.0]), dice.choice([1.0, 2.0, 3.0]))
        for a, b in itertools.combinations(names, 2)
        if dice.random() < 0.7
    )
    relays = {name: dice.choice([1.0, 2.0, 4.0]) for name in names if dice.random() < 0.8}
    wants = []
    for _ in range(dice.randint(1, 3)):
        one, other = dice.sample(names, 2)
        bps, paths = dice.choice([20.0, 60.0, 100.0]), dice.choice([1, 1, 2])
        wants.append(Want((one, other), bps, paths, dice.choice([None, None, 0, 1])))
    untrusted = frozenset(name for name in relays if dice.random() < 0.3)
    return Network(relays, hops, tuple(wants), untrusted)


def cheapest(net: Network) -> float | None:
    """None where nothing carries all that is wanted."""
    costs = [cost(net, choice) for choice in itertools.product(*(list(_ways(net, want)) for want in net.wants))]
    return min((each for each in costs if each is not None), default=None)


def cost(net: Network, choice: tuple[Paths, ...]) -> float | None:
    """Of these paths: every relay once, and on each hop as many pairs as their keys need; None for too many."""
    load: dict[frozenset[str], float] = {}
    for want, paths in zip(net.wants, choice, strict=True):
        for step in (step for path in paths for step in itertools.pairwise(path)):
            load[frozenset(step)] = load.get(frozenset(step), 0.0) + want.bps
    hops = {frozenset(hop.ends): hop for hop in net.hops}
    pairs = {ends: math.ceil(bps / hops[ends].capacity_bps - 1e-9) for ends, bps in load.items()}
    if max(pairs.values(), default=0) > PAIRS_MAX:
        return None
    used = {site for paths in choice for path in paths for site in path[1:-1]}
    return sum(net.relays[site] for site in used) + sum(hops[ends].cost * n for ends, n in pairs.items())


def _ways(net: Network, want: Want) -> Iterator[Paths]:
    """Every path, or every pair without a common relay, with as few relays of others as asked."""
    simple = list(_simple(net, (want.ends[0],), want.ends[1]))
    sets = [(path,) for path in simple] if want.paths == 1 else list(itertools.combinations(simple, 2))
    for paths in sets:
        inner = [site for path in paths for site in path[1:-1]]
        foreign = len(set(inner) & net.untrusted - set(want.ends))
        if len(set(inner)) == len(inner) and foreign <= (
            len(inner) if want.untrusted_max is None else want.untrusted_max
        ):
            yield paths


def _simple(net: Network, so_far: tuple[str, ...], last: str) -> Iterator[tuple[str, ...]]:
    for hop in net.hops:
        if so_far[-1] in hop.ends:
            following = hop.ends[1 - hop.ends.index(so_far[-1])]
            if following == last:
                yield (*so_far, last)
            elif following not in so_far and following in net.relays:
                yield from _simple(net, (*so_far, following), last)
