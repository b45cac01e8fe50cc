"""Blocks that begin at a site: when one is due and over which way, and what becomes of those under way.

Several blocks of a link may be under way at once. Each is called by a sequence until its target has it; the target's KME gives
it its number, and ours takes it under that (relay/supply.py). So none waits for one that goes a slower way.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final

from keystrand.core.clock import Clock, Entropy
from keystrand.core.secret import Secret
from keystrand.core.way import Way
from keystrand.crypto.onetime import pad_bytes
from keystrand.relay.atlas import RelayedLink, day_of
from keystrand.relay.linkstate import LinkState
from keystrand.relay.pace import Pace
from keystrand.relay.ports import AHEAD_MAX, Deliver, Orders
from keystrand.relay.routes import Graph, Route, disjoint_routes, fewest_hops
from keystrand.relay.sharing import Sharing
from keystrand.relay.split import split
from keystrand.relay.supply import FILL, Fill, Joint, Sending, Supply
from keystrand.wire.relay import Joined, Lost, Place

SPARE: Final = 4  # pads that a hop has at least where a link above its floor takes one
PLENTY: Final = 16  # pads with which a hop has enough for everybody: below, links keep to their shares
SPOILT_MAX: Final = 64  # blocks whose routes are remembered, in case their bits turn out to differ


class Sender:
    """forward: takes a share to the first site of its route; drop: is told of a block that is given up."""

    def __init__(
        self,
        site: str,
        state: LinkState,
        orders: Orders,
        *,
        clock: Clock,
        entropy: Entropy,
        pace: Pace,
        fill: Fill = FILL,
        forward: Callable[[Place, int, Secret], None],
        drop: Callable[[str, int], None],
    ) -> None:
        self.atlas, self.state, self.orders, self.pace, self.fill = state.atlas, state, orders, pace, fill
        self.clock, self.entropy = clock, entropy
        self.need_bits = 8 * pad_bytes(pace.block_bytes)  # that a share takes of each hop
        self.sharing = Sharing(state)
        self.supplies = {link.name: Supply(link) for link in self.atlas.links.values() if link.origin == site}
        self._forward, self._drop = forward, drop
        self._ways: deque[tuple[str, int, Way]] = deque(maxlen=SPOILT_MAX)

    def in_hand(self) -> Iterable[str]:
        """The neighbour that each share of each block under way sets out to."""
        return (
            route[1]
            for supply in self.supplies.values()
            for sent in supply.sendings.values()
            for route in sent.way.routes
        )

    def tick(self) -> None:
        """Give up what is late or has no way any more, then begin what is due."""
        now_s = self.clock.monotonic_s()
        for supply in self.supplies.values():
            for sequence, sending in list(supply.sendings.items()):
                if now_s >= sending.deadline_s:
                    self._suspect(sending.way.routes, sending.began_s)
                    self._give_up(supply, sequence, "time")
                elif self._has_broken(sending):
                    self._give_up(supply, sequence, "a hop of its routes is gone", pause=False)
            self._take(supply)
        self.sharing.tick([name for name, supply in self.supplies.items() if supply.is_wanted], self.need_bits)
        closed = self.state.closed().sites
        for supply in self.supplies.values():
            if not closed & {*supply.link.ends}:  # nothing begins or ends at a site that drains
                while self._wants(supply) and self._begin(supply):
                    pass

    def _wants(self, supply: Supply) -> bool:
        coming_bits = 8 * self.pace.block_bytes * (len(supply.sendings) + len(supply.joints))
        return (
            len(supply.sendings) < self.pace.at_once
            and supply.missing_bits > coming_bits
            and self.clock.monotonic_s() >= supply.not_before_s
        )

    # a block sets out ----------------------------------------------------------------------------------------------

    def routes(self, link: RelayedLink, *, spare: int = 1) -> list[Route]:
        """Routes for one block now: as many as the terms ask for, or none. spare: so many pads each hop has at least."""
        return self._cheapest(link, self.state.graph(link, spare * self.need_bits))

    def _cheapest(self, link: RelayedLink, graph: Graph) -> list[Route]:
        today = day_of(self.clock.now_s())
        for search in (disjoint_routes, fewest_hops):
            found = search(graph, link.origin, link.target, link.terms.paths)
            if len(found) < link.terms.paths:
                return []  # there are no more, whatever hops cost
            if all(self.atlas.is_route(route, link, today) for route in found):
                return found
        return []

    def _busy(self, supply: Supply) -> dict[frozenset[str], int]:
        """Bits of hops that this link's blocks under way take, as if no site had said so yet."""
        routes = (route for sending in supply.sendings.values() for route in sending.way.routes)
        shares = Counter(frozenset(hop) for route in routes for hop in pairwise(route))
        return {hop: count * self.need_bits for hop, count in shares.items()}

    def _turn(self, supply: Supply, routes: list[Route], graph: Graph) -> list[Route]:
        """Routes for the next block: the cheapest where their hops hold plenty, else those that its share was saved up for."""
        link = supply.link.name
        if not routes or self.state.holds(routes, PLENTY * self.need_bits):
            return routes
        self.sharing.renew()
        if not self.sharing.binds(link):
            return routes
        way = self.sharing.due(link, graph, self.need_bits)
        if way is not None:
            self.sharing.spend(link, way, self.need_bits)
        return list(way or ())

    def _begin(self, supply: Supply) -> bool:
        """Whether a block set out."""
        link, now_s = supply.link, self.clock.monotonic_s()
        graph = self.state.graph(link, (SPARE if supply.is_ahead else 1) * self.need_bits, busy=self._busy(supply))
        cheapest = self._cheapest(link, graph)
        routes = self._turn(supply, cheapest, graph)
        if not routes:
            if cheapest or supply.sendings:
                supply.not_before_s = now_s + self.pace.pause_s  # others have their turn
                return False
            if not supply.is_ahead:
                self.orders.tell("relay.no_route", link=link.name, paths=link.terms.paths)
            self._pause(supply, now_s)
            return False
        way = Way(link.terms.threshold, tuple(routes))
        block = Secret(self.entropy.bytes(self.pace.block_bytes))
        sequence = supply.begin(Sending(block, way, now_s, now_s + self.pace.block_s), skip=self.pace.at_once)
        for part, text in enumerate(split(block, way.needed, len(routes), entropy=self.entropy.bytes), 1):
            self._forward(Place(link.name, sequence, way.needed, part, way.routes), 1, text)
        return True

    # a block comes to its target -----------------------------------------------------------------------------------

    def joined(self, joined: Joined) -> None:
        """The target says what became of our block; its word counts for no more than its KME's announcement will."""
        place, supply = joined.place, self.supplies[joined.place.link]
        sending = supply.sendings.get(place.sequence)
        if sending is None or sending.way.routes != place.routes:
            return
        now_s, most = self.clock.monotonic_s(), max(supply.following, place.sequence) + AHEAD_MAX
        if not joined.is_kept:
            supply.following = max(supply.following, min(joined.next_sequence, most))
            self._give_up(supply, place.sequence, "refused")
            return
        del supply.sendings[place.sequence]
        supply.failures = 0
        for hop in (hop for route in sending.way.routes for hop in pairwise(route)):
            self.state.trust(*hop)
        supply.joints.append(Joint(min(joined.next_sequence, most) - 1, sending, now_s + self.pace.hop_s))
        self._take(supply)

    def _take(self, supply: Supply) -> None:
        """Blocks that it is our KME's turn to take; what it refuses, the target's KME burns."""
        for joint in supply.due(self.clock.monotonic_s()):
            name, number, sending = supply.link.name, joint.number, joint.sending
            self._ways.append((name, number, sending.way))
            ticket = self.orders.ticket()
            self.orders.give(Deliver(ticket, name, number, sending.block, str(sending.way), number))

    # a block does not come -----------------------------------------------------------------------------------------

    def lost(self, lost: Lost) -> None:
        """A share of ours went no further."""
        place, supply = lost.place, self.supplies[lost.place.link]
        sending = supply.sendings.get(place.sequence)
        if sending is None or sending.way.routes != place.routes or place.part in sending.lost:
            return
        self._suspect_at(place.route, lost.at, sending.began_s)
        sending.lost.add(place.part)
        if sending.is_hopeless:
            self._give_up(supply, place.sequence, f"{lost.reason} at {lost.at}")

    def spoilt(self, link: str, number: int) -> None:
        """The two ends got different bits: somebody on the routes lies."""
        for name, known, way in self._ways:
            if (name, known) == (link, number):
                self._suspect(way.routes, self.clock.monotonic_s())

    def _has_broken(self, sending: Sending) -> bool:
        """Whether too many of its routes lost a hop meanwhile: another way is found sooner than a deadline passes."""
        for part, route in enumerate(sending.way.routes, 1):
            if not all(self.state.stands(one, other) for one, other in pairwise(route)):
                sending.lost.add(part)
        return sending.is_hopeless

    def _give_up(self, supply: Supply, sequence: int, reason: str, *, pause: bool = True) -> None:
        sending = supply.sendings.pop(sequence)
        sending.block.wipe()
        self._drop(supply.link.name, sequence)
        if pause:
            self._pause(supply, sending.began_s)
        self.orders.tell("relay.block_lost", link=supply.link.name, sequence=sequence, reason=reason)

    def _pause(self, supply: Supply, began_s: float) -> None:
        """After a failure; what was under way at the one before is no further one."""
        if began_s <= supply.failed_s:
            return
        pause_s = min(self.pace.pause_s * 2**supply.failures, self.pace.pause_max_s)
        supply.failed_s = self.clock.monotonic_s()
        supply.not_before_s = supply.failed_s + pause_s
        supply.failures = min(supply.failures + 1, 16)

    def _suspect(self, routes: Iterable[Route], began_s: float) -> None:
        for route in routes:
            self._suspect_at(route, "", began_s)

    def _suspect_at(self, route: Route, site: str, began_s: float) -> None:
        """The hops around the site that a share did not pass; all of the route where that site is not on it."""
        hops = [hop for hop in pairwise(route) if site in hop] or list(pairwise(route))
        for one, other in hops:
            self.state.suspect(one, other, began_s)
