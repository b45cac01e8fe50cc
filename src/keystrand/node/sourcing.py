"""The links of a running site that makers' devices or files feed: what `sources.supply` orders, done.

One feed to a link. What it says to the other end goes on the channel between the two KMEs; its blocks go through the same door
as those of modules. Of a site's replicas one draws, by a lease; whichever hears an offer answers it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from keystrand.api.push import Pusher, push_app
from keystrand.config.schema import SiteConfig
from keystrand.config.sources import PushSource, SourceEntry
from keystrand.core.clock import Clock, SystemEntropy
from keystrand.core.errors import KeystrandError, Unavailable, UnknownKey
from keystrand.core.events import Event, Scalar, Sink
from keystrand.net.http_server import HttpServer
from keystrand.net.tls import TlsContexts, TlsPolicy
from keystrand.node.devices import LinkState, take_block
from keystrand.node.engine import Engine
from keystrand.node.journal import LinkJournal
from keystrand.node.makers import device_of
from keystrand.node.peers import PeerLines
from keystrand.sources.device import Device, DeviceKey, wipe
from keystrand.sources.intake import Intake
from keystrand.sources.journal import Claim
from keystrand.sources.push import PushDevice
from keystrand.sources.supply import Burn, Draw, Fetch, Keep, Order, Say, Supply
from keystrand.store.sources import BURNT, SqlSources
from keystrand.wire.device import BlockReady, LinkReport
from keystrand.wire.peer import SourceOffer, SourceTaken

TICK_S: Final = 0.25
ASK_S: Final = 20.0  # for a device to answer
RETRY_S: Final = 0.25
RATE_WINDOW_S: Final = 30.0

Reply = Callable[[SourceOffer | SourceTaken], None]


class Feed:
    """One link."""

    def __init__(
        self,
        name: str,
        peer: str,
        entry: SourceEntry,
        intake: Intake,
        device: Device,
        journal: LinkJournal,
        supply: Supply,
    ) -> None:
        self.name, self.peer, self.entry = name, peer, entry
        self.intake, self.device, self.journal, self.supply = intake, device, journal, supply
        self.state = LinkState(simulated=entry.device.trust == "simulated", measures=False)
        self.flow: deque[tuple[float, int]] = deque()
        self.told = ""  # the problem that was told last
        self.held = False  # whether this replica had the source when it looked last
        self.at_device = asyncio.Lock()  # what is burnt is gone before the next draw
        self.reply: Reply | None = None  # where the last offer came from, which may be any process of the other site


class Sourcing:
    """All feeds of one site. `links`: how they are, for the gauges; `pushers`: those that wait for what devices push."""

    def __init__(
        self,
        config: SiteConfig,
        engine: Engine,
        lines: PeerLines,
        sources: SqlSources,
        holds: Callable[[str], bool],
        clock: Clock,
        sink: Sink,
    ) -> None:
        """holds: whether a job is this replica's, in the present transaction."""
        self._engine, self._lines, self._sources, self._holds = engine, lines, sources, holds
        self._clock, self._sink, self._entropy = clock, sink, SystemEntropy()
        self._folder = config.site.state_dir / "sources"
        self._feeds = {name: self._feed(config, name, entry) for name, entry in config.sources.items()}
        self.links = {name: feed.state for name, feed in self._feeds.items()}
        self._tasks: asyncio.TaskGroup | None = None
        lines.sources = self._hear

    def _feed(self, config: SiteConfig, name: str, entry: SourceEntry) -> Feed:
        peer = config.links[name].peer
        leads = config.site.name < peer
        holds = lambda: not leads or self._holds(f"source {name}")  # noqa: E731
        journal = LinkJournal(
            name,
            self._engine,
            self._sources,
            holds,
            lost=lambda bits, reason: self._emit("source.lost", link=name, bits=bits, reason=reason),
        )
        device = device_of(
            entry,
            journal,
            leads=leads,
            limits=config.limits,
            sink=self._sink,
            refused=lambda what, reason: self._emit("source.refused", link=name, name=what, reason=reason),
        )
        number = lambda: int.from_bytes(self._entropy.bytes(8), "big") >> 1  # noqa: E731
        supply = Supply(name, entry.kind, leads=leads, number=number)
        return Feed(
            name, peer, entry, Intake(name, entry.label, config.limits, entry.device.trust), device, journal, supply
        )

    @property
    def pushers(self) -> dict[str, Pusher]:
        """The devices of [push], by link."""
        return {
            name: Pusher(feed.entry.settings.module, feed.entry.key_bits, feed.device)
            for name, feed in self._feeds.items()
            if isinstance(feed.device, PushDevice) and isinstance(feed.entry.settings, PushSource)
        }

    def push_refused(self, link: str, device: str, reason: str) -> None:
        """What a device pushed is none."""
        self._emit("source.refused", link=link, name=device, reason=reason)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            for feed in self._feeds.values():
                await feed.journal.bring_in(self._folder / f"{feed.name}.journal")
            async with asyncio.TaskGroup() as self._tasks:
                while True:
                    for feed in self._feeds.values():
                        await self._look(feed)
                        self._report(feed)
                    await asyncio.sleep(TICK_S)
        finally:
            for feed in self._feeds.values():
                await feed.device.close()

    async def _look(self, feed: Feed) -> None:
        try:
            held_bits, holds = await self._engine.call(
                lambda kme: (kme.pool.held_bits(feed.name), feed.journal.holds())
            )
        except KeystrandError:
            return  # the site says so itself
        if feed.held and not holds:
            self._begin(self._reset(feed))
        feed.held = holds
        wanted = holds and held_bits < feed.entry.fill_bits and self._lines.is_up(feed.peer)
        feed.supply.tick(self._clock.monotonic_s(), wanted=wanted)
        self._perform(feed)

    def _hear(self, peer: str, message: SourceOffer | SourceTaken, reply: Reply) -> None:
        feed = self._feeds.get(message.link)
        if feed is None or feed.peer != peer:
            self._emit(
                "peer.fault", peer=peer, reason=f"it speaks of a source of {message.link[:64]}; there is none here"
            )
        else:
            self._begin(self._heard(feed, message, reply))

    async def _heard(self, feed: Feed, message: SourceOffer | SourceTaken, reply: Reply) -> None:
        if isinstance(message, SourceTaken):
            feed.supply.hear_taken(message, self._clock.monotonic_s())
        else:
            try:
                under = await feed.journal.kept_under(message.names) if message.length_bits else BURNT
            except KeystrandError:
                return  # it will be repeated
            if (following := await self._following(feed)) is None:
                return
            feed.reply = reply
            feed.supply.hear_offer(message, next_sequence=following, kept=under == message.sequence)
        self._perform(feed)

    async def _following(self, feed: Feed) -> int | None:
        """The next sequence that is free here; None while the store does not say."""
        try:
            return await self._engine.call(lambda kme: kme.site.store.next_sequence(feed.name))
        except KeystrandError:
            return None

    # orders --------------------------------------------------------------------------------------------------------

    def _perform(self, feed: Feed) -> None:
        for order in feed.supply.drain():
            self._do(feed, order)

    def _do(self, feed: Feed, order: Order) -> None:
        if isinstance(order, Say):
            self._say(feed, order.message)
        elif isinstance(order, Burn):
            self._begin(self._burn(feed, order))
        elif isinstance(order, Draw):
            self._begin(self._draw(feed))
        elif isinstance(order, Fetch):
            self._begin(self._fetch(feed, order))
        else:
            self._begin(self._keep(feed, order))

    def _say(self, feed: Feed, message: SourceOffer | SourceTaken) -> None:
        if isinstance(message, SourceTaken) and feed.reply is not None:
            feed.reply(message)
        else:
            self._lines.send(feed.peer, message)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            work.close()  # heard before the site runs: it will be repeated
        else:
            self._tasks.create_task(work)

    async def _draw(self, feed: Feed) -> None:
        following, keys, problem = await self._following(feed), list[DeviceKey](), ""
        if following is None:
            problem = "the site's store is away"
        else:
            try:
                async with feed.at_device:
                    keys = await self._unused(feed, await self._asked(feed.device.draw()))
            except KeystrandError as error:
                problem = str(error)
        feed.supply.drawn(keys, self._clock.monotonic_s(), next_sequence=following or 0, problem=problem)
        self._perform(feed)

    async def _fetch(self, feed: Feed, order: Fetch) -> None:
        until_s = self._clock.monotonic_s() + feed.entry.patience_s
        keys, problem = list[DeviceKey](), ""
        while not keys and not problem:
            try:
                async with feed.at_device:
                    keys = await self._asked(feed.device.fetch(order.names))
            except (Unavailable, UnknownKey) as error:
                if self._clock.monotonic_s() >= until_s:
                    problem = str(error)
                    with contextlib.suppress(KeystrandError):  # what comes after all waits until it is too old
                        await feed.journal.refuse(order.names)
                else:
                    await asyncio.sleep(RETRY_S)
            except KeystrandError as error:
                problem = str(error)
        following = await self._following(feed)
        feed.supply.fetched(order.offer, keys, next_sequence=following or 0, problem=problem)
        self._perform(feed)

    @staticmethod
    async def _asked(asking: Coroutine[Any, Any, list[DeviceKey]]) -> list[DeviceKey]:
        """What the device gave. Raises KeystrandError."""
        try:
            async with asyncio.timeout(ASK_S):
                return await asking
        except (TimeoutError, OSError) as error:
            raise Unavailable(f"the device does not answer: {str(error) or 'not in time'}") from None

    async def _unused(self, feed: Feed, keys: list[DeviceKey]) -> list[DeviceKey]:
        """Without those that the device gave before; they are burnt."""
        names = await feed.journal.stale(keys)
        fresh, stale = ([key for key in keys if (key.name in names) is which] for which in (False, True))
        for key in stale:
            self._emit(
                "source.refused", link=feed.name, name=key.name, reason="it came before, by its name or its bits"
            )
        if stale:
            await feed.device.claimed(tuple(key.name for key in stale))
        wipe(stale)
        return fresh

    async def _burn(self, feed: Feed, order: Burn) -> None:
        """Keys that one end will not have. What the device keeps and nobody refused comes again, so it is not lost."""
        if order.claims or not feed.device.keeps:
            self._emit("source.lost", link=feed.name, bits=order.bits, reason=order.reason)
        async with feed.at_device:
            try:
                if order.claims and await feed.journal.burn(order.claims):
                    await feed.device.claimed(tuple(name for name, _ in order.claims))
            except (KeystrandError, OSError) as error:  # they come again, and are refused at the other end
                feed.supply.problem = str(error)
            await self._reset(feed)

    async def _keep(self, feed: Feed, order: Keep) -> None:
        bits = order.material.length_bits
        ready = BlockReady(
            sequence=order.sequence,
            material=order.material.reveal(),
            sifted_bits=0,
            secret_bits=bits,
            bound_bits=bits,
            leak_ec_bits=0,
            auth_bits=0,
            qber=0.0,
            qber_test=0.0,
            eps_sec=0.0,
            eps_cor=0.0,
            duration_s=0.0,
        )
        order.material.wipe()
        claiming = feed.journal.claiming(order.sequence, order.claims)
        problem = await take_block(self._engine, feed.intake, ready, self._emit, claiming)
        if problem:
            await self._burn(feed, Burn(bits, problem, order.claims))
        else:
            async with feed.at_device:
                await self._gone(feed, order.claims)
            feed.flow.append((self._clock.monotonic_s(), bits))
            self._emit("source.block", link=feed.name, sequence=order.sequence, bits=bits, source=feed.intake.source)
        following = await self._following(feed) or order.sequence + 1
        feed.supply.kept(self._clock.monotonic_s(), next_sequence=following, problem=problem)
        self._perform(feed)
        await self._look(feed)

    @staticmethod
    async def _gone(feed: Feed, claims: tuple[Claim, ...]) -> None:
        """They are used: nothing that the device left lying here may outlive that for long."""
        with contextlib.suppress(KeystrandError, OSError):  # seen to with the next draw
            await feed.device.claimed(tuple(name for name, _ in claims))

    async def _reset(self, feed: Feed) -> None:
        try:
            await feed.device.reset()
        except (KeystrandError, OSError):
            return  # it will be opened anew

    # what people see -----------------------------------------------------------------------------------------------

    def _report(self, feed: Feed) -> None:
        """A link is up while its keys come, or none are wanted."""
        flow, now_s, problem = feed.flow, self._clock.monotonic_s(), feed.supply.problem
        while flow and flow[0][0] < now_s - RATE_WINDOW_S:
            flow.popleft()
        if problem != feed.told and bool(problem) != bool(feed.told):
            kind, fields = ("source.failed", {"reason": problem}) if problem else ("source.back", {})
            self._emit(kind, link=feed.name, **fields)
        feed.told = problem
        feed.state.connected = not problem
        rate_bps = sum(bits for _, bits in flow) / RATE_WINDOW_S
        feed.state.report = LinkReport(state="running", skr_bps=rate_bps, detail=problem or feed.entry.label)

    def _emit(self, kind: str, **fields: Scalar) -> None:
        self._sink.emit(Event(kind, self._clock.now_s(), fields))


async def serve_push(config: SiteConfig, sourcing: Sourcing, contexts: TlsContexts, sink: Sink) -> list[HttpServer]:
    """The listener of [push], where there is one. Raises ConfigError where the address cannot be had."""
    section = config.push
    if section is None:
        return []
    policy = TlsPolicy(minimum=section.minimum, require_pqc_group=section.require_pqc_group)
    own = TlsContexts(contexts.files, policy, rule=config.tls.identity, sink=sink)
    app = push_app(sourcing.pushers, sourcing.push_refused)
    server = HttpServer(app, section.listen.host, section.listen.port, contexts=own, limits=config.limits)
    await server.start()
    return [server]
