"""The mixed-integer programme of a placement, and HiGHS, which solves it: the one door to scipy's solvers.

Columns: a relay at a site, pairs on a hop, a want's step over a hop in one direction. Rows keep paths whole and loads within
pairs; more rows, which no best answer breaks, bring the relaxation nearer to whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, islice, pairwise
from typing import TYPE_CHECKING, Any, Final

from keystrand.plan.fact import Unknown
from keystrand.plan.placement import PAIRS_MAX, Ends, Network, Route, Routes, Want

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT: Final = 1e-6  # share of the cost below which a gap is none
INFEASIBLE: Final = 2  # status of scipy.optimize.milp
TIGHTER_MAX: Final = 40_000  # rows that only tighten: beyond so many, the solver loses by them

Row = tuple[dict[int, float], float, float]


@dataclass
class Programme:
    """Columns and rows as they are written down."""

    network: Network
    costs: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    relay: dict[str, int] = field(default_factory=dict)
    pairs: list[int] = field(default_factory=list)
    steps: list[dict[Ends, int]] = field(default_factory=list)

    def column(self, cost: float, high: float) -> int:
        self.costs.append(cost)
        self.highs.append(high)
        return len(self.costs) - 1

    def row(self, terms: dict[int, float], low: float, high: float) -> None:
        self.rows.append((terms, low, high))
        self.__dict__.pop("matrix", None)

    @cached_property
    def matrix(self) -> tuple[Any, NDArray[Any], NDArray[Any]]:
        """Sparse, with the bounds of its rows; kept until a row comes."""
        import numpy as np
        from scipy.sparse import csr_matrix

        entries = [(at, column, value) for at, (terms, _, _) in enumerate(self.rows) for column, value in terms.items()]
        rows, columns, values = zip(*entries, strict=True)
        low, high = (np.array([row[side] for row in self.rows]) for side in (1, 2))
        return csr_matrix((values, (rows, columns)), shape=(len(self.rows), len(self.costs))), low, high


@dataclass(frozen=True, slots=True)
class Solved:
    """Routes, if any were found, and the least that any cost. is_empty: it was proven that there are none."""

    routes: Routes | None
    bound: float
    is_empty: bool = False


def written(network: Network) -> Programme | Unknown:
    p = Programme(network)
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


def _steps(p: Programme, want: Want) -> dict[Ends, int]:
    """A column for each direction of each hop that this want may use: between its ends and sites that may relay."""
    allowed = {*want.ends, *p.network.relays}
    found = {}
    for hop in p.network.hops:
        one, other = hop.ends
        if not {one, other} <= allowed or hop.capacity_bps <= 0:
            continue
        for start, end in ((one, other), (other, one)):
            if end != want.ends[0] and start != want.ends[1]:
                found[start, end] = p.column(0.0, 1)
    return found


def _conserve(p: Programme, want: Want, steps: dict[Ends, int]) -> str | None:
    """As many paths leave the first end and reach the second; what enters a relay leaves it, at most once, if it is built."""
    into: dict[str, list[int]] = {}
    out: dict[str, list[int]] = {}
    for (start, end), column in steps.items():
        out.setdefault(start, []).append(column)
        into.setdefault(end, []).append(column)
    first, last = want.ends
    if len(out.get(first, ())) < want.paths or len(into.get(last, ())) < want.paths:
        hops = "no hop" if want.paths == 1 else "only one hop, or none,"
        return f"{first} and {last}: {hops} with enough key leaves one of them"
    p.row(dict.fromkeys(out[first], 1.0), want.paths, want.paths)
    p.row(dict.fromkeys(into[last], 1.0), want.paths, want.paths)
    for site in sorted({*into, *out} - {first, last}):
        p.row(dict.fromkeys(into.get(site, ()), 1.0) | dict.fromkeys(out.get(site, ()), -1.0), 0, 0)
        p.row(dict.fromkeys(into.get(site, ()), 1.0) | {p.relay[site]: -1.0}, -math.inf, 0)
    return None


def _trust(p: Programme, want: Want, steps: dict[Ends, int]) -> None:
    if want.untrusted_max is not None:
        foreign = p.network.untrusted - set(want.ends)
        used = [column for (_, end), column in steps.items() if end in foreign]
        p.row(dict.fromkeys(used, 1.0), 0, want.untrusted_max)


def _capacities(p: Programme) -> None:
    """All keys over a hop fit its pairs; and a step alone needs as many whole pairs as it does, which ties the relaxation."""
    for at, (hop, pairs) in enumerate(zip(p.network.hops, p.pairs, strict=True)):
        load: dict[int, float] = {}
        for number, want in enumerate(p.network.wants):
            share = want.bps / max(hop.capacity_bps, 1e-300)
            both = _over(p, number, at)
            load.update(dict.fromkeys(both, share))
            if both:
                p.row(dict.fromkeys(both, _whole(share)) | {pairs: -1.0}, -math.inf, 0)
        if load:
            p.row(load | {pairs: -1.0}, -math.inf, 0)


def _over(p: Programme, want: int, hop: int) -> list[int]:
    """Steps of a want over a hop, in both directions."""
    ends, steps = p.network.hops[hop].ends, p.steps[want]
    return [steps[step] for step in (ends, ends[::-1]) if step in steps]


def _whole(share: float) -> float:
    return float(max(1, math.ceil(share - 1e-9)))


def tightened(p: Programme) -> Programme:
    """With rows that no cheapest answer breaks, though the relaxation does: a better bound, and slower to find routes with."""
    more: list[Row] = [(terms, -math.inf, 0.0) for terms in islice(_tighter(p), TIGHTER_MAX)]
    return replace(p, rows=[*p.rows, *more])


def _tighter(p: Programme) -> Iterator[dict[int, float]]:
    yield from _oriented(p)
    yield from _apart(p)


def _apart(p: Programme) -> Iterator[dict[int, float]]:
    """Two keys that do not fit what is left of each other's last pair: together they need the pairs of both."""
    for at, (hop, pairs) in enumerate(zip(p.network.hops, p.pairs, strict=True)):
        shares = [want.bps / max(hop.capacity_bps, 1e-300) for want in p.network.wants]
        for one, other in combinations(range(len(shares)), 2):
            whole = [_whole(shares[one]), _whole(shares[other])]
            if _whole(shares[one] + shares[other]) == sum(whole) <= PAIRS_MAX:
                terms = [dict.fromkeys(_over(p, n, at), w) for n, w in zip((one, other), whole, strict=True)]
                yield terms[0] | terms[1] | {pairs: -1.0}


