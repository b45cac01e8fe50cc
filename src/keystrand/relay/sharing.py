"""How pairs share the hops that their fills compete for: weighted max-min fair, over several ways at once.

What is drawn now is served first. What hops make beyond that goes to the links that fill, in proportion to the demand that is
expected of them: always the one that has least of its due gets a little more, over whichever of its ways is least crowded,
until no way of it has room (progressive filling, Bertsekas and Gallager, Data Networks, 6.5.2; over several ways as in SWAN,
Hong et al., SIGCOMM 2013). Every origin works this out for itself from the adverts. Where two of them know different states for
a while, one gets more than its share, and nothing worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from typing import Final

from keystrand.relay.atlas import Atlas, RelayedLink, day_of
from keystrand.relay.linkstate import Closed, LinkState
from keystrand.relay.routes import Graph, Route, disjoint_routes
from keystrand.wire.relay import Want

WAYS: Final = 8  # of each link, at most, over which its blocks go
CROWDED: Final = 3.0  # times dearer is a hop with each way found over it, when the next is looked for
QUANTA: Final = 32  # in which the slowest hop of a way is given out
STEEP: Final = 8
PLAN_S: Final = 5.0  # between two plans
LOOKS: Final = 4  # links at most whose ways are looked for for one plan
BURST: Final = 2  # blocks' worth of its share that a way saves up

Way = tuple[Route, ...]  # routes that share no site, one for each part of a block
Hop = tuple[str, str]  # in the order of their names
Shares = dict[str, dict[Way, float]]  # link -> way -> bits per second of each hop on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one link asks for. live_bps: is drawn now; due: to which its share of the rest is in proportion; 0: it is full."""

    link: str
    ways: tuple[Way, ...]
    live_bps: float
    due: float


def hops_of(way: Way) -> Iterator[Hop]:
    for route in way:
        for one, other in pairwise(route):
            yield (one, other) if one < other else (other, one)


def share(rates_bps: Mapping[Hop, float], claims: Iterable[Claim]) -> Shares:
    """Bits per second of each way of each link; rates_bps: what every hop makes and nothing else takes."""
    table = sorted((claim for claim in claims if claim.ways), key=lambda claim: claim.link)
    rest = dict(rates_bps)
    shares: Shares = {claim.link: dict.fromkeys(claim.ways, 0.0) for claim in table}
    _fill(shares, rates_bps, rest, table, {claim.link: claim.live_bps for claim in table}, live=True)
    _fill(shares, rates_bps, rest, [claim for claim in table if claim.due], {}, live=False)
    return shares


def _fill(
    shares: Shares,
    rates_bps: Mapping[Hop, float],
    rest: dict[Hop, float],
    claims: list[Claim],
    most_bps: Mapping[str, float],
    *,
    live: bool,
) -> None:
    given = dict.fromkeys((claim.link for claim in claims), 0.0)
    due = {claim.link: claim.live_bps if live else claim.due for claim in claims}
    growing = {claim.link: claim for claim in claims if due[claim.link] > 0}
    while growing:
        link = min(growing, key=lambda name: (given[name] / due[name], name))
        way = min(growing[link].ways, key=lambda way: _crowd(way, rates_bps, rest))
        room = min(rest.get(hop, 0.0) for hop in hops_of(way))
        step = min(room, min(rates_bps.get(hop, 0.0) for hop in hops_of(way)) / QUANTA)
        step = min(step, most_bps.get(link, step + given[link]) - given[link])
        if step <= 0:
            del growing[link]
            continue
        given[link] += step
        shares[link][way] += step
        for hop in hops_of(way):
            rest[hop] = max(0.0, rest[hop] - step) if rest[hop] - step > 1e-9 * rates_bps[hop] else 0.0


def _crowd(way: Way, rates_bps: Mapping[Hop, float], rest: Mapping[Hop, float]) -> float:
    """What a bit over this way costs others: one for each hop, and steeply more the less of it is left."""
    return sum(
        (rates_bps[hop] / rest[hop]) ** STEEP if rest.get(hop, 0.0) > 0 else float("inf") for hop in hops_of(way)
    )


def ways_of(atlas: Atlas, link: RelayedLink, today: date) -> tuple[Way, ...]:
    """Some ways of the link, were every hop up, shortest first, that share as few hops as can be."""
    inner = atlas.permitted(link, today) | {*link.ends}
    costs = {site: dict.fromkeys(atlas.neighbours(site) & inner, 1.0) for site in inner}
    found: dict[Way, None] = {}
    for _ in range(WAYS):
        way = tuple(disjoint_routes(costs, link.origin, link.target, link.terms.paths))
        if len(way) == link.terms.paths and all(atlas.is_route(route, link, today) for route in way):
            found[way] = None
        for one, other in hops_of(way):
            for tail, head in ((one, other), (other, one)):
                if head in costs.get(tail, {}):
                    costs[tail][head] *= CROWDED
    return tuple(found)


