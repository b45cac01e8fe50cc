"""Networks to simulate or to found: connected, with relayed links between sites that are no neighbours."""

from __future__ import annotations

import random
from itertools import combinations

from keystrand.relay.atlas import Atlas, RelayedLink, SiteFacts, Terms
from keystrand.relay.routes import disjoint_routes

Hop = tuple[str, str]


def network_text(hops: str, **links: str) -> str:
    """network.toml of sites named by one letter: `network_text("ab bc", ac="paths = 2")` has sites a, b, c and a link a-c."""
    parts = ['name = "net"', *(f"[sites.{site}]" for site in sorted(set(hops) - {" "}))]
    parts += [f'[[hops]]\nends = ["{hop[0]}", "{hop[1]}"]' for hop in hops.split()]
    for ends, more in links.items():
        one, other = tuple(ends)
        parts.append(f'[links.{one}-{other}]\nends = ["{one}", "{other}"]\naccept_undocumented = true\n{more}')
    return "\n".join([*parts, ""])


def names_of(count: int) -> list[str]:
    return [f"s{number:02d}" for number in range(count)]


def drawn_hops(rng: random.Random, names: list[str], more: int) -> tuple[Hop, ...]:
    """A ring, so that there are two ways to every site, and `more` hops across it."""
    hops = {tuple(sorted(pair)) for pair in zip(names, names[1:] + names[:1], strict=True)}
    others = [pair for pair in combinations(names, 2) if pair not in hops]
    hops |= set(rng.sample(others, min(more, len(others))))
    return tuple(sorted((one, other) for one, other in hops))


def drawn_atlas(rng: random.Random, sites: int, links: int, *, paths: int = 2, needed: int = 0) -> Atlas:
    """So many sites, and relayed links that have as many routes as their terms ask for."""
    names = names_of(sites)
    hops = drawn_hops(rng, names, sites // 2)
    graph: dict[str, dict[str, float]] = {name: {} for name in names}
    for one, other in hops:
        graph[one][other] = graph[other][one] = 1.0
    pairs = [pair for pair in combinations(names, 2) if pair not in hops]
    rng.shuffle(pairs)
    made: dict[str, RelayedLink] = {}
    terms = Terms(paths=paths, needed=needed, accept_undocumented=True)
    for one, other in pairs:
        if len(made) < links and len(disjoint_routes(graph, one, other, paths)) == paths:
            name = f"{one}-{other}"
            made[name] = RelayedLink(name=name, ends=(one, other), terms=terms)
    facts = {name: SiteFacts(name=name, owner=f"owner-{number % 3}") for number, name in enumerate(names)}
    return Atlas(facts, hops, made)
