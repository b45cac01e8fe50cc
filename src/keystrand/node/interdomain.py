"""The border of a site: what KMEs of other networks ask of it, and what it sends them until they have answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar
from urllib.parse import urlsplit

from keystrand.api.etsi020 import InterdomainPeer, etsi020_app
from keystrand.api.etsi020_client import InterdomainClient
from keystrand.api.exchange import App
from keystrand.config import edges
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import KeystrandError
from keystrand.core.events import Event, Sink
from keystrand.crypto.sign import Signer, Verifier
from keystrand.kme.border import Terms
from keystrand.kme.bordering import BorderingKme
from keystrand.kme.ends import Ends
from keystrand.kme.interdomain import Interdomain
from keystrand.kme.service import Kme
from keystrand.kme.site import Site
from keystrand.kme.streaming import StreamingKme
from keystrand.kme.ways import Domain
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.engine import Engine
from keystrand.wire.etsi020 import Ack, ExtKeys, Versions, Void
from keystrand.wire.handover import Answered, HandoverStore, Outgoing

T = TypeVar("T")
POLL_S: Final = 0.25  # between looks for what time has made due
ANSWER_S: Final = 10.0
SETTLED_S: Final = 0.8 * ANSWER_S  # a peer waits as long as we do
SETTLE_POLL_S: Final = 0.03
IN_FLIGHT_MAX: Final = 16  # requests to all peers together
HTTPS_PORT: Final = 443


class EngineInterdomain:
    """Satisfies api.etsi020.InterdomainService. The engine's service must be a BorderingKme."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def holds(self, peer: str, key_ids: tuple[str, ...], /) -> bool:
        return await self._do(lambda border: border.holds(key_ids))

    async def receive_keys(self, peer: str, keys: ExtKeys, /) -> tuple[Ack, ...] | None:
        acks = await self._do(lambda border: border.receive_keys(peer, keys))
        if acks is None and keys.callback_url is None:
            return await self._settled(keys.key_ids)
        return acks

    async def _settled(self, key_ids: tuple[str, ...]) -> tuple[Ack, ...] | None:
        """The outcome of keys that are carried on, for a peer that waits for it; None if it takes too long."""
        pause_s = SETTLE_POLL_S
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLED_S):
                while True:
                    await asyncio.sleep(pause_s)
                    pause_s = min(1.5 * pause_s, POLL_S)
                    acks = await self._do(lambda border: border.handovers.outcome(key_ids))
                    if acks is not None:
                        return acks
        return None

    async def acknowledge(self, peer: str, acks: tuple[Ack, ...], /) -> None:
        await self._do(lambda border: border.acknowledge(peer, acks))

    async def void_keys(self, peer: str, void: Void, /) -> tuple[Ack, ...] | None:
        return await self._do(lambda border: border.void_keys(peer, void))

    async def due(self) -> list[Outgoing]:
        return await self._do(lambda border: border.due())

    async def answered(self, outgoing: Outgoing, answer: Answered) -> None:
        await self._do(lambda border: border.answered(outgoing, answer))

    async def _do(self, operation: Callable[[Interdomain], T]) -> T:
        return await self._engine.call(lambda kme: operation(border_of(kme)))


def border_of(kme: Kme) -> Interdomain:
    assert isinstance(kme, BorderingKme), "this site has no border"
    return kme.interdomain