def _oriented(p: Programme) -> Iterator[dict[int, float]]:
    """Two equal keys with an end in common never cross a hop against each other: they could exchange their ways from that end,
    and leave the hop out."""
    plain = [(n, w) for n, w in enumerate(p.network.wants) if w.paths == 1 and w.untrusted_max is None]
    for (one, want), (other, its) in combinations(plain, 2):
        for root in sorted(set(want.ends) & set(its.ends)) if want.bps == its.bps else ():
            for hop, pairs in zip(p.network.hops, p.pairs, strict=True):
                for step in (hop.ends, hop.ends[::-1]):
                    there = p.steps[one].get(step if want.ends[0] == root else step[::-1])
                    back = p.steps[other].get(step[::-1] if its.ends[0] == root else step)
                    if there is not None and back is not None:
                        yield {there: 1.0, back: 1.0, pairs: -1.0}


def grain(network: Network) -> float:
    """What every cost is a multiple of; 0 where they are no whole numbers."""
    costs = [*network.relays.values(), *(hop.cost for hop in network.hops)]
    return float(math.gcd(*map(int, costs))) if all(cost == int(cost) for cost in costs) else 0.0


def raised(network: Network, bound: float) -> float:
    """A bound, up to the next cost that there can be."""
    step = grain(network)
    return step * math.ceil(bound / step - 1e-6) if step else bound


def solved(p: Programme, time_s: float, fixed: Routes | None = None, free: Sequence[int] = ()) -> Solved:
    """By HiGHS. fixed: all wants but the `free` ones keep these routes; the bound then is none for the whole."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    matrix, low, high = p.matrix
    lows, highs = _kept(p, fixed, free)
    open_ = (
        highs > lows
    )  # what is settled leaves the programme: the solver would take longer to see it than to solve the rest
    settled = matrix @ lows
    rows = matrix[:, open_]
    asked = np.diff(rows.indptr) > 0
    result = milp(
        np.array(p.costs)[open_],
        constraints=LinearConstraint(rows[asked], (low - settled)[asked], (high - settled)[asked]),
        bounds=Bounds(lows[open_], highs[open_]),
        integrality=np.ones(int(open_.sum())),
        options={"time_limit": time_s, "mip_rel_gap": EXACT},
    )
    bound = result.mip_dual_bound
    known = bound is not None and math.isfinite(bound) and fixed is None
    columns = None if result.x is None else lows.copy()
    if columns is not None:
        columns[open_] = result.x
    return Solved(_routes(p, columns), float(bound) if known else 0.0, is_empty=result.status == INFEASIBLE)


def _kept(p: Programme, fixed: Routes | None, free: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bounds of the columns."""
    import numpy as np

    lows, highs = np.zeros(len(p.costs)), np.array(p.highs, dtype=float)
    for at, paths in enumerate(fixed or ()):
        if at not in free:
            used = [p.steps[at][step] for route in paths for step in pairwise(route)]
            highs[list(p.steps[at].values())] = 0.0
            lows[used] = highs[used] = 1.0
    return lows, highs


def relaxation(p: Programme) -> float:
    """The programme without whole numbers, by an interior-point method: a bound in seconds where the simplex takes minutes."""
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    matrix, low, high = p.matrix
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
    return float(result.fun) if result.status == 0 else 0.0


def _routes(p: Programme, columns: NDArray[Any] | None) -> Routes | None:
    if columns is None:
        return None
    return tuple(
        _paths(want, [ends for ends, column in steps.items() if columns[column] > 0.5])
        for want, steps in zip(p.network.wants, p.steps, strict=True)
    )


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
