"""Where trusted nodes and QKD links have to stand so that every pair of sites gets its keys, at least cost.

A mixed-integer programme over candidate sites and hops. Each wanted key goes over one path, or over two without a common relay;
every hop of a path spends the whole rate. Solved by HiGHS, which proves how far from the best its answer can be at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from keystrand.plan.fact import Unknown
from keystrand.relay.routes import disjoint_routes

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAIRS_MAX: Final = 8  # QKD pairs side by side on one hop
TIME_S: Final = 45.0  # of the solver's searches; routes and bound before them take some seconds for a hundred sites
EXACT: Final = 1e-6  # share of the cost below which a gap is none
TIDY: Final = 1e-6  # cost of a key's step over a hop, so that nothing runs in circles for free

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


@dataclass(slots=True)
class _Programme:
    """Columns and rows of the programme as they are written down. Columns: a relay at a site, pairs on a hop, a want's step."""

    network: Network
    costs: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    rows: list[dict[int, float]] = field(default_factory=list)
    bounds: list[tuple[float, float]] = field(default_factory=list)
    relay: dict[str, int] = field(default_factory=dict)
    pairs: list[int] = field(default_factory=list)
    steps: list[dict[Ends, int]] = field(default_factory=list)

    def column(self, cost: float, high: float) -> int:
        self.costs.append(cost)
        self.highs.append(high)
        return len(self.costs) - 1

    def row(self, terms: dict[int, float], low: float, high: float) -> None:
        self.rows.append(terms)
        self.bounds.append((low, high))


def place(network: Network, *, time_s: float = TIME_S) -> Placement | Unknown:
    """The cheapest placement, or why there is none. `time_s`: after so long the best found is taken, and its gap says so.

    Many wants: routes found one by one cap the cost, the relaxation bounds it from below, a programme over what either of them
    uses is solved first, and the whole one in the time that is left. One want: the whole programme at once.
    """
    programme = _written(network)
    if isinstance(programme, Unknown):
        return programme
    if len(network.wants) == 1:
        return _best(network, [_milp(programme, time_s)], 0.0)
    first = _one_by_one(network)
    bound, relaxed = _relaxation(programme)
    if first is not None:
        programme.row(dict(enumerate(programme.costs)), 0, _cost(network, first) + TIDY * len(programme.costs))
        if _cost(network, first) <= bound * (1 + EXACT):
            return _placement(network, first, bound)
    some = _milp(programme, time_s / 3, _used(programme, first, relaxed))
    return _best(network, [_Solved(first, 0.0), _Solved(some.routes, 0.0), _milp(programme, time_s / 2)], bound)


@dataclass(frozen=True, slots=True)
class _Solved:
    """Routes, if any were found, and the least that any cost."""

    routes: Routes | None
    bound: float


def _best(network: Network, solved: Sequence[_Solved], bound: float) -> Placement | Unknown:
    found = [each.routes for each in solved if each.routes is not None]
    if not found:
        return Unknown(("no choice of relays and hops carries all that is wanted",))
    best = min(found, key=lambda routes: _cost(network, routes))
    return _placement(network, best, max([bound, *(each.bound for each in solved)]))


def _used(p: _Programme, routes: Routes | None, relaxed: NDArray[Any] | None) -> NDArray[Any]:
    """Columns that the relaxation or the routes use at all; relays and pairs stay open."""
    import numpy as np

    used = np.zeros(len(p.costs), dtype=bool) if relaxed is None else relaxed > TIDY
    used[: len(p.relay) + len(p.pairs)] = True
    for paths, steps in zip(routes or (), p.steps, strict=False):
        used[[steps[step] for route in paths for step in pairwise(route)]] = True
    return used


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
        if (now := _cost(network, routes)) >= cost - TIDY:
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
    built, pairs = _relays(routes), needed_pairs(network, routes)
    load, want = _loads(network, routes), network.wants[at]
    hops = []
    for hop in network.hops:
        more = math.ceil((load.get(hop.ends, 0.0) + want.bps) / max(hop.capacity_bps, 1e-300) - 1e-9)
        if more <= PAIRS_MAX:
            new = more - pairs.get(hop.ends, 0)
            hops.append(Hop(hop.ends, want.bps, hop.cost * new))
    relays = {site: 0.0 if site in built else cost for site, cost in network.relays.items()}
    return Network(relays, tuple(hops), (want,), network.untrusted)


