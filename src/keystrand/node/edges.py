"""Every interface of a site that its configuration asks for, opened over the same engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from keystrand.api.etsi004 import serve_etsi004
from keystrand.api.etsi015 import etsi015_app
from keystrand.api.exchange import App
from keystrand.api.kmip_server import KmipServer, serve_kmip
from keystrand.api.skip import SkipEncryptor, SkipSite, skip_app
from keystrand.config.edges import Etsi004, Kmip, Sdn, Skip, SkipPsk
from keystrand.config.schema import SiteConfig
from keystrand.config.values import Address
from keystrand.core.events import Sink
from keystrand.kme.service import Kme
from keystrand.net.frames import FrameServer
from keystrand.net.http_server import HttpServer
from keystrand.net.psk import PskContexts, PskPolicy
from keystrand.net.tls import ServerSide, TlsContexts, TlsPolicy
from keystrand.node.engine import Engine
from keystrand.node.interdomain import Border
from keystrand.node.keys import EngineKeys
from keystrand.node.maintenance import Upkeep
from keystrand.node.objects import EngineObjects
from keystrand.node.sdn import EngineNode
from keystrand.node.streams import EngineStreams
from keystrand.observe.gauges import Gauges

Server = HttpServer | FrameServer | KmipServer


@dataclass(frozen=True, slots=True)
class Edges:
    """The further interfaces of one site. `gauges` reads the site; it runs inside the engine."""

    config: SiteConfig
    engine: Engine
    contexts: TlsContexts
    sink: Sink
    gauges: Callable[[Kme], Gauges]
    border: Border
    upkeep: Upkeep | None = None

    async def open(self) -> list[Server]:
        """Listen on all of them. Raises ConfigError where an address cannot be had."""
        config = self.config
        opening: list[Awaitable[Server]] = []
        if config.etsi004 is not None:
            opening.append(self._etsi004(config.etsi004))
        if config.skip is not None:
            opening += self._skip(config.skip)
        if config.sdn is not None:
            opening.append(self._sdn(config.sdn))
        if config.kmip is not None:
            opening.append(self._kmip(config.kmip))
        if config.interdomain is not None and self.border.contexts is not None:
            app, listen = self.border.app(self.engine), config.interdomain.listen
            opening.append(self._http(app, listen, self.border.contexts))
        return [await server for server in opening]

    async def _http(self, app: App, listen: Address, contexts: ServerSide) -> Server:
        server = HttpServer(app, listen.host, listen.port, contexts=contexts, limits=self.config.limits)
        await server.start()
        return server

    async def _etsi004(self, section: Etsi004) -> Server:
        listen = (section.listen.host, section.listen.port)
        streams = EngineStreams(self.engine)
        return await serve_etsi004(listen, self.contexts, streams, limits=self.config.limits, sink=self.sink)

    def _skip(self, section: Skip) -> list[Awaitable[Server]]:
        encryptors = {
            sae: SkipEncryptor(system_id=encryptor.system_id, remotes=encryptor.remotes)
            for sae, encryptor in section.encryptors.items()
        }
        app = skip_app(EngineKeys(self.engine), SkipSite(encryptors=encryptors), sink=self.sink)
        opening: list[Awaitable[Server]] = []
        if section.listen is not None:
            opening.append(self._http(app, section.listen, self.contexts))
        if section.psk is not None:
            opening.append(self._http(app, section.psk.listen, self._psk(section.psk)))
        return opening

    def _psk(self, section: SkipPsk) -> PskContexts:
        policy = PskPolicy(minimum=section.minimum, forward_secrecy=section.forward_secrecy)
        return PskContexts(section.file, policy, section.identities, self.sink)

    async def _sdn(self, section: Sdn) -> Server:
        readers, writers = frozenset(section.readers), frozenset(section.writers)
        source = EngineNode(self.engine, self.gauges, self.upkeep)
        app = etsi015_app(
            source,
            may_read=lambda identity: identity.kind in (None, "sae") and identity.name in readers,
            may_write=lambda identity: identity.name in writers,
            sink=self.sink,
        )
        return await self._http(app, section.listen, self.contexts)

    async def _kmip(self, section: Kmip) -> Server:
        policy = TlsPolicy(minimum=section.minimum, require_pqc_group=section.require_pqc_group)
        contexts = TlsContexts(self.contexts.files, policy, rule=self.config.tls.identity, sink=self.sink)
        listen = (section.listen.host, section.listen.port)
        return await serve_kmip(listen, contexts, EngineObjects(self.engine), sink=self.sink, limits=self.config.limits)
