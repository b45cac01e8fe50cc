"""Where trusted nodes and QKD links have to stand so that every pair of sites gets its keys, at least cost.

Each wanted key goes over one path, or over two without a common relay; every hop of a path spends the whole rate. Routes are
found one by one, then a few of them at a time anew, the others kept. What remains is how far from the best that can be at most:
the relaxation of the whole programme says it, and then HiGHS itself.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import Final

from keystrand.plan.fact import Unknown
from keystrand.plan.placement import (
    PAIRS_MAX,
    Hop,
    Network,
    Placement,
    Route,
    Routes,
    cost_of,
    loads,
    needed_pairs,
    relays_of,
)
from keystrand.plan.placing import (
    EXACT,
    Programme,
    Solved,
    grain,
    raised,
    relaxation,
    solved,
    tightened,
    written,
)
from keystrand.relay.routes import disjoint_routes

TIME_S: Final = 45.0  # of the solver's searches; routes and bound before them take some seconds for a hundred sites
TIDY: Final = 1e-6  # cost of a step, so that of ways that cost the same the shortest is taken
ANEW: Final = (4, 6)  # wants that are looked for anew together; more, where fewer have found nothing for long
SPAN_S: Final = 3.0  # of one such search at most
STALE: Final = 60
SEED: Final = 1


def place(network: Network, *, time_s: float = TIME_S) -> Placement | Unknown:
    """The cheapest placement, or why there is none. `time_s`: after so long the best found is taken, and its gap says so."""
    programme = written(network)
    if isinstance(programme, Unknown):
        return programme
    if len(network.wants) == 1:
        return _best(network, [solved(programme, time_s)], 0.0)
    whole, first = tightened(programme), _one_by_one(network)
    bound = raised(network, relaxation(whole))
    if first is None:
        return _best(network, [solved(whole, time_s)], bound)
    better = _improved(programme, first, bound, time_s / 2)
    cost = cost_of(network, better)
    if cost <= bound * (1 + EXACT):
        return _placement(network, better, bound)
    below = cost - grain(network) / 2 if grain(network) else cost * (1 + EXACT)
    whole.row(dict(enumerate(whole.costs)), 0, below)
    rest = solved(whole, time_s / 2)
    return _best(network, [Solved(better, cost if rest.is_empty else 0.0), rest], bound)


def _improved(p: Programme, routes: Routes, bound: float, time_s: float) -> Routes:
    """Some wants at a time anew, by the solver, the others kept: those that share most sites with one drawn at random.

    Ends where nothing cheaper can be, where searches of every size have found nothing for long, or when the time is over.
    """
    dice, ends_s = random.Random(SEED), time.monotonic() + time_s  # noqa: S311 (a search, no key)
    cost, size, stale = cost_of(p.network, routes), 0, 0
    while cost > bound * (1 + EXACT) and (left_s := ends_s - time.monotonic()) > 0:
        free = _akin(routes, dice, ANEW[size])
        found = solved(p, min(SPAN_S, left_s), routes, free).routes
        now = math.inf if found is None else cost_of(p.network, found)
        stale = 0 if now < cost - EXACT else stale + 1
        if found is not None and now <= cost + EXACT:
            routes, cost = found, min(cost, now)
        if stale > STALE or len(free) == len(routes):
            size, stale = size + 1, 0
            if size == len(ANEW) or len(free) == len(routes):
                break
    return routes


def _akin(routes: Routes, dice: random.Random, count: int) -> list[int]:
    """One want at random, and those whose routes share most sites with its own, with some luck."""
    sites = [{site for route in paths for site in route} for paths in routes]
    first = dice.randrange(len(routes))
    luck = {at: len(sites[at] & sites[first]) + 6 * dice.random() for at in range(len(routes)) if at != first}
    return [first, *sorted(luck, key=lambda at: (-luck[at], at))[: count - 1]]


def _best(network: Network, found: Sequence[Solved], bound: float) -> Placement | Unknown:
    known = [each.routes for each in found if each.routes is not None]
    if not known:
        return Unknown(("no choice of relays and hops carries all that is wanted",))
    best = min(known, key=lambda routes: cost_of(network, routes))
    return _placement(network, best, max(bound, *(raised(network, each.bound) for each in found), 0.0))


def _placement(network: Network, routes: Routes, bound: float) -> Placement:
    cost = cost_of(network, routes)
    gap = max(0.0, (cost - bound) / cost) if cost > 0 else 0.0
    return Placement(
        relays_of(routes), needed_pairs(network, routes), tuple(routes), cost, gap if gap > 10 * EXACT else 0.0
    )


def _one_by_one(network: Network) -> Routes | None:
    """Each want by the cheapest way that is left, where what others built costs nothing; again until none gets cheaper.

    None where some order leaves one without a way: the solver then has to find it by itself.
    """
    if len(network.wants) < 2:
        return None
    routes: list[tuple[Route, ...]] = [()] * len(network.wants)
    cost = math.inf
    while True:
        for at in range(len(routes)):
            others = [() if other == at else paths for other, paths in enumerate(routes)]
            alone = _alone(_left(network, others, at))
            if alone is None:
                return None
            routes[at] = alone
        if (now := cost_of(network, routes)) >= cost - TIDY:
            return tuple(routes)
        cost = now


def _alone(network: Network) -> tuple[Route, ...] | None:
    """The cheapest paths of the only want: shortest disjoint ones, with a relay's cost on the hops that lead to it."""
    (want,) = network.wants
    if want.untrusted_max is not None:
        found = place(network)
        return None if isinstance(found, Unknown) else found.routes[0]
    graph: dict[str, dict[str, float]] = {site: {} for site in (*want.ends, *network.relays)}
    for hop in network.hops:
        for start, end in (hop.ends, hop.ends[::-1]):
            if start in graph and end in graph:
                relay = 0.0 if end == want.ends[1] else network.relays.get(end, 0.0)
                graph[start][end] = hop.cost + relay + TIDY
    routes = disjoint_routes(graph, *want.ends, want.paths)
    return tuple(routes) if len(routes) == want.paths else None


def _left(network: Network, routes: Routes, at: int) -> Network:
    """The network of want `at` alone, at the cost of what is not there yet."""
    built, pairs = relays_of(routes), needed_pairs(network, routes)
    load, want = loads(network, routes), network.wants[at]
    hops = []
    for hop in network.hops:
        more = math.ceil((load.get(hop.ends, 0.0) + want.bps) / max(hop.capacity_bps, 1e-300) - 1e-9)
        if more <= PAIRS_MAX:
            new = more - pairs.get(hop.ends, 0)
            hops.append(Hop(hop.ends, want.bps, hop.cost * new))
    relays = {site: 0.0 if site in built else cost for site, cost in network.relays.items()}
    return Network(relays, tuple(hops), (want,), network.untrusted)
