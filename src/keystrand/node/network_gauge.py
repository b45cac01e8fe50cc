"""The network of relays as one site knows it, for people: its own ways, and the hops and sites that the adverts tell of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from itertools import pairwise
from typing import Final

from keystrand.observe.gauges import HopGauge, NetworkGauge, PlaceGauge, WayGauge
from keystrand.relay.atlas import STATED, RelayedLink, SiteFacts, day_of
from keystrand.relay.documents import DUE_DAYS
from keystrand.relay.linkstate import Closed
from keystrand.relay.relay import Relay
from keystrand.relay.routes import Route, disjoint_routes

HOPS_MAX: Final = 240  # told; those of our ways and those that are away first


def network_gauge(relay: Relay, name: str, routes: Mapping[str, tuple[Route, ...]]) -> NetworkGauge:
    """To be read in the loop that runs the relay. routes: of the links that end here, as they stand: to search them is dear."""
    ways = tuple(_ways(relay, routes))
    used = {frozenset(hop) for way in ways for route in way.routes for hop in pairwise(route)}
    closed, hops = relay.state.closed(), []
    bits = {(site, span.neighbour): span.bits for site, advert in relay.state.adverts.items() for span in advert.spans}
    for one, other in relay.atlas.hops:
        state = _state(relay, one, other, closed)
        held = min(bits.get((one, other), 0), bits.get((other, one), 0))
        hops.append(HopGauge(one=one, other=other, state=state, bits=held, used=frozenset((one, other)) in used))
    reached = {end for hop in hops if hop.state != "away" for end in (hop.one, hop.other)} | {relay.site}
    today = day_of(relay.clock.now_s())
    concerned = relay.documents.concerned(today)
    return NetworkGauge(
        network=name,
        places=tuple(
            _place(facts, relay, closed, reached, today, told=facts.name in concerned)
            for facts in relay.atlas.sites.values()
        ),
        hops=tuple(sorted(hops, key=lambda hop: (not hop.used, hop.state == "up"))[:HOPS_MAX]),
        hops_total=len(hops),
        ways=ways,
    )


def _ways(relay: Relay, found: Mapping[str, tuple[Route, ...]]) -> Iterator[WayGauge]:
    for link in relay.atlas.links.values():
        if relay.site in link.ends:
            routes = found.get(link.name, ())
            planned = not routes and _would_stand(relay, link)
            ends = (link.origin, link.target)
            yield WayGauge(link=link.name, ends=ends, paths=link.terms.paths, routes=routes, planned=planned)


def _would_stand(relay: Relay, link: RelayedLink) -> bool:
    """Whether the link had its routes if nothing was in maintenance."""
    graph = relay.state.graph(link, 0, closed=Closed(relay.state.barred))
    return len(disjoint_routes(graph, link.origin, link.target, link.terms.paths)) == link.terms.paths


def _state(relay: Relay, one: str, other: str, closed: Closed) -> str:
    if frozenset((one, other)) in closed.hops or {one, other} & closed.sites:
        return "closed"
    return "up" if relay.state.stands(one, other) else "away"


def _place(facts: SiteFacts, relay: Relay, closed: Closed, reached: set[str], today: date, *, told: bool) -> PlaceGauge:
    name, missing = facts.name, facts.missing(today)
    state = "up" if name in reached else "away"
    if name in closed.sites:
        state = "barred" if name in relay.state.barred else "maintenance"
    return PlaceGauge(
        site=name,
        state=state,
        missing=missing,
        lapsed=told and bool(missing) and not facts.missing(STATED),
        due=told and facts.lapses_within(today, DUE_DAYS),
    )
