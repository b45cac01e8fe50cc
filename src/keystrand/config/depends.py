"""What hangs on what at a site: links feed peers, and tunnels, gateways and pairs of SAEs draw keys towards peers.

A hop that fails takes with it every relayed link whose routes use it, so those are asked as well. Whoever may do with less than
quantum keys loses protection, not service, where a link fails; whoever may not stops once its pool is empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import msgspec

from keystrand.config.relay import PREFIX
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import BadRequest
from keystrand.core.policy import Rule, Sae
from keystrand.relay.routes import Route


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """A link that brings this site keys it shares with `peer`. routes: of a relayed link, from end to end, ends included."""

    link: str
    peer: str
    relayed: bool
    routes: tuple[Route, ...]

    @property
    def relays(self) -> tuple[str, ...]:
        """The sites between."""
        return tuple(dict.fromkeys(site for route in self.routes for site in route[1:-1]))

    def uses(self, one: str, other: str) -> bool:
        """Whether one of its routes goes over this hop."""
        return any({one, other} == {*hop} for route in self.routes for hop in pairwise(route))


class Dependent(msgspec.Struct, frozen=True, kw_only=True):
    """Who draws keys towards `peer`. service: its SAE, with tenant and tags. need: what its keys must be.

    without: what it does once no such key comes any more: fail-closed, or fallback:PROTECTION.
    """

    kind: Literal["tunnel", "gateway", "pair"]
    name: str
    peer: str
    service: str
    need: str
    without: str


class Dependence(msgspec.Struct, frozen=True, kw_only=True):
    """The whole map of one site."""

    site: str
    feeds: tuple[Feed, ...]
    dependents: tuple[Dependent, ...]

    def over(self, name: str) -> tuple[Feed, ...]:
        """The feeds that a link, a peer or a relay of this name carries. Raises BadRequest where there is none."""
        hop = next((feed for feed in self.feeds if feed.link == name and not feed.relayed), None)
        found = tuple(
            feed
            for feed in self.feeds
            if name in (feed.link, feed.peer, *feed.relays) or (hop is not None and feed.uses(self.site, hop.peer))
        )
        if not found:
            known = sorted({word for feed in self.feeds for word in (feed.link, feed.peer, *feed.relays)})
            raise BadRequest(f"nothing here depends on {name}", hint=f"one of {', '.join(known)}")
        return found

    def drawing(self, feeds: Iterable[Feed]) -> tuple[Dependent, ...]:
        """Who draws what these feeds bring."""
        peers = {feed.peer for feed in feeds}
        return tuple(one for one in self.dependents if one.peer in peers)

    def others(self, feed: Feed) -> tuple[str, ...]:
        """Links that feed the same peer, so that its users live on when this one fails."""
        return tuple(one.link for one in self.feeds if one.peer == feed.peer and one.link != feed.link)


def dependence(config: SiteConfig) -> Dependence:
    """The map as the configuration has it; relayed links go over the routes that they take while every hop is up."""
    site = config.site.name
    feeds = [
        Feed(link=name, peer=link.peer, relayed=False, routes=((site, link.peer),))
        for name, link in config.links.items()
    ]
    if config.network is not None:
        atlas = config.network.atlas()
        for name, peer in config.relayed_links.items():
            routes = tuple(atlas.static_routes(atlas.links[name]))
            feeds.append(Feed(link=name, peer=peer, relayed=True, routes=routes))
    return Dependence(
        site=site, feeds=tuple(feeds), dependents=(*_tunnels(config), *_gateways(config), *_pairs(config))
    )


def _tunnels(config: SiteConfig) -> Iterable[Dependent]:
    for name, entry in config.tunnel.items():
        yield Dependent(
            kind="tunnel",
            name=name,
            peer=entry.peer,
            service=_service(config, entry.sae),
            need=entry.require.label,
            without=entry.on_exhaustion,
        )


def _gateways(config: SiteConfig) -> Iterable[Dependent]:
    if config.gateway is None:
        return
    sae = config.gateway.sae
    for peer, entry in config.gateway.peers.items():
        rule = config.rules().rules.get((sae, entry.sae))
        if rule is not None:
            yield _drawer(config, "gateway", f"to {peer}", peer, rule)


def _pairs(config: SiteConfig) -> Iterable[Dependent]:
    """Local SAEs that policy lets draw keys; those whose initiator stands elsewhere depend on that site's map."""
    site = config.site.name
    for (initiator, responder), rule in sorted(config.rules().rules.items()):
        if initiator.startswith(PREFIX):
            continue  # pads of a relay: they are how a hop carries, not who uses it
        here, there = config.saes.get(initiator), config.saes.get(responder)
        if here is not None and there is not None and here.site == site != there.site:
            yield _drawer(config, "pair", f"{initiator} > {responder}", there.site, rule)


def _drawer(config: SiteConfig, kind: Literal["gateway", "pair"], name: str, peer: str, rule: Rule) -> Dependent:
    return Dependent(
        kind=kind,
        name=name,
        peer=peer,
        service=_service(config, rule.initiator),
        need=rule.require.label,
        without="fail-closed" if rule.fallback is None else f"fallback:{rule.fallback.protection.label}",
    )


def _service(config: SiteConfig, sae: str) -> str:
    facts = config.saes[sae].sae() if sae in config.saes else Sae()
    return " ".join((sae, *(f"{tag}={value}" for tag, value in (("tenant", facts.tenant), *facts.tags))))
