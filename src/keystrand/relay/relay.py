"""One site's relay: makes blocks for relayed links that begin here, carries the shares of others, joins those that end here.

    origin                    each site between                 target
    split the block
    draw pads ── Carry ──────▶ fetch pads, unlock ─ Taken ─▶
               draw pads, lock ── Carry ─────────────────────▶ fetch pads, unlock; join when `needed` are there
    deliver   ◀──────────── Joined ───────────────────────────  deliver to the KME

Synchronous and without I/O: it hears messages, results and the clock, and says what to do. Nothing is durable here, and nothing
needs to be: a block that only one end's KME got is burnt there, one that differs is quarantined by both (kme/pool.py), and pads
that were drawn in vain stand in the hop's ledger as delivered. Whatever a relay says, a lie can only cost the block.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from keystrand.core.clock import Clock, Entropy
from keystrand.core.errors import PeerFault, Tampered
from keystrand.core.events import Event, Scalar
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.core.way import Way
from keystrand.crypto.onetime import TAG_BYTES, lock, pad_bytes, unlock
from keystrand.relay.atlas import Atlas, RelayedLink, day_of
from keystrand.relay.documents import Documents
from keystrand.relay.linkstate import LinkState
from keystrand.relay.maintenance import Maintenance
from keystrand.relay.neighbours import Neighbours
from keystrand.relay.ports import Deliver, Draw, Fetch, Order, Say, Tell, pad_of
from keystrand.relay.routes import Route, disjoint_routes, fewest_hops
from keystrand.relay.sharing import Sharing
from keystrand.relay.split import join, split
from keystrand.relay.supply import FILL, Fill, Sending, Supply
from keystrand.wire.relay import AnyRelayMessage, Carry, Joined, Lost, Place, SignedAdvert, Taken, Want, context_of

SEEN_MAX: Final = 4096  # shares remembered, so that a repeated one is answered and not fetched again
FETCHING_MAX: Final = 256  # shares whose pads are on their way; more are asked for again by their repetition
SEQUENCES_MAX: Final = 256  # that a target may be ahead: beyond it, its word is not believed
SPARE: Final = 4  # pads that a hop has at least where a link above its floor takes one
PLENTY: Final = 16  # pads with which a hop has enough for everybody: below, links keep to their shares
WAIT_S: Final = 1.0  # before a link that has no share saved up looks again
SPOILT_MAX: Final = 64  # blocks whose routes are remembered, in case their bits turn out to differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds, and sizes. block_bytes: of one relayed block; all sites of a network have the same."""

    block_bytes: int = 32_768
    repeat_s: float = 1.0
    hop_s: float = 5.0  # a share that is not taken after so long is lost
    block_s: float = 15.0  # a block that has not come to its target after so long is given up
    pause_s: float = 1.0  # before the next try after a failure, doubled for each in a row
    pause_max_s: float = 30.0


@dataclass(slots=True)
class Leg:
    """A share that this site has to bring to the next one."""

    place: Place
    hop: int  # of the next site in the route
    text: Secret | None
    deadline_s: float
    carry: Carry | None = None
    repeat_s: float = 0.0

    @property
    def neighbour(self) -> str:
        return self.place.route[self.hop]


@dataclass(slots=True)
class Gathering:
    """A block that ends here."""

    place: Place  # of the share that came first
    parts: dict[int, Secret]
    deadline_s: float
    is_joined: bool = False


