"""The relay of a running site: its orders against the site's own KME, its messages on the channels to the neighbours' KMEs.

The relay is an SAE and a module of this KME, in one process with it: pads and relayed blocks would cross a socket to no gain,
as whoever reads this process reads the pools as well.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from keystrand.config.relay import PREFIX, neighbours, relay_sae
from keystrand.config.schema import SiteConfig
from keystrand.core.clock import Clock, SystemEntropy
from keystrand.core.errors import KeystrandError
from keystrand.core.events import Event, Scalar, Sink, spanned
from keystrand.core.key import Block, Key, Provenance
from keystrand.core.labels import LABELS
from keystrand.core.pool import Account
from keystrand.crypto.sign import Signer, Verifier
from keystrand.kme.service import Kme
from keystrand.node.devices import LinkState
from keystrand.node.engine import Engine
from keystrand.node.maintenance import Upkeep
from keystrand.node.network_gauge import network_gauge
from keystrand.node.paths import Paths
from keystrand.node.peers import PeerLines
from keystrand.observe.gauges import NetworkGauge
from keystrand.relay.linkstate import LinkState as Hops
from keystrand.relay.meter import Meter
from keystrand.relay.ports import Deliver, Draw, Fetch, Order, Say, Tell
from keystrand.relay.relay import Relay
from keystrand.store.papers import SqlPapers
from keystrand.wire import relay as wire
from keystrand.wire.device import LinkReport
from keystrand.wire.peer import Relayed

TICK_S: Final = 0.25
DEMAND_WINDOW_S: Final = 600.0
RATE_WINDOW_S: Final = 30.0
LOOK_S: Final = 1.0  # between two looks at the routes that stand
SETTLED_S: Final = 10.0  # after the start nothing is said of a network whose sites have not spoken yet


class Relaying:
    """Runs the relay of one site. `links`: how its relayed links are, for the gauges."""

    def __init__(
        self,
        config: SiteConfig,
        signer: Signer,
        engine: Engine,
        lines: PeerLines,
        papers: SqlPapers,
        clock: Clock,
        sink: Sink,
        paths: Paths,
    ) -> None:
        assert config.relay is not None
        assert config.network is not None
        self._site, self._section, self._limits = config.site.name, config.relay, config.limits
        self._hops = {
            peer: tuple(name for name, link in config.links.items() if link.peer == peer) for peer in config.peers
        }
        self._rates = {name: Meter() for name in config.links}
        self._neighbours = neighbours(config.network, self._site)
        self._engine, self._lines, self._clock, self._sink = engine, lines, clock, sink
        self._keys = {name: Verifier.parse(entry.audit_key) for name, entry in config.network.sites.items()}
        atlas, label = config.network.atlas(), LABELS["relay/advert"]
        state = Hops(self._site, atlas, clock, lambda message: signer.sign(label + message), self._verify)
        pace, fill = self._section.pace(), self._section.fill()
        self.relay = Relay(self._site, atlas, state, clock=clock, entropy=SystemEntropy(), pace=pace, fill=fill)
        self.upkeep = Upkeep(papers, self.relay, clock)
        self._drawn = {name: Meter(DEMAND_WINDOW_S) for name in config.relayed_links}
        self._demand = {name: Meter(DEMAND_WINDOW_S) for name in self._neighbours}
        self._others = dict.fromkeys(config.links, 0)  # bits that other applications than relays took, by link
        self.pads = dict.fromkeys(config.links, 0)  # and that relays took
        self.links = {name: LinkState() for name in config.relayed_links}
        self._flows: dict[str, deque[tuple[float, int]]] = {name: deque() for name in self.links}
        self._tasks: asyncio.TaskGroup | None = None
        self._paths, self._looked_s = paths, float("-inf")
        self._name, self._began_s = config.network.name, clock.monotonic_s()
        self.gauge: NetworkGauge | None = None  # as of the last look
        lines.relay = self._hear

    def _verify(self, site: str, message: bytes, signature: bytes) -> None:
        self._keys[site].verify(LABELS["relay/advert"] + message, signature)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                await self._tick()
                await asyncio.sleep(TICK_S)

    async def _tick(self) -> None:
        try:
            levels = await self._engine.call(self._read)
        except KeystrandError:
            return  # the site says so itself
        for neighbour, span in levels.items():
            self._reach(neighbour, *span)
        for name in self.relay.sender.supplies:
            held, following, drawn = await self._engine.call(lambda kme, name=name: _level(kme, name))  # type: ignore[misc]
            demand_bps = self._drawn[name].read(self._clock.monotonic_s(), drawn)
            self.relay.supply(name, held_bits=held, following=following, demand_bps=demand_bps)
        self.relay.tick()
        self._perform()
        if (now_s := self._clock.monotonic_s()) >= self._looked_s + LOOK_S:
            self._looked_s = now_s
            self._paths.look(self.relay)
            if now_s >= self._began_s + SETTLED_S:
                self.gauge = network_gauge(self.relay, self._name, self._paths.routes)
        for name, state in self.links.items():
            self._report(name, state)

    def _read(self, kme: Kme) -> dict[str, tuple[int, int, float]]:
        """By neighbour: bits that we may draw, how many come per second, and how many others than relays draw."""
        now_s, spans = self._clock.monotonic_s(), {}
        self.upkeep.end_old(kme.site)
        self.relay.maintenance.windows = self.upkeep.windows()
        self.relay.state.barred = self.upkeep.barred()
        for neighbour in self._neighbours:
            bits, drawn, rate_bps = 0, 0, 0.0
            for link in self._hops[neighbour]:
                bits += kme.pool.owned_bits(link)
                rate_bps += self._rates[link].read(now_s, kme.site.store.ledger(link)[Account.INGESTED])
                drawn += self._others[link]
            demand_bps = self._demand[neighbour].read(now_s, drawn)
            spans[neighbour] = bits, int(rate_bps), demand_bps
        return spans

    def _reach(self, neighbour: str, bits: int, rate_bps: int, demand_bps: float) -> None:
        if self._lines.is_up(neighbour):
            self.relay.up(neighbour, bits, rate_bps, demand_bps)
        else:
            self.relay.down(neighbour)

    def _hear(self, neighbour: str, frame: bytes) -> None:
        """Raises PeerFault for what the neighbour must not say."""
        self.relay.hear(neighbour, wire.decode(frame))
        self._perform()

    # orders --------------------------------------------------------------------------------------------------------

    def _perform(self) -> None:
        for order in self.relay.drain():
            self._do(order)

    def _do(self, order: Order) -> None:
        if isinstance(order, Say):
            self._lines.send(order.neighbour, Relayed(frame=wire.encode(order.message)))
        elif isinstance(order, Tell):
            self._sink.emit(order.event)
        elif isinstance(order, Draw):
            self._begin(self._draw(order))
        elif isinstance(order, Fetch):
            self._begin(self._fetch(order))
        else:
            self._begin(self._deliver(order))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            work.close()  # heard before the site runs: it will be repeated
        else:
            self._tasks.create_task(work)

    async def _draw(self, order: Draw) -> None:
        size_bytes = self._limits.key_size_bits_max // 8
        number = -(-order.size_bytes // size_bytes)
        me, other = relay_sae(self._site), relay_sae(order.neighbour)
        keys: list[Key] | None = None
        try:
            keys = await self._engine.ask(  # type: ignore[assignment]
                lambda kme, ticket: kme.get_key(ticket, me, other, number=number, size_bits=8 * size_bytes)
            )
        except KeystrandError as error:
            self._emit("strand.missing", peer=order.neighbour, reason=str(error))
        self.relay.drawn(order.ticket, keys)
        self._perform()

    async def _fetch(self, order: Fetch) -> None:
        me, other, ids = relay_sae(self._site), relay_sae(order.neighbour), order.key_ids
        keys: list[Key] | None = None
        try:
            keys = await self._engine.call(lambda kme: kme.get_key_with_ids(me, other, ids))
        except KeystrandError as error:
            self._emit("strand.missing", peer=order.neighbour, reason=str(error))
        self.relay.fetched(order.ticket, keys)
        self._perform()

    async def _deliver(self, order: Deliver) -> None:
        bits, kept = order.material.length_bits, False
        try:
            number = await self._engine.call(lambda kme: _ingest(kme, order))
        except KeystrandError as error:
            self._emit("block.refused", link=order.link, sequence=order.sequence, reason=str(error))
            following = await self._engine.call(lambda kme: kme.site.store.next_sequence(order.link))
        else:
            kept, following = True, number + 1
            self._flows[order.link].append((self._clock.monotonic_s(), bits))
            self._emit("relay.block", link=order.link, sequence=number, bits=bits, source=order.source)
        order.material.wipe()
        self.relay.delivered(order.ticket, is_kept=kept, following=following)
        self._perform()

    # what people see -----------------------------------------------------------------------------------------------

    def _report(self, name: str, state: LinkState) -> None:
        """A relayed link is up while blocks come, or none are wanted."""
        flow, now_s = self._flows[name], self._clock.monotonic_s()
        while flow and flow[0][0] < now_s - RATE_WINDOW_S:
            flow.popleft()
        supply = self.relay.sender.supplies.get(name)
        is_fine = bool(flow) or (supply is not None and not supply.is_wanted)
        state.connected = is_fine or bool(self.relay.near.spans)
        word = "running" if is_fine else "starting"
        state.report = LinkReport(state=word, skr_bps=sum(bits for _, bits in flow) / RATE_WINDOW_S, detail="relayed")

    def spoilt(self, event: Event) -> None:
        """The two ends of a relayed link got different bits for these blocks."""
        link = str(event.fields["link"])
        if link in self.links:
            for number in spanned(str(event.fields["sequences"])):
                self.relay.spoilt(link, number)

    def emit(self, event: Event, /) -> None:
        """Satisfies core.events.Sink: counts what applications, and relays, take from the pools of our hops."""
        link = str(event.fields.get("link", ""))
        if event.kind == "key.delivered" and link in self._others:
            taken = self.pads if str(event.fields.get("initiator", PREFIX)).startswith(PREFIX) else self._others
            taken[link] += int(event.fields.get("keys", 0)) * int(event.fields.get("size_bits", 0))

    def _emit(self, kind: str, **fields: Scalar) -> None:
        self._sink.emit(Event(kind, self._clock.now_s(), fields))


def _ingest(kme: Kme, order: Deliver) -> int:
    """The number that the block has now."""
    number = order.number_of(kme.site.store.next_sequence(order.link))
    origin = Provenance(source=order.source, secret_bits=order.material.length_bits)
    kme.ingest(Block(link=order.link, sequence=number, material=order.material, provenance=origin))
    return number


def _level(kme: Kme, link: str) -> tuple[int, int, int]:
    """Bits that a relayed link holds, the block that its KME expects next, and bits that were drawn from it, ever."""
    store = kme.site.store
    return kme.pool.held_bits(link), store.next_sequence(link), _drawn(store.ledger(link))


def _drawn(ledger: Mapping[Account, int]) -> int:
    return ledger[Account.RESERVED] + ledger[Account.DELIVERED] + ledger[Account.BURNT]
