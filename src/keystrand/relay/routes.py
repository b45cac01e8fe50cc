"""Routes that share no site, as cheap as can be: successive shortest paths through a network whose sites carry one route each.

Suurballe and Tarjan (Networks 14, 1984) for any number of paths: each round finds the cheapest way to have one path more, which
may undo hops of earlier ones (cost given back). Sites are split in two, joined by an arc that one path fills. Dijkstra with the
potentials of Johnson (J. ACM 24(1), 1977) keeps the costs non-negative.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

Graph = Mapping[str, Mapping[str, float]]  # site -> neighbour -> cost of the hop, above 0
State = tuple[str, bool]  # a site, before (False) or behind (True) its own arc
Route = tuple[str, ...]


def disjoint_routes(graph: Graph, origin: str, target: str, count: int) -> list[Route]:
    """At most `count` routes from origin to target without a common site between, of least total cost.

    Fewer where there are no more: the most that there are.
    """
    search = _Search(graph, origin, target)
    while len(search.ends) < count and search.widen():
        pass
    return sorted(search.routes(), key=lambda route: (len(route), route))


def fewest_hops(graph: Graph, origin: str, target: str, count: int) -> list[Route]:
    """The same with every hop of one cost, so that no other set of routes has fewer relays in all."""
    return disjoint_routes({site: dict.fromkeys(around, 1.0) for site, around in graph.items()}, origin, target, count)


class _Search:
    """The routes so far, as who comes before and behind each site on them."""

    def __init__(self, graph: Graph, origin: str, target: str) -> None:
        self.graph, self.origin, self.target = graph, origin, target
        self.before: dict[str, str] = {}
        self.behind: dict[str, str] = {}
        self.firsts: set[str] = set()  # what follows the origin
        self.ends: set[str] = set()  # what the target follows
        self.potential: dict[State, float] = {}

    def routes(self) -> Iterator[Route]:
        for first in self.firsts:
            route, site = [self.origin], first
            while site != self.target:
                route.append(site)
                site = self.behind[site]
            yield (*route, self.target)

    def widen(self) -> bool:
        """One route more, if there is one."""
        came = self._cheapest()
        if came is None:
            return False
        steps: list[tuple[State, State]] = []
        state: State = (self.target, False)
        while state != (self.origin, True):
            steps.append((came[state], state))
            state = came[state]
        hops = [(one[0], other[0], one[1]) for one, other in steps if one[0] != other[0]]
        for tail, head, forward in hops:
            if not forward:  # walked against its direction: the hop is given back
                self._take_out(head, tail)
        for tail, head, forward in hops:
            if forward:
                self._put_in(tail, head)
        return True

    def _put_in(self, tail: str, head: str) -> None:
        if tail == self.origin:
            self.firsts.add(head)
        else:
            self.behind[tail] = head
        if head == self.target:
            self.ends.add(tail)
        else:
            self.before[head] = tail

    def _take_out(self, tail: str, head: str) -> None:
        if tail == self.origin:
            self.firsts.discard(head)
        elif self.behind.get(tail) == head:
            del self.behind[tail]
        if head == self.target:
            self.ends.discard(tail)
        elif self.before.get(head) == tail:
            del self.before[head]

    def _uses(self, tail: str, head: str) -> bool:
        if tail == self.origin:
            return head in self.firsts
        return self.behind.get(tail) == head

    def _onward(self, state: State) -> Iterator[tuple[State, float]]:
        """Where one can go from here, at which cost; a hop in use can only be given back."""
        site, is_behind = state
        inner = site in self.before or site in self.behind
        if is_behind:
            for head, cost in self.graph.get(site, {}).items():
                if head != self.origin and not self._uses(site, head):
                    yield (head, False), cost
            if inner:
                yield (site, False), 0.0
            return
        if site == self.target:
            return
        if not inner:
            yield (site, True), 0.0
        elif (tail := self.before.get(site)) is not None:
            yield (tail, True), -self.graph[tail][site]

    def _cheapest(self) -> dict[State, State] | None:
        """The cheapest way to the target, as who came from where; None: there is none."""
        start: State = (self.origin, True)
        cost: dict[State, float] = {start: 0.0}
        came: dict[State, State] = {}
        heap = [(0.0, start)]  # equal costs go by name, so that every process finds the same routes
        done: set[State] = set()
        while heap:
            so_far, state = heapq.heappop(heap)
            if state in done:
                continue
            done.add(state)
            here = self.potential.get(state, 0.0)
            for other, step in self._onward(state):
                total = so_far + max(0.0, step + here - self.potential.get(other, 0.0))
                if other not in done and total < cost.get(other, float("inf")):
                    cost[other] = total
                    came[other] = state
                    heapq.heappush(heap, (total, other))
        end: State = (self.target, False)
        if end not in done:
            return None
        farthest = max(cost[state] for state in done)
        for state in set(self.potential) | done:
            self.potential[state] = self.potential.get(state, 0.0) + (cost[state] if state in done else farthest)
        return came