class Relay:
    """See the module. `orders` gathers what to do; the runner takes it with `drain`."""

    def __init__(
        self,
        site: str,
        atlas: Atlas,
        state: LinkState,
        *,
        clock: Clock,
        entropy: Entropy,
        pace: Pace = Pace(),
        fill: Fill = FILL,
    ) -> None:
        self.site, self.atlas, self.state, self.pace, self.fill = site, atlas, state, pace, fill
        self.clock, self.entropy = clock, entropy
        self.documents = Documents(site, atlas)
        self.maintenance = Maintenance(site, atlas, state)
        self.near = Neighbours(atlas.neighbours(site))
        self.orders: list[Order] = []
        self.sharing = Sharing(state)
        self.supplies = {link.name: Supply(link) for link in atlas.links.values() if link.origin == site}
        self._legs: dict[Place, Leg] = {}
        self._sendings: dict[tuple[str, int], Sending] = {}
        self._gatherings: dict[tuple[str, int], Gathering] = {}
        self._fetching: dict[int, Carry] = {}
        self._drawing: dict[int, Leg] = {}
        self._seen: OrderedDict[Place, None] = OrderedDict()
        self._ways: deque[tuple[str, int, Way]] = deque(maxlen=SPOILT_MAX)
        self._tickets = 0
        self._hearers: Mapping[type[AnyRelayMessage | None], Callable[..., None]] = {
            type(None): lambda neighbour, message: None,
            Carry: self._hear_carry,
            Taken: self._hear_taken,
            Lost: self._hear_lost,
            Joined: self._hear_joined,
            SignedAdvert: self._hear_advert,
        }

    def drain(self) -> list[Order]:
        """What to do, once."""
        orders, self.orders = self.orders, []
        return orders

    # what the surroundings tell ------------------------------------------------------------------------------------

    def up(self, neighbour: str, bits: int, rate_bps: int, demand_bps: float = 0.0) -> None:
        """The neighbour's relay answers, and our KME has so many bits for the hop. demand_bps: of others than relays."""
        now_s = self.clock.monotonic_s()
        if self.near.up(neighbour, bits=bits, rate_bps=rate_bps, demand_bps=demand_bps, now_s=now_s):
            self._tell("relay.up", peer=neighbour)
            for advert in self.state.posted.values():
                self._say(neighbour, advert)

    def down(self, neighbour: str) -> None:
        for kind in self.near.down(neighbour, now_s=self.clock.monotonic_s()):
            self._tell(kind, peer=neighbour)

    def supply(self, link: str, *, held_bits: int, next_sequence: int, demand_bps: float = 0.0) -> None:
        """What our KME has of a relayed link that begins here, which block it expects next, and how fast it is drawn from."""
        supply = self.supplies[link]
        supply.hear(held_bits, demand_bps, self.fill, self.maintenance.wanted_bits(link), next_sequence)

    def under_way(self, neighbour: str = "") -> int:
        """Shares that this site has in hand; of one hop, or of all."""
        hands = [leg.neighbour for leg in self._legs.values()]
        hands += [carry.place.route[carry.hop - 1] for carry in self._fetching.values()]
        hands += [gathering.place.route[-2] for gathering in self._gatherings.values() if not gathering.is_joined]
        hands += [way[1] for sending in self._sendings.values() for way in sending.way.routes]
        return len(hands) if not neighbour else hands.count(neighbour)

    def spoilt(self, link: str, sequence: int) -> None:
        """The two ends got different bits: somebody on the routes lies."""
        for name, number, way in self._ways:
            if (name, number) == (link, sequence):
                self._suspect(way.routes)

    def delivered(self, link: str, sequence: int, *, is_kept: bool, next_sequence: int) -> None:
        """Our KME has taken a block that ends here, or refused it; its origin is told over every route."""
        gathering = self._gatherings.get((link, sequence))
        if gathering is None:
            return  # of our own making: nobody waits
        place = gathering.place
        for part in range(1, len(place.routes) + 1):
            back = Place(place.link, place.sequence, place.needed, part, place.routes)
            self._say(back.route[-2], Joined(place=back, is_kept=is_kept, next_sequence=next_sequence))

    def tick(self) -> None:
        """Advertise, repeat, give up, begin."""
        now_s = self.clock.monotonic_s()
        self.state.forget()
        for kind, fields in self.documents.look(self.clock.now_s()):
            self._tell(kind, **fields)
        self._advertise()
        for leg in list(self._legs.values()):
            if leg.place not in self._legs:
                continue  # went with its block
            if now_s >= leg.deadline_s:
                self._end_leg(leg)
                self._lose(leg.place, "time")
            elif leg.carry is not None and now_s >= leg.repeat_s:
                leg.repeat_s = now_s + self.pace.repeat_s
                self._say(leg.neighbour, leg.carry)
        for (link, sequence), sending in list(self._sendings.items()):
            if now_s >= sending.deadline_s:
                self._suspect(sending.way.routes)
                self._give_up(link, sequence, "time")
            elif self._has_broken(sending):
                self._give_up(link, sequence, "a hop of its routes is gone", pause=False)
        for key in [key for key, gathering in self._gatherings.items() if now_s >= gathering.deadline_s]:
            _wipe(self._gatherings.pop(key).parts.values())
        for window in self.maintenance.watch(self.under_way):
            self._tell("maintenance.drained", window=window.window_id, hop=window.neighbour)
        self.sharing.tick([name for name, supply in self.supplies.items() if supply.wanted], self._need_bits)
        closed = self.state.closed().sites
        for supply in self.supplies.values():
            if supply.wanted and supply.sending is None and now_s >= supply.not_before_s:
                if closed & {*supply.link.ends}:
                    continue  # nothing begins or ends at a site that drains
                self._begin(supply)

    def _advertise(self) -> None:
        links = {name: supply.level for name, supply in self.supplies.items()}
        needs = self.maintenance.needs(links, self.near.levels, self._need_bits)
        wants = tuple(Want(name, int(s.live_bps), s.is_filling) for name, s in sorted(self.supplies.items()))
        if (advert := self.state.own(self.near.spans, self.maintenance.windows, needs, wants)) is not None:
            self._flood(advert, self.near.spans)

    @property
    def _need_bits(self) -> int:
        return 8 * pad_bytes(self.pace.block_bytes)

    # the origin ----------------------------------------------------------------------------------------------------

    def routes(self, link: RelayedLink, *, spare: int = 1) -> list[Route]:
        """Routes for one block now: as many as the terms ask for, or none. spare: so many pads each hop has at least."""
        graph = self.state.graph(link, spare * self._need_bits)
        today = day_of(self.clock.now_s())
        for search in (disjoint_routes, fewest_hops):
            found = search(graph, link.origin, link.target, link.terms.paths)
            if len(found) < link.terms.paths:
                return []  # there are no more, whatever hops cost
            if all(self.atlas.is_route(route, link, today) for route in found):
                return found
        return []

    def _turn(self, supply: Supply, routes: list[Route]) -> list[Route]:
        """Routes for the next block: the cheapest where their hops hold plenty, else those that its share was saved up for."""
        link, need_bits = supply.link.name, self._need_bits
        if not routes or self.state.holds(routes, PLENTY * need_bits):
            return routes
        self.sharing.renew()
        if not self.sharing.binds(link):
            return routes
        graph = self.state.graph(supply.link, (SPARE if supply.is_ahead else 1) * need_bits)
        way = self.sharing.due(link, graph, need_bits)
        if way is not None:
            self.sharing.spend(link, way, need_bits)
        return list(way or ())

    def _begin(self, supply: Supply) -> None:
        link, cheapest = supply.link, self.routes(supply.link, spare=SPARE if supply.is_ahead else 1)
        routes = self._turn(supply, cheapest)
        if not routes and cheapest:
            supply.not_before_s = self.clock.monotonic_s() + WAIT_S  # others have their turn
            return
        if not routes:
            if not supply.is_ahead:
                self._tell("relay.no_route", link=link.name, paths=link.terms.paths)
            self._pause(supply)
            return
        way = Way(link.terms.threshold, tuple(routes))
        block = Secret(self.entropy.bytes(self.pace.block_bytes))
        supply.sending = sequence = supply.next_sequence
        self._sendings[link.name, sequence] = Sending(block, way, self.clock.monotonic_s() + self.pace.block_s)
        parts = split(block, way.needed, len(routes), entropy=self.entropy.bytes)
        for part, text in enumerate(parts, 1):
            self._forward(Place(link.name, sequence, way.needed, part, way.routes), 1, text)

    def _pause(self, supply: Supply) -> None:
        pause_s = min(self.pace.pause_s * 2**supply.failures, self.pace.pause_max_s)
        supply.not_before_s = self.clock.monotonic_s() + pause_s
        supply.failures = min(supply.failures + 1, 16)

    def _has_broken(self, sending: Sending) -> bool:
        """Whether too many of its routes lost a hop meanwhile: another way is found sooner than a deadline passes."""
        for part, route in enumerate(sending.way.routes, 1):
            if not all(self.state.stands(one, other) for one, other in pairwise(route)):
                sending.lost.add(part)
        return sending.is_hopeless

    def _give_up(self, link: str, sequence: int, reason: str, *, pause: bool = True) -> None:
        sending = self._sendings.pop((link, sequence))
        sending.block.wipe()
        for leg in [leg for leg in self._legs.values() if (leg.place.link, leg.place.sequence) == (link, sequence)]:
            self._end_leg(leg)
        supply = self.supplies[link]
        supply.sending = None
        supply.next_sequence = max(supply.next_sequence, sequence + 1)  # parts of the old one may still be about
        if pause:
            self._pause(supply)
        self._tell("relay.block_lost", link=link, sequence=sequence, reason=reason)

    def _arrived(self, joined: Joined) -> None:
        """The target says what became of our block; its word counts for no more than its KME's announcement will."""
        place = joined.place
        supply, key = self.supplies[place.link], (place.link, place.sequence)
        sending = self._sendings.get(key)
        if sending is None or sending.way.routes != place.routes:
            return
        supply.next_sequence = place.sequence + 1
        if place.sequence < joined.next_sequence <= place.sequence + SEQUENCES_MAX:
            supply.next_sequence = joined.next_sequence
        if not joined.is_kept:
            self._give_up(*key, "refused")
            return
        del self._sendings[key]
        supply.sending, supply.failures = None, 0
        self._ways.append((*key, sending.way))
        for hop in (hop for route in sending.way.routes for hop in pairwise(route)):
            self.state.trust(*hop)
        self._deliver(place, sending.block)

    # a share comes -------------------------------------------------------------------------------------------------

    def hear(self, neighbour: str, message: AnyRelayMessage | None) -> None:
        """Raises PeerFault for what a neighbour must not say. None: of a kind that a later release has."""
        if neighbour not in self.atlas.neighbours(self.site):
            raise PeerFault(f"{neighbour} is no neighbour of {self.site}")
        self._hearers[type(message)](neighbour, message)

    def _hear_advert(self, neighbour: str, advert: SignedAdvert) -> None:
        if self.state.hear(advert):
            self._flood(advert, (name for name in self.near.spans if name != neighbour))

    def _flood(self, advert: SignedAdvert, neighbours: Iterable[str]) -> None:
        for name in neighbours:
            self._say(name, advert)

    def _hear_carry(self, neighbour: str, carry: Carry) -> None:
        place, hop = carry.place, carry.hop
        self._check(place, hop, came_from=neighbour, step=-1)
        if len(carry.box) != self.pace.block_bytes + TAG_BYTES:
            raise PeerFault(f"{neighbour} carries a box of {len(carry.box)} bytes")
        if place in self._seen:
            self._say(neighbour, Taken(place=place, hop=hop))
        elif len(self._fetching) < FETCHING_MAX and all(other.place != place for other in self._fetching.values()):
            ticket = self._ticket()
            self._fetching[ticket] = carry
            self.orders.append(Fetch(ticket, neighbour, carry.key_ids))

    def fetched(self, ticket: int, keys: list[Key] | None) -> None:
        """The pads of a share that came; None: our KME does not have them."""
        carry = self._fetching.pop(ticket)
        place, hop = carry.place, carry.hop
        pad = pad_of(keys, pad_bytes(self.pace.block_bytes))
        if pad is None:
            self._lose(place, "no pads")
            return
        try:
            text = unlock(carry.box, pad, context_of(place, hop, carry.key_ids))
        except Tampered:
            self._tell("relay.tampered", link=place.link, sequence=place.sequence, neighbour=place.route[hop - 1])
            self._lose(place, "tampered")
            return
        finally:
            pad.wipe()
        self._remember(place)
        self._say(place.route[hop - 1], Taken(place=place, hop=hop))
        if hop == len(place.route) - 1:
            self._gather(place, text)
        else:
            seen = "whole" if place.needed == 1 else "part"  # a part alone says nothing of the block
            self._tell("relay.saw", link=place.link, seen=seen, bits=text.length_bits)
            self._forward(place, hop + 1, text)

    def _remember(self, place: Place) -> None:
        self._seen[place] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)

    def _gather(self, place: Place, text: Secret) -> None:
        key = (place.link, place.sequence)
        gathering = self._gatherings.get(key)
        if gathering is None:
            deadline_s = self.clock.monotonic_s() + self.pace.block_s
            gathering = self._gatherings[key] = Gathering(place, {}, deadline_s)
        if gathering.place.routes != place.routes or gathering.is_joined:
            text.wipe()
            return
        gathering.parts[place.part] = text
        if len(gathering.parts) == place.needed:
            gathering.is_joined = True
            block = join(gathering.parts, place.needed, len(place.routes))
            _wipe(gathering.parts.values())
            self._deliver(place, block)

    def _deliver(self, place: Place, block: Secret) -> None:
        way = Way(place.needed, place.routes)
        self.orders.append(Deliver(place.link, place.sequence, block, str(way)))

    # a share goes on -----------------------------------------------------------------------------------------------

    def _forward(self, place: Place, hop: int, text: Secret) -> None:
        leg = Leg(place, hop, text, self.clock.monotonic_s() + self.pace.hop_s)
        self._legs[place] = leg
        ticket = self._ticket()
        self._drawing[ticket] = leg
        self.orders.append(Draw(ticket, leg.neighbour, pad_bytes(len(text))))

    def drawn(self, ticket: int, keys: list[Key] | None) -> None:
        """The pads of a share that goes on; None: our KME has none, or not under the protection that a hop needs."""
        leg = self._drawing.pop(ticket)
        if self._legs.get(leg.place) is not leg or leg.text is None:
            return  # given up meanwhile: the pads are spent
        ids = tuple(key.key_id for key in keys or ())
        pad = pad_of(keys, pad_bytes(len(leg.text)))
        if pad is None:
            self._end_leg(leg)
            self._lose(leg.place, "no pads")
            return
        box = lock(leg.text, pad, context_of(leg.place, leg.hop, ids))
        pad.wipe()
        leg.text.wipe()
        leg.text = None
        leg.carry = Carry(place=leg.place, hop=leg.hop, key_ids=ids, box=box)
        leg.repeat_s = self.clock.monotonic_s() + self.pace.repeat_s
        self._say(leg.neighbour, leg.carry)

    def _hear_taken(self, neighbour: str, taken: Taken) -> None:
        leg = self._legs.get(taken.place)
        if leg is not None and leg.carry is not None and (leg.hop, leg.neighbour) == (taken.hop, neighbour):
            self._end_leg(leg)

    def _end_leg(self, leg: Leg) -> None:
        self._legs.pop(leg.place, None)
        if leg.text is not None:
            leg.text.wipe()

    # back along the route ------------------------------------------------------------------------------------------

    def _hear_joined(self, neighbour: str, joined: Joined) -> None:
        index = self._check(joined.place, None, came_from=neighbour, step=1)
        if index == 0:
            self._arrived(joined)
        else:
            self._say(joined.place.route[index - 1], joined)

    def _hear_lost(self, neighbour: str, lost: Lost) -> None:
        index = self._check(lost.place, None, came_from=neighbour, step=1)
        self._pass_back(lost, index)

    def _lose(self, place: Place, reason: str) -> None:
        lost = Lost(place=place, at=self.site, reason=reason)
        self._pass_back(lost, place.route.index(self.site))

    def _pass_back(self, lost: Lost, index: int) -> None:
        if index:
            self._say(lost.place.route[index - 1], lost)
            return
        place = lost.place
        sending = self._sendings.get((place.link, place.sequence))
        if sending is None or sending.way.routes != place.routes or place.part in sending.lost:
            return
        self._suspect_at(place.route, lost.at)
        sending.lost.add(place.part)
        if sending.is_hopeless:
            self._give_up(place.link, place.sequence, f"{lost.reason} at {lost.at}")

    def _suspect_at(self, route: Route, site: str) -> None:
        """The hops around the site that a share did not pass; all of the route where that site is not on it."""
        hops = [hop for hop in pairwise(route) if site in hop] or list(pairwise(route))
        for one, other in hops:
            self.state.suspect(one, other)

    def _suspect(self, routes: Iterable[Route]) -> None:
        for route in routes:
            self._suspect_at(route, "")

    # small things --------------------------------------------------------------------------------------------------

    def _check(self, place: Place, hop: int | None, *, came_from: str, step: int) -> int:
        """Our index in the route of a share; the neighbour stands `step` beside it. Raises PeerFault."""
        link = self.atlas.links.get(place.link)
        if link is None or not 1 <= place.part <= len(place.routes):
            raise PeerFault(f"{came_from} carries for {place.link!r}, which is no relayed link here")
        if len(place.routes) != link.terms.paths or place.needed != link.terms.threshold:
            raise PeerFault(f"{came_from} carries a block of {link.name} in other parts than its terms say")
        inner, today = [site for route in place.routes for site in route[1:-1]], day_of(self.clock.now_s())
        if len(set(inner)) != len(inner) or not all(self.atlas.is_route(route, link, today) for route in place.routes):
            raise PeerFault(f"{came_from} carries a block of {link.name} over routes that its terms forbid")
        route = place.route
        index = route.index(self.site) if self.site in route else -1
        if index < 0 or (hop is not None and hop != index) or not 0 <= index + step < len(route):
            raise PeerFault(f"{came_from} carries a share that does not come by here")
        if route[index + step] != came_from:
            raise PeerFault(f"{came_from} carries a share that comes from elsewhere")
        return index

    def _say(self, neighbour: str, message: AnyRelayMessage) -> None:
        self.orders.append(Say(neighbour, message))

    def _tell(self, kind: str, **fields: Scalar) -> None:
        self.orders.append(Tell(Event(kind, self.clock.now_s(), fields)))

    def _ticket(self) -> int:
        self._tickets += 1
        return self._tickets


def _wipe(secrets: Iterable[Secret]) -> None:
    for secret in secrets:
        secret.wipe()
