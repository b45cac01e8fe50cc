"""The composition root of one site: reads the configuration, builds every room, owns the one TaskGroup."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import ChainMap
from collections.abc import Iterable
from pathlib import Path

from starlette.types import ASGIApp as App
from starlette.types import Message, Receive, Scope
from starlette.types import Send as Sending

from keystrand.api.etsi014 import KEY_ROUTES, Etsi014
from keystrand.config.schema import SiteConfig, Tls
from keystrand.console.page import LOOPBACK_HOSTS, status_app
from keystrand.core.clock import Clock, SystemClock, SystemEntropy
from keystrand.core.errors import ConfigError, KeystrandError
from keystrand.core.events import Event, Sink
from keystrand.core.policy import Policy
from keystrand.crypto.combine import StrandCombiner
from keystrand.crypto.kem import MlKem768, MlKem1024
from keystrand.crypto.sign import Signer, Verifier
from keystrand.kme.service import Kme
from keystrand.kme.site import Effect, Emit, Link, Send, Site
from keystrand.net.frames import serve_frames
from keystrand.net.http_server import HttpServer
from keystrand.net.http_whole import Headers, Reply, Whole
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.admin import Place, PolicyPaper, keep_number, policy_in_force, roll_of, serve_admin
from keystrand.node.beside import Part
from keystrand.node.devices import Devices
from keystrand.node.edges import Edges, Server
from keystrand.node.engine import Engine
from keystrand.node.interdomain import Border
from keystrand.node.keys import EngineKeys
from keystrand.node.notary import Notary
from keystrand.node.outlets import audit_sinks
from keystrand.node.paths import Paths
from keystrand.node.peers import Line, PeerLines
from keystrand.node.policy_file import read_again
from keystrand.node.readings import Readings
from keystrand.node.relaying import Relaying
from keystrand.node.replicas import OneProcess, Replica, open_place
from keystrand.node.rollback import Mark, keep_mark, mark_of, write_mark
from keystrand.node.sealing import sealer_of
from keystrand.node.sourcing import Sourcing, serve_push
from keystrand.node.tunnels import TunnelPrograms
from keystrand.node.withdrawal import Withdrawals
from keystrand.observe.audit import AuditLog
from keystrand.observe.feed import Feed
from keystrand.observe.gauges import Gauges, LinkGauge
from keystrand.observe.logs import LogSink
from keystrand.observe.metrics import Metrics
from keystrand.store.sql import SqlStore

TICK_S = 0.25
READING_S = 1.0
COLLECTOR = (10_000, 20, 20)  # new objects between two looks at the youngest; its looks between two at the older
VERBS = frozenset({*KEY_ROUTES, "use"})


class Sinks:
    """One sink that tells all."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks = tuple(sinks)

    def add(self, sink: Sink) -> None:
        self._sinks = (*self._sinks, sink)

    def emit(self, event: Event, /) -> None:
        for sink in self._sinks:
            sink.emit(event)


def tls_contexts(tls: Tls, sink: Sink, trust: Path | None = None) -> TlsContexts:
    """Contexts as a configuration file's [tls] wants them."""
    return TlsContexts(
        TlsFiles(tls.certificate, tls.private_key, trust or tls.trust, tls.revoked),
        TlsPolicy(minimum=tls.minimum, require_pqc_group=tls.require_pqc_group),
        rule=tls.identity,
        sink=sink,
    )


def open_store(config: SiteConfig) -> SqlStore:
    """The site's sealed store; its directory is made on first use."""
    return _open(config)[0]


def _open(config: SiteConfig) -> tuple[SqlStore, Replica | OneProcess]:
    """That, and our place among the site's replicas."""
    state = config.site.state_dir
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    return open_place(config, sealer_of(config))


