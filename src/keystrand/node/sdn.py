"""A site as its SDN controller sees it: links and modules from the gauges, applications from policy and open streams."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from uuid import UUID

from keystrand.core.identity import Identity
from keystrand.core.pool import Account
from keystrand.kme.service import Kme
from keystrand.kme.site import Site
from keystrand.kme.stream_state import Stream
from keystrand.kme.streaming import StreamingKme
from keystrand.node.engine import Engine
from keystrand.observe.gauges import Gauges, LinkGauge
from keystrand.wire.etsi015 import (
    Application,
    Interface,
    InterfaceStatus,
    Link,
    LinkStatus,
    Node,
    NodeStatus,
    entity_id,
)


class EngineNode:
    """Satisfies api.etsi015.NodeSource. `gauges` reads the site; it runs inside the engine."""

    def __init__(self, engine: Engine, gauges: Callable[[Kme], Gauges]) -> None:
        self._engine = engine
        self._gauges = gauges

    async def node(self) -> Node:
        return await self._engine.call(lambda kme: node_of(kme, self._gauges(kme)))


def node_of(kme: Kme, gauges: Gauges) -> Node:
    """The picture of now. Modules are numbered in the order of the links in the configuration."""
    site = kme.site
    applications = tuple(_pair(site, *pair) for pair in sorted(site.policy.rules) if _is_between_sites(site, *pair))
    if isinstance(kme, StreamingKme):
        applications += tuple(_stream(site, stream) for stream in kme.streams.known() if stream.is_open)
    return Node(
        node_id=_node_id(site.kme_id),
        status=NodeStatus.OPERATING,
        version=version("keystrand"),
        location=site.name,
        interfaces=tuple(_interface(number, gauge) for number, gauge in enumerate(gauges.links)),
        links=tuple(_link(site, number, gauge, applications) for number, gauge in enumerate(gauges.links)),
        applications=applications,
    )


def _node_id(kme_id: str) -> UUID:
    return entity_id("kme", kme_id)


def _urn(sae: str) -> str:
    return Identity("sae", sae).urn


def _interface(number: int, gauge: LinkGauge) -> Interface:
    status = InterfaceStatus.DISABLED if gauge.state == "down" else InterfaceStatus.ENABLED
    return Interface(number=number, status=status, model="simulated" if gauge.simulated else "")


def _link(site: Site, number: int, gauge: LinkGauge, applications: tuple[Application, ...]) -> Link:
    link_id = entity_id("link", gauge.link)
    served = [app for app in applications if link_id in app.links]
    return Link(
        link_id=link_id,
        status=_status(gauge),
        remote_node=_node_id(site.peer_kme_ids[gauge.peer]),
        local_interface=number,
        applications=tuple(app.app_id for app in served),
        skr_bps=gauge.skr_bps,
        consumption_bps=sum(app.min_bps or 0 for app in served),
    )


def _status(gauge: LinkGauge) -> LinkStatus:
    if gauge.state == "up":
        return LinkStatus.ACTIVE
    if gauge.ledger.get(Account.AVAILABLE.value, 0):
        return LinkStatus.PASSIVE
    return LinkStatus.OFF if gauge.ledger.get(Account.INGESTED.value, 0) else LinkStatus.PENDING


def _is_between_sites(site: Site, initiator: str, responder: str) -> bool:
    here = [site.policy.site_of.get(sae) == site.name for sae in (initiator, responder)]
    return here.count(True) == 1 and _peer_of(site, initiator, responder) in site.peer_kme_ids


def _peer_of(site: Site, initiator: str, responder: str) -> str:
    first, second = site.policy.site_of[initiator], site.policy.site_of[responder]
    return second if first == site.name else first


def _pair(site: Site, initiator: str, responder: str) -> Application:
    """Two SAEs that a rule lets share keys."""
    peer, rule = _peer_of(site, initiator, responder), site.policy.rules[initiator, responder]
    return Application(
        app_id=entity_id("pair", f"{initiator}/{responder}"),
        server=_urn(initiator),
        clients=(_urn(responder),),
        max_bps=int(rule.quota_bps) or None,
        ttl_s=int(site.limits.key_ttl_s),
        links=_links(site, peer),
        remote_node=_node_id(site.peer_kme_ids[peer]),
    )


def _stream(site: Site, stream: Stream) -> Application:
    """A key stream; its ID is that of the application."""
    source, destination = stream.ours or stream.theirs or (stream.local, stream.remote)
    return Application(
        app_id=UUID(stream.ksid),
        server=_urn(source),
        clients=(_urn(destination),),
        priority=stream.qos.priority,
        max_bps=stream.qos.max_bps or None,
        min_bps=stream.qos.min_bps,
        ttl_s=stream.qos.ttl_s,
        links=_links(site, stream.peer),
        remote_node=_node_id(site.peer_kme_ids[stream.peer]),
    )


def _links(site: Site, peer: str) -> tuple[UUID, ...]:
    return tuple(entity_id("link", link) for link in site.links_to(peer))
