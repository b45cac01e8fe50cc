"""One site's relay: makes blocks for relayed links that begin here, carries the shares of others, joins those that end here.

    origin (sender.py)        each site between (carrier.py)    target (receiver.py)
    split the block
    draw pads ── Carry ──────▶ fetch pads, unlock ─ Taken ─▶
               draw pads, lock ── Carry ─────────────────────▶ fetch pads, unlock; join when `needed` are there
    deliver   ◀──────────── Joined ───────────────────────────  deliver to the KME

Synchronous and without I/O: it hears messages, results and the clock, and says what to do. Nothing is durable here, and nothing
needs to be: a block that only one end's KME got is burnt there, one that differs is quarantined by both (kme/pool.py), and pads
that were drawn in vain stand in the hop's ledger as delivered. Whatever a relay says, a lie can only cost the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from keystrand.core.clock import Clock, Entropy
from keystrand.core.errors import PeerFault
from keystrand.core.key import Key
from keystrand.relay.atlas import Atlas, day_of
from keystrand.relay.carrier import Carrier
from keystrand.relay.documents import Documents
from keystrand.relay.linkstate import LinkState
from keystrand.relay.maintenance import Maintenance
from keystrand.relay.neighbours import Neighbours
from keystrand.relay.pace import PACE, Pace
from keystrand.relay.ports import Order, Orders
from keystrand.relay.receiver import Receiver
from keystrand.relay.sender import Sender
from keystrand.relay.supply import FILL, Fill
from keystrand.wire.relay import AnyRelayMessage, Carry, Joined, Lost, Place, SignedAdvert, Taken, Want


class Relay:
    """See the module. Whatever is told it, `drain` gives what to do then."""

    carrier_type: ClassVar[type[Carrier]] = Carrier  # simulated liars have their own
    sender_type: ClassVar[type[Sender]] = Sender

    def __init__(
        self,
        site: str,
        atlas: Atlas,
        state: LinkState,
        *,
        clock: Clock,
        entropy: Entropy,
        pace: Pace = PACE,
        fill: Fill = FILL,
    ) -> None:
        self.site, self.atlas, self.state, self.clock = site, atlas, state, clock
        self.orders = orders = Orders(clock)
        self.documents = Documents(site, atlas)
        self.maintenance = Maintenance(site, atlas, state)
        self.near = Neighbours(atlas.neighbours(site))
        self.receiver = Receiver(orders, clock=clock, pace=pace)
        self.carrier = self.carrier_type(orders, clock=clock, pace=pace, arrive=self.receiver.arrive, lose=self._lose)
        self.sender = self.sender_type(
            site,
            state,
            orders,
            clock=clock,
            entropy=entropy,
            pace=pace,
            fill=fill,
            forward=self.carrier.forward,
            drop=self.carrier.drop,
        )
        self._hearers: Mapping[type[AnyRelayMessage | None], Callable[..., None]] = {
            type(None): lambda neighbour, message: None,
            Carry: self._hear_carry,
            Taken: self.carrier.taken,
            Lost: self._hear_lost,
            Joined: self._hear_joined,
            SignedAdvert: self._hear_advert,
        }

    def drain(self) -> list[Order]:
        """What to do, once."""
        return self.orders.drain()

    # what the surroundings tell ------------------------------------------------------------------------------------

    def up(self, neighbour: str, bits: int, rate_bps: int, demand_bps: float = 0.0) -> None:
        """The neighbour's relay answers, and our KME has so many bits for the hop. demand_bps: of others than relays."""
        now_s = self.clock.monotonic_s()
        if self.near.up(neighbour, bits=bits, rate_bps=rate_bps, demand_bps=demand_bps, now_s=now_s):
            self.orders.tell("relay.up", peer=neighbour)
            for advert in self.state.posted.values():
                self.orders.say(neighbour, advert)

    def down(self, neighbour: str) -> None:
        for kind in self.near.down(neighbour, now_s=self.clock.monotonic_s()):
            self.orders.tell(kind, peer=neighbour)

    def supply(self, link: str, *, held_bits: int, following: int, demand_bps: float = 0.0) -> None:
        """What our KME has of a relayed link that begins here, which block it expects next, and how fast it is drawn from."""
        supply = self.sender.supplies[link]
        supply.hear(held_bits, demand_bps, self.sender.fill, self.maintenance.wanted_bits(link), following)

    def drawn(self, ticket: int, keys: list[Key] | None) -> None:
        """What became of a Draw; None: our KME has none, or not under the protection that a hop needs."""
        self.carrier.drawn(ticket, keys)

    def fetched(self, ticket: int, keys: list[Key] | None) -> None:
        """What became of a Fetch; None: our KME does not have them."""
        self.carrier.fetched(ticket, keys)

    def delivered(self, ticket: int, *, is_kept: bool, following: int) -> None:
        """What became of a Deliver. following: one above the block's number, or what our KME expects where it was refused."""
        self.receiver.delivered(ticket, is_kept=is_kept, following=following)

    def spoilt(self, link: str, number: int) -> None:
        """The two ends got different bits for this block of a link that begins here."""
        self.sender.spoilt(link, number)

    def under_way(self, neighbour: str = "") -> int:
        """Shares that this site has in hand; of one hop, or of all."""
        hands = [*self.carrier.in_hand(), *self.receiver.in_hand(), *self.sender.in_hand()]
        return hands.count(neighbour) if neighbour else len(hands)

    def tick(self) -> None:
        """Advertise, repeat, give up, begin."""
        self.state.forget()
        for kind, fields in self.documents.look(self.clock.now_s()):
            self.orders.tell(kind, **fields)
        self._advertise()
        self.carrier.tick()
        self.receiver.tick()
        for window in self.maintenance.watch(self.under_way):
            self.orders.tell("maintenance.drained", window=window.window_id, hop=window.neighbour)
        self.sender.tick()

    def _advertise(self) -> None:
        supplies = self.sender.supplies
        levels = {name: supply.level for name, supply in supplies.items()}
        needs = self.maintenance.needs(levels, self.near.levels, self.sender.need_bits)
        wants = tuple(Want(name, int(s.live_bps), s.is_filling) for name, s in sorted(supplies.items()))
        if (advert := self.state.own(self.near.spans, self.maintenance.windows, needs, wants)) is not None:
            self._flood(advert, self.near.spans)

    # what neighbours say -------------------------------------------------------------------------------------------

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
            self.orders.say(name, advert)

    def _hear_carry(self, neighbour: str, carry: Carry) -> None:
        self._check(carry.place, carry.hop, came_from=neighbour, step=-1)
        self.carrier.hear(neighbour, carry)

    # back along the route ------------------------------------------------------------------------------------------

    def _hear_joined(self, neighbour: str, joined: Joined) -> None:
        index = self._check(joined.place, None, came_from=neighbour, step=1)
        if index:
            self.orders.say(joined.place.route[index - 1], joined)
        else:
            self.sender.joined(joined)

    def _hear_lost(self, neighbour: str, lost: Lost) -> None:
        self._pass_back(lost, self._check(lost.place, None, came_from=neighbour, step=1))

    def _lose(self, place: Place, reason: str) -> None:
        self._pass_back(Lost(place=place, at=self.site, reason=reason), place.route.index(self.site))

    def _pass_back(self, lost: Lost, index: int) -> None:
        if index:
            self.orders.say(lost.place.route[index - 1], lost)
        else:
            self.sender.lost(lost)

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