@dataclass(slots=True)
class Sharing:
    """The plan of one site, made when a hop is scarce, and what its own links have saved up of their shares."""

    state: LinkState
    plan: Shares = field(default_factory=dict)
    _ways: dict[str, tuple[Way, ...]] = field(default_factory=dict)
    _unseen: list[str] = field(default_factory=list)  # links whose ways are still to be looked for
    _day: date = date.min
    _saved: dict[tuple[str, Way], float] = field(default_factory=dict)
    _planned_s: float = float("-inf")
    _ticked_s: float = float("inf")

    def tick(self, own: Iterable[str], need_bits: int) -> None:
        """own: links of ours that fill. need_bits: that a block takes of each hop."""
        now_s = self.state.clock.monotonic_s()
        known = {link for link, _ in self._saved}
        for link in own:
            ways = self._sound(link)
            if ways and link not in known:  # the first block is not waited for
                self._saved[link, max(ways, key=lambda way: (ways[way], way))] = float(need_bits)
            for way, bps in ways.items():
                saved = self._saved.get((link, way), 0.0) + bps * max(0.0, now_s - self._ticked_s)
                self._saved[link, way] = min(saved, BURST * float(need_bits))
        self._ticked_s = now_s

    def renew(self) -> None:
        """Plan again, where the plan is not of just now."""
        now_s, atlas = self.state.clock.monotonic_s(), self.state.atlas
        if now_s < self._planned_s + PLAN_S and not self._unseen:
            return
        if (today := day_of(self.state.clock.now_s())) != self._day:
            self._day, self._ways = today, {}
        wants = {link.name: want for link, want in self._wants()}
        self._unseen = [name for name in wants if name not in self._ways]
        for name in self._unseen[:LOOKS]:
            self._ways[name] = ways_of(atlas, atlas.links[name], today)
        del self._unseen[:LOOKS]
        self._planned_s = now_s
        self.plan = share(self._rates(), list(self._claims(wants)))
        self._saved = {place: bits for place, bits in self._saved.items() if place[1] in self.plan.get(place[0], {})}

    def _wants(self) -> Iterator[tuple[RelayedLink, Want]]:
        for name in sorted(self.state.adverts):
            for want in self.state.adverts[name].wants:
                link = self.state.atlas.links.get(want.link)
                if link is not None and link.origin == name:
                    yield link, want

    def _claims(self, wants: Mapping[str, Want]) -> Iterator[Claim]:
        """A link of which nobody knows what it needs is due as much as the least of the others."""
        links, closed = self.state.atlas.links, self.state.closed()
        known = {name: max(float(want.live_bps), links[name].expected_bps) for name, want in wants.items()}
        least = min((bps for bps in known.values() if bps > 0), default=1.0)
        for name, want in wants.items():
            if name in self._ways:
                due = (known[name] or least) if want.is_filling else 0.0
                ways = tuple(way for way in self._ways[name] if self._stands(way, closed))
                yield Claim(link=name, ways=ways, live_bps=float(want.live_bps), due=due)

    def _stands(self, way: Way, closed: Closed) -> bool:
        return all(closed.sites.isdisjoint(route) for route in way) and all(
            self.state.stands(*hop) and frozenset(hop) not in closed.hops for hop in hops_of(way)
        )

    def _rates(self) -> dict[Hop, float]:
        """What both ends of a hop say that it makes."""
        rates: dict[Hop, float] = {}
        for name, advert in self.state.adverts.items():
            for span in advert.spans:
                hop = min(name, span.neighbour), max(name, span.neighbour)
                rates[hop] = min(rates.get(hop, float(span.rate_bps)), float(span.rate_bps))
        return rates

    # turns of our links --------------------------------------------------------------------------------------------

    def binds(self, link: str) -> bool:
        """Whether the plan gives this link a share, to which it has to keep where hops are scarce."""
        return any(bps > 0 for bps in self.plan.get(link, {}).values())

    def _sound(self, link: str) -> dict[Way, float]:
        """The ways of ours on which fewest hops are suspect, with the shares of the others on top."""
        planned = self.plan.get(link, {})
        doubts = {way: sum(self.state.doubts(*hop) for hop in hops_of(way)) for way in planned}
        fewest = min(doubts.values(), default=0)
        sound = {way: bps for way, bps in planned.items() if doubts[way] == fewest}
        total, kept = sum(planned.values()), sum(sound.values())
        return {way: bps * total / kept if kept > 0 else total / len(sound) for way, bps in sound.items()}

    def due(self, link: str, graph: Graph, need_bits: int) -> Way | None:
        """The way over which a block of this link may go now: what it saved up for it, and the graph's hops, suffice."""
        ready = [
            way
            for way in self._sound(link)
            if self._saved.get((link, way), 0.0) >= need_bits
            if all(other in graph.get(one, {}) for route in way for one, other in pairwise(route))
        ]
        return max(ready, key=lambda way: (self._saved[link, way], way), default=None)

    def spend(self, link: str, way: Way, need_bits: int) -> None:
        if (link, way) in self._saved:
            self._saved[link, way] = max(0.0, self._saved[link, way] - need_bits)
