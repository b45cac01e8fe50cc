"""A site as its SDN controller sees it: links and modules from the gauges, applications from policy and open streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Final
from uuid import UUID

from keystrand.core.errors import BadRequest, IllegalTransition, UnknownKey
from keystrand.core.identity import Identity
from keystrand.core.pool import Account
from keystrand.core.release import release
from keystrand.kme.service import Kme
from keystrand.kme.site import Site
from keystrand.kme.stream_state import Stream
from keystrand.kme.streaming import StreamingKme
from keystrand.node.engine import Engine
from keystrand.node.maintenance import Upkeep
from keystrand.observe.gauges import Gauges, LinkGauge
from keystrand.wire.etsi015 import (
    Application,
    Interface,
    InterfaceStatus,
    Link,
    LinkStatus,
    LinkType,
    Node,
    NodeStatus,
    entity_id,
)

ANSWERS_S: Final = 3.0
DISABLED_S: Final = 4 * 3600.0  # after so long a hop is in use again, unless it is disabled anew
BY_CONTROLLER: Final = "qkdl_enable of ETSI GS QKD 015"


class EngineNode:
    """Satisfies api.etsi015.NodeSource. `gauges` reads the site; it runs inside the engine."""

    def __init__(self, engine: Engine, gauges: Callable[[Kme], Gauges], upkeep: Upkeep | None = None) -> None:
        self._engine = engine
        self._gauges = gauges
        self._upkeep = upkeep

    async def node(self) -> Node:
        return await self._engine.call(self._node)

    def _node(self, kme: Kme) -> Node:
        if self._upkeep is None:
            return node_of(kme, self._gauges(kme))
        closed = frozenset(window.neighbour for window in self._upkeep.windows() if window.draining)
        return node_of(kme, self._gauges(kme), relayed=self._upkeep.relayed_links(), closed=closed, has_relay=True)

    async def enable(self, link: UUID, *, enabled: bool, actor: str) -> None:
        """A hop for relays; while it is disabled a window of maintenance stands for that, with what that needs."""
        if self._upkeep is None:
            raise BadRequest("this site relays nothing, so no hop can be taken from relays")
        neighbour = await self._engine.call(lambda kme: _neighbour(kme, link))
        upkeep = self._upkeep
        found = await self._engine.call(lambda kme: upkeep.of_hop(neighbour))
        if found is not None and found.reason != BY_CONTROLLER:
            if enabled or not found.window.draining:
                raise IllegalTransition("an operator has planned maintenance of this hop, and ends it")
            return
        if enabled:
            if found is not None:
                gone = found.window.window_id
                await self._engine.call(lambda kme: upkeep.end(kme.site, gone, actor=actor, reason=BY_CONTROLLER))
            return
        if found is None:
            window_id = await self._engine.call(lambda kme: _planned(kme.site, upkeep, neighbour, actor))
            await asyncio.sleep(ANSWERS_S)  # sites on the other side of the network say what they need
        elif found.window.draining:
            return
        else:
            window_id = found.window.window_id
        begin = partial(upkeep.begin, window_id=window_id, actor=actor, reason=BY_CONTROLLER, short=False)
        await self._engine.call(lambda kme: begin(kme.site))


def _planned(site: Site, upkeep: Upkeep, neighbour: str, actor: str) -> str:
    now_s = site.clock.now_s()
    lasts_s = min(DISABLED_S, site.limits.block_ttl_s)
    return upkeep.plan(
        site, neighbour=neighbour, from_s=now_s, until_s=now_s + lasts_s, actor=actor, reason=BY_CONTROLLER
    )


def _neighbour(kme: Kme, link_id: UUID) -> str:
    """The site at the other end of a hop. Raises UnknownKey."""
    for link in kme.site.links:
        if entity_id("link", link.name) == link_id:
            return link.peer
    raise UnknownKey("no such link")


def node_of(
    kme: Kme,
    gauges: Gauges,
    *,
    relayed: Collection[str] = (),
    closed: Collection[str] = (),
    has_relay: bool = False,
) -> Node:
    """The picture of now. Modules are numbered in the order of the links in the configuration.

    relayed: links without a module, over relays; closed: neighbours whose hop relays may not use ("": the whole site).
    """
    site = kme.site
    modules = [gauge for gauge in gauges.links if gauge.link not in relayed]
    numbers = {gauge.link: number for number, gauge in enumerate(modules)}
    applications = tuple(_pair(site, *pair) for pair in sorted(site.policy.rules) if _is_between_sites(site, *pair))
    if isinstance(kme, StreamingKme):
        applications += tuple(_stream(site, stream) for stream in kme.streams.known() if stream.is_open)
    return Node(
        node_id=_node_id(site.kme_id),
        status=NodeStatus.OPERATING,
        version=release(),
        location=site.name,
        has_relay=has_relay,
        interfaces=tuple(_interface(number, gauge) for number, gauge in enumerate(modules)),
        links=tuple(
            _link(site, numbers.get(gauge.link), gauge, applications, is_open=not {gauge.peer, ""} & {*closed})
            for gauge in gauges.links
        ),
        applications=applications,
    )


def _node_id(kme_id: str) -> UUID:
    return entity_id("kme", kme_id)


def _urn(sae: str) -> str:
    return Identity("sae", sae).urn


def _interface(number: int, gauge: LinkGauge) -> Interface:
    status = InterfaceStatus.DISABLED if gauge.state == "down" else InterfaceStatus.ENABLED
    return Interface(number=number, status=status, model="simulated" if gauge.simulated else "")


def _link(
    site: Site, number: int | None, gauge: LinkGauge, applications: tuple[Application, ...], *, is_open: bool
) -> Link:
    """number: of its module; None: it goes over relays."""
    link_id = entity_id("link", gauge.link)
    served = [app for app in applications if link_id in app.links]
    return Link(
        link_id=link_id,
        status=_status(gauge),
        remote_node=_node_id(site.peer_kme_ids[gauge.peer]),
        type=LinkType.VIRT if number is None else LinkType.PHYS,
        local_interface=number,
        enabled=is_open or number is None,
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