def _written(network: Network) -> _Programme | Unknown:
    p = _Programme(network)
    for site in sorted(network.relays):
        p.relay[site] = p.column(network.relays[site], 1)
    p.pairs = [p.column(hop.cost, PAIRS_MAX) for hop in network.hops]
    for want in network.wants:
        steps = _steps(p, want)
        p.steps.append(steps)
        if isinstance(why := _conserve(p, want, steps), str):
            return Unknown((why,))
        _trust(p, want, steps)
    _capacities(p)
    return p


def _steps(p: _Programme, want: Want) -> dict[Ends, int]:
    """A column for each direction of each hop that this want may use: between its ends and sites that may relay."""
    allowed = {*want.ends, *p.network.relays}
    found = {}
    for hop in p.network.hops:
        one, other = hop.ends
        if not {one, other} <= allowed or hop.capacity_bps <= 0:
            continue
        for start, end in ((one, other), (other, one)):
            if end != want.ends[0] and start != want.ends[1]:
                found[start, end] = p.column(TIDY, 1)
    return found


def _conserve(p: _Programme, want: Want, steps: dict[Ends, int]) -> str | None:
    """As many paths leave the first end and reach the second; what enters a relay leaves it, at most once, if it is built."""
    into: dict[str, list[int]] = {}
    out: dict[str, list[int]] = {}
    for (start, end), column in steps.items():
        out.setdefault(start, []).append(column)
        into.setdefault(end, []).append(column)
    first, last = want.ends
    if len(out.get(first, ())) < want.paths or len(into.get(last, ())) < want.paths:
        return f"{first} and {last}: fewer than {want.paths} hops leave one of them"
    p.row(dict.fromkeys(out[first], 1.0), want.paths, want.paths)
    p.row(dict.fromkeys(into[last], 1.0), want.paths, want.paths)
    for site in sorted({*into, *out} - {first, last}):
        p.row(dict.fromkeys(into.get(site, ()), 1.0) | dict.fromkeys(out.get(site, ()), -1.0), 0, 0)
        p.row(dict.fromkeys(into.get(site, ()), 1.0) | {p.relay[site]: -1.0}, -math.inf, 0)
    return None


def _trust(p: _Programme, want: Want, steps: dict[Ends, int]) -> None:
    if want.untrusted_max is not None:
        foreign = p.network.untrusted - set(want.ends)
        used = [column for (_, end), column in steps.items() if end in foreign]
        p.row(dict.fromkeys(used, 1.0), 0, want.untrusted_max)


def _capacities(p: _Programme) -> None:
    """All keys over a hop fit its pairs; and no step goes over a hop that is not built, which ties the relaxation closely."""
    for hop, pairs in zip(p.network.hops, p.pairs, strict=True):
        load: dict[int, float] = {}
        for want, steps in zip(p.network.wants, p.steps, strict=True):
            both = [steps[ends] for ends in (hop.ends, hop.ends[::-1]) if ends in steps]
            load.update(dict.fromkeys(both, want.bps / max(hop.capacity_bps, 1e-300)))
            if both:
                p.row(dict.fromkeys(both, 1.0) | {pairs: -1.0}, -math.inf, 0)
        if load:
            p.row(load | {pairs: -1.0}, -math.inf, 0)


def _matrix(p: _Programme) -> tuple[Any, NDArray[Any], NDArray[Any]]:
    import numpy as np
    from scipy.sparse import csr_matrix

    entries = [(at, column, value) for at, row in enumerate(p.rows) for column, value in row.items()]
    rows, columns, values = zip(*entries, strict=True)
    low, high = (np.array(side) for side in zip(*p.bounds, strict=True))
    return csr_matrix((values, (rows, columns)), shape=(len(p.rows), len(p.costs))), low, high