class SiteNode:
    """A running site."""

    def __init__(self, config: SiteConfig, *, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.feed = Feed(config.site.name, clock=self.clock)
        self.metrics = Metrics(links=(*config.links, *config.relayed_links), peers=tuple(config.peers))
        self.sink = Sinks((self.metrics, self.feed, LogSink(config.site.name)))
        self.contexts = tls_contexts(config.tls, self.sink)
        self.peer_contexts = tls_contexts(config.peer_tls, self.sink)
        self.store, self.replica = _open(config)
        self.policy = self._first_policy()
        self.roll = roll_of(config.admin)
        self.border = Border(config, self.sink)
        origin = AuditLog(self.store, self.clock, config.site.name).origin
        self.signer = signer = Signer.load_or_create(origin, config.site.audit_key_file)
        place = self.replica
        self.engine = Engine(
            self._kme, self._perform, self._store_failed, self._store_back, turns=place.turns, disk=place.disk
        )
        with self.store.transaction():
            self._keep_number(self.policy)
        self.withdrawals = self._withdrawals()
        self.beside: list[Part] = [self.withdrawals] if self.withdrawals else []  # whoever runs the site may add more
        self.audit_sinks = self.engine.gate = audit_sinks(config, self.store, self.clock, self.sink)
        modules = {name: link.module for name, link in config.links.items() if link.module is not None}
        self.devices = Devices(modules, self.engine, config.limits, self.sink)
        self.notary = self._notary(signer)
        self.lines = self._lines()
        self.notary.send = self.lines.send
        self.paths = Paths(config, self.clock, self.sink)
        self.sink.add(self.paths)
        self.relaying: Relaying | None = None
        if config.relay is not None:
            papers = self.store.papers
            self.relaying = Relaying(config, signer, self.engine, self.lines, papers, self.clock, self.sink, self.paths)
        if self.relaying is not None:
            self.sink.add(self.relaying)
        relayed = {} if self.relaying is None else self.relaying.links
        self.sourcing: Sourcing | None = None
        if config.sources:
            sources, holds = self.store.sources, self.replica.leads
            self.sourcing = Sourcing(config, self.engine, self.lines, sources, holds, self.clock, self.sink)
        sourced = {} if self.sourcing is None else self.sourcing.links
        pads = self.relaying.pads if self.relaying else {}
        self.readings = Readings(ChainMap(self.devices.links, relayed, sourced), pads)
        self._link_gauges: tuple[LinkGauge, ...] = ()
        self._reading: set[asyncio.Task[None]] = set()
        self._servers: list[Server] = []
        self.tunnels: TunnelPrograms | None = None

    def _first_policy(self) -> Policy:
        """Raises ConfigError, and leaves the store to whoever mends the file."""
        try:
            return policy_in_force(self.config, self.store, self.clock.now_s())
        except BaseException:
            self.store.close()
            raise

    def _keep_number(self, policy: Policy) -> None:
        keep_number(self.store, policy, self.clock.now_s())

    # building ------------------------------------------------------------------------------------------------------

    def _kme(self) -> Kme:
        config = self.config
        site = Site(
            name=config.site.name,
            kme_id=config.site.kme_id,
            peer_kme_ids={name: peer.kme_id for name, peer in config.peers.items()},
            links=(
                *(Link(name=name, peer=link.peer) for name, link in config.links.items()),
                *(Link(name=name, peer=peer) for name, peer in config.relayed_links.items()),
            ),
            policy=self.policy,
            limits=config.limits,
            store=self.store,
            audit_trail=AuditLog(self.store, self.clock, config.site.name),
            kem=MlKem768(),
            kems={name: MlKem1024() for name, peer in config.peers.items() if peer.kem == MlKem1024.algorithm},
            combiner=StrandCombiner(),
            clock=self.clock,
            entropy=SystemEntropy(),
            require_open=self.store.sealer.require_open,
        )
        self.replica.enter(site)
        return self.border.kme(site, self.store.handovers, self.signer)

    def _withdrawals(self) -> Withdrawals | None:
        if not self.config.kms:
            return None
        leads = lambda: self.replica.leads("kms")  # noqa: E731
        made = Withdrawals(self.config.kms, self.store, self.clock, self.sink, leads=leads)
        self.sink.add(made)
        return made

    def _notary(self, signer: Signer) -> Notary:
        site = self.config.site
        neighbours = {name: _verifier(peer.audit_key) for name, peer in self.config.peers.items()}
        clock, limits = self.clock, self.config.limits
        return Notary(
            site.name,
            self.store,
            self.engine,
            signer,
            neighbours,
            clock,
            limits,
            self.sink,
            lambda: self.replica.leads("checkpoints"),
        )

    def _lines(self) -> PeerLines:
        lines = {
            name: Line(name, peer.kme_id, peer.address.host, peer.address.port)
            for name, peer in self.config.peers.items()
        }
        return PeerLines(
            lines,
            self.engine,
            self.peer_contexts,
            self.config.limits,
            self.sink,
            self.notary.hear,
        )

    def begin_epoch(self, number: int = 0) -> None:
        """Nothing that a restored store calls unused may be used (invariant I14): quarantine it, under a new epoch.

        number: of the epoch; 0: the next one.
        """
        with self.store.transaction():
            if number:
                self.store.set_epoch(number - 1)
            self.engine.kme.begin_epoch()
            self.store.sources.burn_waiting()

    # effects -------------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.lines.send(effect.peer, effect.message, effect.via)
            elif isinstance(effect, Emit):
                self.sink.emit(effect.event)
                if self.relaying is not None and effect.event.kind == "block.quarantined":
                    self.relaying.spoilt(effect.event)

    def _store_failed(self, error: KeystrandError) -> None:
        self.sink.emit(Event("store.failed", self.clock.now_s(), {"reason": str(error)}))

    def _store_back(self) -> None:
        self.lines.again()

    # running -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open every listener."""
        config, limits = self.config, self.config.limits
        heed = self.withdrawals.note if self.withdrawals else None
        keys = EngineKeys(self.engine, heed, lambda: self._link_gauges)
        app = Etsi014(keys, limits=limits, sink=self.sink, clock=self.clock)
        etsi014 = HttpServer(
            self._timed(app),
            config.etsi014.listen.host,
            config.etsi014.listen.port,
            contexts=self.contexts,
            limits=limits,
            whole=self._timed_whole(app),
        )
        await etsi014.start()
        self._servers.append(etsi014)
        if config.status is not None:
            hosts = (*LOOPBACK_HOSTS, config.status.listen.host)
            page = status_app(self.feed, self.metrics, site=config.site.name, hosts=hosts)
            status = HttpServer(
                page, config.status.listen.host, config.status.listen.port, contexts=None, limits=limits
            )
            await status.start()
            self._servers.append(status)
        for listen, contexts, handler, allow, size in (
            (config.peer.listen, self.peer_contexts, self.lines.serve, self.lines.allow, limits.peer_frame_bytes_max),
            (
                config.device.listen,
                self.contexts,
                self.devices.serve,
                self.devices.allow,
                limits.device_frame_bytes_max,
            ),
        ):
            server = await serve_frames(
                (listen.host, listen.port), contexts, handler, allow=allow, limits=limits, frame_bytes_max=size
            )
            self._servers.append(server)
        upkeep = self.relaying.upkeep if self.relaying else None
        edges = Edges(config, self.engine, self.contexts, self.sink, self._gauges, self.border, upkeep)
        self._servers += await edges.open()
        if self.sourcing is not None:
            self._servers += await serve_push(config, self.sourcing, self.contexts, self.sink)
        beside = tuple(part.job for part in self.beside)
        place = Place(config, self.store, self.clock, self.feed, self._gauges, beside, upkeep)
        self._servers += await serve_admin(place, self.engine, self.sink, self._adopt, self.roll)
        self.sink.emit(Event("site.started", self.clock.now_s(), {"site": config.site.name}))

    def _adopt(self, policy: Policy) -> None:
        self.policy = policy

    def _timed(self, app: App) -> App:
        """The same application, with the latency of each request in the metrics."""

        async def timed(scope: Scope, receive: Receive, send: Sending) -> None:
            began_s, status = self.clock.monotonic_s(), 500

            async def noting(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            await app(scope, receive, noting if scope["type"] == "http" else send)
            if scope["type"] == "http":
                self._observe(scope, status, self.clock.monotonic_s() - began_s)

        return timed

    def _timed_whole(self, app: Etsi014) -> Whole:
        """The same for requests that come whole."""
        now_s = self.clock.monotonic_s

        def timed(scope: Scope, body: bytes, reply: Reply) -> None:
            began_s = now_s()

            def noting(status: int, headers: Headers, answer: bytes) -> None:
                reply(status, headers, answer)
                self._observe(scope, status, now_s() - began_s)

            app.whole(scope, body, noting)

        return timed

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        verb = scope["path"].rpartition("/")[2]
        self.metrics.observe_request(verb if verb in VERBS else "other", status, seconds)  # a caller chooses no labels

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        await self.start()
        _settle_memory()
        try:
            async with asyncio.TaskGroup() as tasks:
                jobs = [self.engine.run(), self.notary.run(), self._tick(), self._read()]
                jobs.append(self.replica.run(self.engine, self.sink))
                jobs.append(self.border.run(self.engine))
                jobs += [part.run(self.engine) for part in self.beside]
                jobs += [self.lines.keep(line) for line in self.lines.neighbours()]
                if self.audit_sinks is not None:
                    jobs.append(self.audit_sinks.run())
                if self.config.site.store is None:
                    jobs.append(keep_mark(self.config, lambda: self.engine.call(self._mark)))
                if self.relaying is not None:
                    jobs.append(self.relaying.run())
                if self.sourcing is not None:
                    jobs.append(self.sourcing.run())
                if self.tunnels is not None:
                    jobs.append(self.tunnels.run())
                running = [tasks.create_task(job) for job in jobs]
                await stop.wait()
                self.sink.emit(Event("site.stopping", self.clock.now_s(), {"site": self.config.site.name}))
                await self._close()
                for task in running:
                    task.cancel()
        finally:
            self._leave_mark()
            self.replica.leave()
            if self.audit_sinks is not None:
                self.audit_sinks.close()
            self.store.close()

    def _mark(self, _: Kme) -> Mark:
        return mark_of(self.config, self.store)

    def _leave_mark(self) -> None:
        """The last one, where the store is a file of ours that can still be written."""
        if self.config.site.store is None:
            with contextlib.suppress(OSError, KeystrandError):
                with self.store.transaction():
                    mark = mark_of(self.config, self.store)
                write_mark(self.config, mark)

    def read_policy_soon(self, file: Path) -> None:
        """Read the policy of the site's file again; keys in flight are judged by the new one."""
        task = asyncio.get_running_loop().create_task(self._read_policy(file))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _read_policy(self, file: Path) -> None:
        # the site may be stopping, or its store have failed: that is said elsewhere
        with contextlib.suppress(KeystrandError):
            self.policy = await read_again(file, self.config, self.engine, self.roll, self._keep_number) or self.policy

    async def _close(self) -> None:
        self.feed.close()
        for server in self._servers:
            await (server.stop() if isinstance(server, HttpServer) else server.close())

    async def _tick(self) -> None:
        """Where jobs have left some over they go on soon, and still leave half of the time to everybody else."""
        loop = asyncio.get_running_loop()
        while True:
            begun_s, has_more = loop.time(), False
            with contextlib.suppress(KeystrandError):  # the engine has said what it is, and tries anew
                has_more = await self.engine.call(lambda kme: kme.tick())
            await asyncio.sleep(min(TICK_S, loop.time() - begun_s) if has_more else TICK_S)

    async def _read(self) -> None:
        paper = PolicyPaper(self.config, self.store)
        while True:
            with contextlib.suppress(KeystrandError):
                taken = await self.engine.call(paper.follow)
                if taken is not None:
                    self._adopt(taken)
                gauges = await self.engine.call(self._gauges)
                self._link_gauges = gauges.links
                self.metrics.update(gauges)
                self.feed.update(gauges)
            self.paths.settle()
            await asyncio.sleep(READING_S)

    def _gauges(self, kme: Kme) -> Gauges:
        expiry_s = self.contexts.own_not_after_s - self.clock.now_s()
        network = self.relaying.gauge if self.relaying is not None else None
        return self.readings.read(kme, self.notary.gauge, expiry_s, network)


def _settle_memory() -> None:
    """What stands now stays: the collector of cycles need not look at it again, nor at every few hundred new objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR)


def _verifier(path: Path) -> Verifier:
    try:
        return Verifier.parse(path.read_text().strip())
    except (OSError, ValueError, KeystrandError) as error:
        raise ConfigError(f"cannot read an audit verification key: {error}", path=str(path)) from None
