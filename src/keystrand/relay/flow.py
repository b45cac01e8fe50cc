"""How fast a relayed link can fill at most: a flow over several routes at once.

A block in k parts needs k routes that share no site, so k times its rate flows, and no site carries more than that rate. R is
reached exactly where the maximum flow with hops and sites capped at R is k R (multiroute flow: Kishimoto, IEEE Trans. Circuits
Syst. 43, 1996). The smallest cut is C + n R, with n capped arcs in it, so R comes down by Newton's steps C / (k - n). Flows are
found by shortest augmenting paths (Edmonds and Karp, J. ACM 19(2), 1972).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

Rates = Mapping[str, Mapping[str, float]]  # site -> neighbour -> bits per second that the hop makes
State = tuple[str, bool]  # a site, before (False) or behind (True) its own arc
Arcs = dict[State, dict[State, float]]
ROUNDS_MAX = 64
SMALL = 1e-9  # of the rate: what counts as nothing


def fill_bps(rates: Rates, origin: str, target: str, paths: int) -> float:
    """Bits per second of blocks in `paths` parts, all of them needed; 0 where there are fewer routes that share no site."""
    rate = sum(rates.get(origin, {}).values())
    for _ in range(ROUNDS_MAX):
        if rate <= 0:
            return 0.0
        fixed, capped = _smallest_cut(rates, origin, target, rate)
        if fixed + capped * rate >= paths * rate * (1 - SMALL):
            return rate
        rate = fixed / (paths - capped)
    return rate


def _smallest_cut(rates: Rates, origin: str, target: str, cap: float) -> tuple[float, int]:
    """The bits per second that the cut's slower hops let pass, and how many of its hops and sites let pass `cap`."""
    arcs = _arcs(rates, origin, target, cap)
    residual = {state: dict(heads) for state, heads in arcs.items()}
    start, end = (origin, True), (target, False)
    reached = _reached(residual, start, cap)
    while end in reached:
        _push(residual, reached, start, end)
        reached = _reached(residual, start, cap)
    crossing = [rate for tail in reached for head, rate in arcs.get(tail, {}).items() if head not in reached]
    capped = sum(rate >= cap for rate in crossing)
    return sum(rate for rate in crossing if rate < cap), capped


def _arcs(rates: Rates, origin: str, target: str, cap: float) -> Arcs:
    arcs: Arcs = {}
    for site, around in rates.items():
        if site not in {origin, target}:
            arcs[site, False] = {(site, True): cap}
        arcs[site, True] = {(other, False): min(rate, cap) for other, rate in around.items() if rate > 0}
    return arcs


def _push(residual: Arcs, came: Mapping[State, State], start: State, end: State) -> None:
    """As much as the way that led to the end lets pass."""
    way, place = list[tuple[State, State]](), end
    while place != start:
        way.append((came[place], place))
        place = came[place]
    step = min(residual[tail][head] for tail, head in way)
    for tail, head in way:
        residual[tail][head] -= step
        back = residual.setdefault(head, {})
        back[tail] = back.get(tail, 0.0) + step


def _reached(residual: Arcs, start: State, cap: float) -> dict[State, State]:
    """What can still be reached, and whence, by the fewest arcs."""
    came, waiting = {start: start}, deque([start])
    while waiting:
        state = waiting.popleft()
        for other, left in residual.get(state, {}).items():
            if left > cap * SMALL and other not in came:
                came[other] = state
                waiting.append(other)
    return came
