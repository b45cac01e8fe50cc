"""The question of placement and its answer: sites that may relay, hops that could stand, keys wanted, and what was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

PAIRS_MAX: Final = 8  # QKD pairs side by side on one hop

Ends = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Hop:
    """Two sites that a pair of QKD modules could join: key per pair, at its worst, and cost of one pair."""

    ends: Ends
    capacity_bps: float
    cost: float = 1.0


@dataclass(frozen=True, slots=True)
class Want:
    """Key that two sites need. paths: 1, or 2 without a common relay. untrusted_max: relays of other owners on all its paths
    together; None: any number."""

    ends: Ends
    bps: float
    paths: int = 1
    untrusted_max: int | None = None

    def __post_init__(self) -> None:
        if self.paths not in (1, 2) or self.bps <= 0 or self.ends[0] == self.ends[1]:
            raise ValueError(f"{self} asks for nothing that can be placed")


@dataclass(frozen=True, slots=True)
class Network:
    """What may be built and what is wanted. relays: cost of a trusted node at each site that may hold one; a site that is in no
    want and not here carries nothing."""

    relays: Mapping[str, float]
    hops: tuple[Hop, ...]
    wants: tuple[Want, ...]
    untrusted: frozenset[str] = frozenset()


Route = tuple[str, ...]
Routes = Sequence[tuple[Route, ...]]  # of each want, one or two


@dataclass(frozen=True, slots=True)
class Placement:
    """Sites that relay, QKD pairs by hop, and for each want its paths. gap: the best possible may be cheaper by this
    share at most."""

    relays: tuple[str, ...]
    pairs: Mapping[Ends, int]
    routes: tuple[tuple[Route, ...], ...]
    cost: float
    gap: float


def relays_of(routes: Routes) -> tuple[str, ...]:
    return tuple(sorted({site for paths in routes for route in paths for site in route[1:-1]}))


def cost_of(network: Network, routes: Routes) -> float:
    """Of what these routes need: relays once each, and pairs on every hop."""
    hop_cost = {hop.ends: hop.cost for hop in network.hops}
    pairs = sum(hop_cost[ends] * count for ends, count in needed_pairs(network, routes).items())
    return pairs + sum(network.relays[site] for site in relays_of(routes))


def needed_pairs(network: Network, routes: Routes) -> dict[Ends, int]:
    """QKD pairs on each hop, so that all keys of these routes fit."""
    capacity = {hop.ends: hop.capacity_bps for hop in network.hops}
    return {ends: math.ceil(bps / capacity[ends] - 1e-9) for ends, bps in loads(network, routes).items()}


def loads(network: Network, routes: Routes) -> dict[Ends, float]:
    """Key per second on each hop that is used."""
    named = {frozenset(hop.ends): hop.ends for hop in network.hops}
    load: dict[Ends, float] = {}
    for want, paths in zip(network.wants, routes, strict=True):
        for step in (step for route in paths for step in pairwise(route)):
            ends = named[frozenset(step)]
            load[ends] = load.get(ends, 0.0) + want.bps
    return dict(sorted(load.items()))
