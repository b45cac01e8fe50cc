"""Routes that share no site: as many as there are, none cheaper, held against trying everything out."""

from __future__ import annotations

from itertools import combinations, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.relay.routes import Graph, Route, disjoint_routes, fewest_hops


def all_routes(graph: Graph, origin: str, target: str) -> list[Route]:
    found: list[Route] = []

    def walk(route: Route) -> None:
        if route[-1] == target:
            found.append(route)
            return
        for site in graph.get(route[-1], {}):
            if site not in route:
                walk((*route, site))

    walk((origin,))
    return found


def cost_of(graph: Graph, routes: list[Route] | tuple[Route, ...]) -> float:
    return sum(graph[one][other] for route in routes for one, other in pairwise(route))


def are_disjoint(routes: tuple[Route, ...] | list[Route]) -> bool:
    inner = [site for route in routes for site in route[1:-1]]
    direct = sum(len(route) == 2 for route in routes)
    return len(inner) == len(set(inner)) and direct <= 1


def best(graph: Graph, count: int) -> tuple[int, float]:
    routes = all_routes(graph, "a", "z")
    for number in range(min(count, len(routes)), 0, -1):
        costs = [cost_of(graph, chosen) for chosen in combinations(routes, number) if are_disjoint(chosen)]
        if costs:
            return number, min(costs)
    return 0, 0.0


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, dict[str, float]]:
    names = ["a", *"bcdef"[: draw(st.integers(0, 5))], "z"]
    graph: dict[str, dict[str, float]] = {name: {} for name in names}
    for one, other in combinations(names, 2):
        if draw(st.booleans()):
            graph[one][other] = draw(st.integers(1, 9))
            graph[other][one] = draw(st.integers(1, 9))
    return graph


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(1, 3))
@pytest.mark.proves("R041")
def test_none_are_cheaper_and_none_are_missing(graph: dict[str, dict[str, float]], count: int) -> None:
    found = disjoint_routes(graph, "a", "z", count)
    assert are_disjoint(found)
    assert all(route[0] == "a" and route[-1] == "z" for route in found)
    assert (len(found), cost_of(graph, found)) == best(graph, count)


def test_a_trap_for_whoever_takes_the_shortest_first() -> None:
    """The cheapest single route uses the hop that both of a pair need: it must be undone."""
    graph: dict[str, dict[str, float]] = {
        "a": {"b": 1, "c": 4},
        "b": {"a": 1, "d": 1, "z": 4},
        "c": {"a": 4, "d": 1},
        "d": {"b": 1, "c": 1, "z": 1},
        "z": {"b": 4, "d": 1},
    }
    assert disjoint_routes(graph, "a", "z", 1) == [("a", "b", "d", "z")]
    assert disjoint_routes(graph, "a", "z", 2) == [("a", "b", "z"), ("a", "c", "d", "z")]


def test_a_large_network_is_routed_too() -> None:
    rng = Random(7)
    names = [str(n) for n in range(300)]
    graph: dict[str, dict[str, float]] = {name: {} for name in names}
    for one in names:
        for other in rng.sample(names, 3):
            if other != one:
                graph[one][other] = graph[other][one] = 1 + rng.random()
    routes = disjoint_routes(graph, "0", "299", 3)
    assert len(routes) == 3
    assert are_disjoint(routes)
    assert sum(map(len, fewest_hops(graph, "0", "299", 3))) <= sum(map(len, routes))


@given(graphs(), st.integers(1, 3), st.randoms(use_true_random=False))
def test_the_order_in_which_hops_are_told_changes_no_route(
    graph: dict[str, dict[str, float]], count: int, rng: Random
) -> None:
    """Sites hear of hops in any order, and equal costs must not make two processes disagree."""
    sites = rng.sample(sorted(graph), len(graph))
    mixed = {
        site: {other: graph[site][other] for other in rng.sample(sorted(graph[site]), len(graph[site]))}
        for site in sites
    }
    assert disjoint_routes(mixed, "a", "z", count) == disjoint_routes(graph, "a", "z", count)
