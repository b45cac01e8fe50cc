"""One site of a simulated network: its KME on a store that may crash, and its relay, which is an SAE and a module of it."""

from __future__ import annotations

import hashlib
import hmac
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from keystrand.core.errors import KeystrandError, PeerFault, Tampered
from keystrand.core.key import Block, Provenance
from keystrand.core.secret import Secret
from keystrand.crypto.onetime import pad_bytes
from keystrand.kme.site import Refuse, Reply
from keystrand.relay.atlas import Atlas
from keystrand.relay.linkstate import LinkState
from keystrand.relay.meter import Meter
from keystrand.relay.pace import Pace
from keystrand.relay.ports import Deliver, Draw, Fetch, Order, Say, Tell
from keystrand.relay.relay import Relay
from keystrand.relay.supply import Fill
from keystrand.testing.clock import SeededEntropy, VirtualClock
from keystrand.testing.world.sitting import Sitting
from keystrand.wire.relay import AnyRelayMessage, Window

PAD_KEY_BYTES: Final = pad_bytes(1024) // 3  # of one key that a relay draws: three make a pad
DEMAND_WINDOW_S: Final = 600.0
FILL: Final = Fill(floor_bits=65_536, ahead_s=0.0)


def relay_sae(site: str) -> str:
    return f"relay-{site}"


@dataclass(frozen=True, slots=True)
class PadTicket:
    """A relay's Draw, in this life of the site."""

    incarnation: int
    ticket: int


def sign_as(site: str) -> Callable[[bytes], bytes]:
    """Stands for Ed25519: nobody but the holder of the name can make it, which the simulation's liars respect."""
    return lambda message: hmac.digest(site.encode(), message, hashlib.sha256)


def verify(site: str, message: bytes, signature: bytes) -> None:
    if not hmac.compare_digest(sign_as(site)(message), signature):
        raise Tampered(f"the advert of {site} is not its own")


@dataclass(slots=True, kw_only=True)
class Post:
    """Runs the orders of one relay against its KME; what goes to other sites leaves by `carry`."""

    sitting: Sitting
    atlas: Atlas
    clock: VirtualClock
    rng: random.Random
    pace: Pace
    relay_type: type[Relay]
    advert_s: float
    rate_bps: int  # of each hop
    fill: Fill
    carry: Callable[[str, str, Say], None]  # from, to
    after: Callable[[float, Callable[[], None]], None]
    wake: Callable[[str], None]  # this site is at work
    relay: Relay | None = None
    windows: tuple[Window, ...] = ()  # of planned maintenance: they outlive restarts
    queue: deque[Deliver] = field(default_factory=deque)
    refused: int = 0
    drawn: Counter[str] = field(default_factory=Counter)  # bits that applications took, by link or neighbour
    demand: defaultdict[str, Meter] = field(default_factory=lambda: defaultdict(lambda: Meter(DEMAND_WINDOW_S)))
    told: Counter[tuple[str, str]] = field(default_factory=Counter)  # events of the relay, and what was seen

    @property
    def name(self) -> str:
        return self.sitting.name

    def boot(self) -> None:
        """A relay that knows nothing of the one before."""
        state = LinkState(
            self.name,
            self.atlas,
            self.clock,
            sign_as(self.name),
            verify,
            advert_s=self.advert_s,
            forget_s=3.5 * self.advert_s,
        )
        entropy = SeededEntropy(self.rng.getrandbits(64))
        self.relay = self.relay_type(
            self.name, self.atlas, state, clock=self.clock, entropy=entropy, pace=self.pace, fill=self.fill
        )

    def stop(self) -> None:
        self.relay = None
        self.queue.clear()

    def tick(self, neighbours: list[str]) -> None:
        """neighbours: those that can be reached now."""
        if (relay := self.relay) is None or (kme := self.sitting.kme) is None:
            return
        for name in self.atlas.neighbours(self.name):
            if name in neighbours:
                held = sum(kme.pool.owned_bits(link) for link in kme.site.links_to(name))
                relay.up(name, held, self.rate_bps, self._demand_bps(name))
            else:
                relay.down(name)
        for link in relay.sender.supplies:
            held = kme.pool.held_bits(link)
            following = self.sitting.store.next_sequence(link)
            relay.supply(link, held_bits=held, following=following, demand_bps=self._demand_bps(link))
        relay.maintenance.windows = self.windows
        relay.tick()
        self.perform()

    def _demand_bps(self, name: str) -> float:
        return self.demand[name].read(self.clock.monotonic_s(), self.drawn[name])

    def hear(self, sender: str, message: AnyRelayMessage | None) -> None:
        if self.relay is None:
            return
        try:
            self.relay.hear(sender, message)
        except PeerFault:
            self.refused += 1
        self.perform()

    # orders --------------------------------------------------------------------------------------------------------

    def perform(self) -> None:
        while self.relay is not None and (orders := self.relay.drain()):
            for order in orders:
                self._do(order)

    def _do(self, order: Order) -> None:
        if isinstance(order, Say):
            self.carry(self.name, order.neighbour, order)
        elif isinstance(order, Tell):
            self.told[order.event.kind, str(order.event.fields.get("seen", ""))] += 1
        elif isinstance(order, Draw):
            self._draw(order)
        elif isinstance(order, Fetch):
            self._fetch(order)
        elif isinstance(order, Deliver):
            self.queue.append(order)
            self.after(self.rng.expovariate(2.0), self._deliver)

    def _draw(self, order: Draw) -> None:
        self.wake(self.name)
        number = -(-order.size_bytes // PAD_KEY_BYTES)
        ticket = PadTicket(self.sitting.incarnation, order.ticket)
        me, other = relay_sae(self.name), relay_sae(order.neighbour)
        (result,) = self.sitting.run(
            lambda kme: kme.get_key(ticket, me, other, number=number, size_bits=8 * PAD_KEY_BYTES)
        )
        if isinstance(result, KeystrandError):
            self.answer(Refuse(ticket, result))

    def answer(self, effect: Reply | Refuse) -> None:
        """What the KME says to a Draw."""
        ticket = effect.ticket
        assert isinstance(ticket, PadTicket)
        if self.relay is not None and ticket.incarnation == self.sitting.incarnation:
            self.relay.drawn(ticket.ticket, effect.keys if isinstance(effect, Reply) else None)
            self.perform()

    def _fetch(self, order: Fetch) -> None:
        me, other = relay_sae(self.name), relay_sae(order.neighbour)
        relay = self.relay
        (result,) = self.sitting.run(lambda kme: kme.get_key_with_ids(me, other, order.key_ids))
        if self.relay is None or self.relay is not relay:
            return
        keys = None if isinstance(result, KeystrandError) else result
        assert keys is None or isinstance(keys, list)
        self.relay.fetched(order.ticket, keys)

    def _deliver(self) -> None:
        """The first of those that wait for the KME; they went with the process, if it ended."""
        if not self.queue:
            return
        order = self.queue.popleft()
        following = self.sitting.store.next_sequence(order.link)
        number = order.number_of(following)
        block = Block(
            link=order.link,
            sequence=number,
            material=Secret(order.material.reveal()),
            provenance=Provenance(source=order.source),
        )
        (result,) = self.sitting.run(lambda kme: kme.ingest(block))
        if self.relay is not None and self.sitting.kme is not None:
            kept = result is None
            self.relay.delivered(order.ticket, is_kept=kept, following=number + 1 if kept else following)
            self.perform()