class Border:
    """What a site's [interdomain] asks for; without that table, a site without a border."""

    def __init__(self, config: SiteConfig, sink: Sink) -> None:
        self.config = config
        self.section = config.interdomain
        self.sink = sink
        self._wake = asyncio.Event()
        self._silent: set[str] = set()  # KMEs that did not answer the last request
        self.contexts = self._contexts(self.section) if self.section is not None else None

    def _contexts(self, section: edges.Interdomain) -> TlsContexts:
        tls = self.config.tls
        revoked = section.revoked if section.trust is not None else section.revoked or tls.revoked
        files = TlsFiles(tls.certificate, tls.private_key, section.trust or tls.trust, revoked)
        return TlsContexts(files, TlsPolicy(), rule=tls.identity, sink=self.sink)

    def kme(self, site: Site, handovers: HandoverStore, signer: Signer) -> StreamingKme:
        """The service of the site, with this border."""
        if self.section is None:
            return StreamingKme(site)
        domains = [_domain(kme_id, peer, self.section.callback_url) for kme_id, peer in self.section.peers.items()]
        section = self.section
        terms = Terms(operator=section.operator, kmes_max=section.kmes_max, forbidden=frozenset(section.forbidden))
        verify = {sae: Verifier.parse(text).verify for sae, text in section.ends.items()}
        ends, timeout_s = Ends(site.kem, signer.sign, verify), section.timeout_ms / 1000
        return BorderingKme(site, handovers, domains, timeout_s=timeout_s, wake=self._wake.set, terms=terms, ends=ends)

    def app(self, engine: Engine) -> App:
        """What the listener for KMEs of other networks serves."""
        assert self.section is not None
        peers = {
            kme_id: InterdomainPeer(kme_id=kme_id, callback_url=peer.callback_url)
            for kme_id, peer in self.section.peers.items()
        }
        return etsi020_app(EngineInterdomain(engine), peers, sink=self.sink)

    async def ask(self, kme_id: str) -> Versions:
        """What a KME of another network speaks. Raises PeerUnavailable, PeerFault, NotPermitted."""
        assert self.section is not None
        client, lines = self._clients(kme_id, self.section.peers[kme_id])
        try:
            return await client.versions()
        finally:
            for line in lines:
                await line.close()

    async def run(self, engine: Engine) -> None:
        """Send what is due, as long as the site runs."""
        if self.section is None:
            return
        clients = [self._clients(kme_id, peer) for kme_id, peer in self.section.peers.items()]
        posts = {client.peer.kme_id: client for client, _ in clients}
        service, free = EngineInterdomain(engine), asyncio.Semaphore(IN_FLIGHT_MAX)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._wake.clear()
                    for outgoing in await self._due(service):
                        tasks.create_task(self._exchange(service, posts.get(outgoing.peer), outgoing, free))
                    await self._until_woken()
        finally:
            for line in (line for _, lines in clients for line in lines):
                await line.close()

    async def _until_woken(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _due(self, service: EngineInterdomain) -> list[Outgoing]:
        try:
            return await service.due()
        except KeystrandError:
            await asyncio.sleep(POLL_S)  # the store is away; the engine says so
            return []

    async def _exchange(
        self, service: EngineInterdomain, client: InterdomainClient | None, outgoing: Outgoing, free: asyncio.Semaphore
    ) -> None:
        if client is None:
            return  # of a KME that the file names no more: asked again later, until it is named or the record ends
        async with free:
            answer = await client.send(outgoing)
        self._hear(outgoing.peer, silent=answer.unclear)
        try:
            await service.answered(outgoing, answer)
        except KeystrandError:
            return  # as if the answer had not come: it is asked for again

    def _hear(self, kme_id: str, *, silent: bool) -> None:
        """Say once that a KME does not answer, or does not say what it did; and once that it does again."""
        if silent == (kme_id in self._silent):
            return
        kind, fields = ("peer.down", {"reason": "no clear answer"}) if silent else ("peer.up", {"group": ""})
        (self._silent.add if silent else self._silent.discard)(kme_id)
        self.sink.emit(Event(kind, time.time(), {"peer": kme_id, **fields}))

    def _clients(self, kme_id: str, peer: edges.InterdomainPeer) -> tuple[InterdomainClient, Sequence[HttpClient]]:
        line = self._line(kme_id, peer.url)
        lines = [line]
        if urlsplit(peer.callback_url).netloc != urlsplit(peer.url).netloc:
            lines.append(self._line(kme_id, peer.callback_url))
        known = InterdomainPeer(kme_id=kme_id, callback_url=peer.callback_url)
        return InterdomainClient(known, line, lines[1] if len(lines) > 1 else None), lines

    def _line(self, kme_id: str, url: str) -> HttpClient:
        parts = urlsplit(url)
        assert self.contexts is not None
        assert parts.hostname is not None
        expect = ("kme" if self.config.tls.identity == "san-uri" else None, kme_id)
        port = parts.port or HTTPS_PORT
        return HttpClient(
            parts.hostname, port, self.contexts, expect=expect, limits=self.config.limits, timeout_s=ANSWER_S
        )


def _domain(kme_id: str, peer: edges.InterdomainPeer, own_callback: str) -> Domain:
    callback = None if peer.synchronous else own_callback
    saes = {sae: frozenset(partners) for sae, partners in peer.saes.items()}
    return Domain(kme_id=kme_id, own_callback=callback, saes=saes, operator=peer.operator, cost=peer.cost)