def _milp(p: _Programme, time_s: float, used: NDArray[Any] | None = None) -> _Solved:
    """By HiGHS; `used`: with these columns only, whose bound then is none for the whole."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    matrix, low, high = _matrix(p)
    highs = np.array(p.highs) if used is None else np.where(used, p.highs, 0.0)
    result = milp(
        np.array(p.costs),
        constraints=LinearConstraint(matrix, low, high),
        bounds=Bounds(0, highs),
        integrality=np.ones(len(p.costs)),
        options={"time_limit": time_s, "mip_rel_gap": EXACT},
    )
    bound = result.mip_dual_bound
    known = bound is not None and math.isfinite(bound) and used is None
    return _Solved(_routes(p, result.x), float(bound) if known else 0.0)


def _relaxation(p: _Programme) -> tuple[float, NDArray[Any] | None]:
    """The programme without whole numbers, by an interior-point method: a bound in seconds where the simplex takes minutes."""
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    matrix, low, high = _matrix(p)
    equal, above = low == high, np.isfinite(low) & (low != high)
    below = np.isfinite(high) & ~equal
    result = linprog(
        np.array(p.costs),
        A_ub=vstack([matrix[below], -matrix[above]]),
        b_ub=np.concatenate([high[below], -low[above]]),
        A_eq=matrix[equal],
        b_eq=low[equal],
        bounds=[(0, most) for most in p.highs],
        method="highs-ipm",
    )
    return (float(result.fun), result.x) if result.status == 0 else (0.0, None)


def _routes(p: _Programme, columns: NDArray[Any] | None) -> Routes | None:
    if columns is None:
        return None
    return tuple(
        _paths(want, [ends for ends, column in steps.items() if columns[column] > 0.5])
        for want, steps in zip(p.network.wants, p.steps, strict=True)
    )


def _placement(network: Network, routes: Routes, bound: float) -> Placement:
    cost = _cost(network, routes)
    gap = max(0.0, (cost - bound) / cost) if cost > 0 else 0.0
    return Placement(
        _relays(routes), needed_pairs(network, routes), tuple(routes), cost, gap if gap > 10 * EXACT else 0.0
    )


def _relays(routes: Routes) -> tuple[str, ...]:
    return tuple(sorted({site for paths in routes for route in paths for site in route[1:-1]}))


def _cost(network: Network, routes: Routes) -> float:
    """Of what these routes need: relays once each, and pairs on every hop."""
    hop_cost = {hop.ends: hop.cost for hop in network.hops}
    pairs = sum(hop_cost[ends] * count for ends, count in needed_pairs(network, routes).items())
    return pairs + sum(network.relays[site] for site in _relays(routes))


def _paths(want: Want, steps: Sequence[Ends]) -> tuple[Route, ...]:
    """Followed from the first end; relays are entered once, so after the first step there is no choice."""
    after = {start: end for start, end in steps if start != want.ends[0]}
    routes = []
    for start, end in steps:
        if start == want.ends[0]:
            route = [start, end]
            while route[-1] != want.ends[1]:
                route.append(after[route[-1]])
            routes.append(tuple(route))
    return tuple(sorted(routes))


def needed_pairs(network: Network, routes: Routes) -> dict[Ends, int]:
    """QKD pairs on each hop, so that all keys of these routes fit."""
    capacity = {hop.ends: hop.capacity_bps for hop in network.hops}
    return {ends: math.ceil(bps / capacity[ends] - 1e-9) for ends, bps in _loads(network, routes).items()}


def _loads(network: Network, routes: Routes) -> dict[Ends, float]:
    """Key per second on each hop that is used."""
    named = {frozenset(hop.ends): hop.ends for hop in network.hops}
    load: dict[Ends, float] = {}
    for want, paths in zip(network.wants, routes, strict=True):
        for step in (step for route in paths for step in pairwise(route)):
            ends = named[frozenset(step)]
            load[ends] = load.get(ends, 0.0) + want.bps
    return dict(sorted(load.items()))
