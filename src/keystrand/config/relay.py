"""`[relay]`: this site carries keys for a network of sites, and shares keys with sites that are no neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta

from keystrand.config.network import NetworkConfig
from keystrand.config.reading import Fault
from keystrand.config.section import Section
from keystrand.core.limits import Limits
from keystrand.core.policy import Rule, Sae, Tagging, Tags
from keystrand.core.protection import Protection
from keystrand.crypto.onetime import pad_bytes
from keystrand.relay.pace import Pace
from keystrand.relay.supply import Fill

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig

PREFIX: Final = "relay-"  # of the SAE that a site's relay is; no other SAE may be called so
TAG: Final = "relay"  # value of every mandatory tag on the pads


class Relay(Section, frozen=True, kw_only=True):
    """Takes part in a network of trusted nodes. Pads are drawn as SAE relay-SITE, under rules that follow from the network."""

    network: Annotated[Path, Meta(description="the network's file, the same at all its sites")]
    block_bytes: Annotated[
        int, Meta(description="bytes of one relayed block; all sites have the same", ge=32, le=1_048_576)
    ] = 32_768
    fill_bits: Annotated[
        int, Meta(description="a relayed link that begins here is filled up to so many bits", ge=1024)
    ] = 4_194_304
    fill_ahead_s: Annotated[
        float,
        Meta(description="and for so many seconds at the rate at which it is drawn, where hops can spare it", ge=0),
    ] = 600.0
    fill_most_bits: Annotated[int, Meta(description="but never above, planned maintenance included", ge=1024)] = (
        67_108_864
    )

    def fill(self) -> Fill:
        return Fill(
            floor_bits=self.fill_bits, ahead_s=self.fill_ahead_s, most_bits=max(self.fill_bits, self.fill_most_bits)
        )

    def pace(self) -> Pace:
        return Pace(block_bytes=self.block_bytes)


def relay_sae(site: str) -> str:
    """The SAE that the relay of a site is."""
    return PREFIX + site


def relayed_links(network: NetworkConfig | None, site: str) -> Mapping[str, str]:
    """The relayed links that end at this site, and the site at the other end of each."""
    links = network.links.items() if network is not None else ()
    return {name: entry.ends[entry.ends[0] == site] for name, entry in links if site in entry.ends}


def neighbours(network: NetworkConfig, site: str) -> list[str]:
    """The sites at the other ends of this site's hops."""
    return [hop.ends[hop.ends[0] == site] for hop in network.hops if site in hop.ends]


def relay_saes(network: NetworkConfig | None, site: str, tagging: Tagging) -> dict[str, tuple[str, Sae]]:
    """The relays of this site and its neighbours: the site that each stands at, and what policy knows of it."""
    if network is None:
        return {}
    facts = Sae(tags=_tags(tagging))
    return {relay_sae(name): (name, facts) for name in (site, *neighbours(network, site))}


def relay_rules(network: NetworkConfig | None, site: str, tagging: Tagging) -> tuple[Rule, ...]:
    """What lets relays draw their pads: bits of the hop's own QKD link and nothing else, in both directions."""
    if network is None:
        return ()
    pairs = [(site, other) for other in neighbours(network, site)]
    return tuple(
        Rule(
            initiator=relay_sae(one),
            responder=relay_sae(other),
            require=Protection.QKD,
            tags=_tags(tagging),
            source="the network's hops",
        )
        for pair in pairs
        for one, other in (pair, pair[::-1])
    )


def _tags(tagging: Tagging) -> Tags:
    return tuple((name, TAG) for name in tagging.mandatory if name != "tenant")


def check_relay(config: SiteConfig) -> Iterator[Fault]:
    """Whether the site can be what the network says of it."""
    for name in config.saes:
        if name.startswith(PREFIX):
            yield Fault(("saes", name), f"names that begin with {PREFIX} are those of relays", "choose another name")
    relay, network, site = config.relay, config.network, config.site.name
    if relay is None or network is None:
        return
    where = ("relay", "network")
    if config.site.store is not None:
        hint = "keep the site that the network reaches in a file of its own, without [site] store"
        yield Fault(("relay",), "a relay runs in one process; replicas on one database cannot share it yet", hint)
    if site not in network.sites:
        yield Fault(where, f"{relay.network}: {site} is not a site of network {network.name}", f"add [sites.{site}]")
    for name, entry in network.sites.items():
        if not entry.audit_key:
            yield Fault(
                where, f"{relay.network}: [sites.{name}] has no audit_key", "write what stands in its audit.pub"
            )
    linked = {link.peer for link in config.links.values()}
    for other in neighbours(network, site):
        if other not in linked:
            hint = "join them with `keystrand link add`, or take the hop out of the network"
            yield Fault(where, f"says that a QKD link leads to {other}, and no [links] entry here does", hint)
    for name, peer in relayed_links(network, site).items():
        if peer not in config.peers:
            yield Fault(where, f"link {name} ends at {peer}, which is not a peer", f"add [peers.{peer}]")
        if name in config.links:
            yield Fault(("links", name), "is the name of a relayed link too", "choose another name")
    yield from _pads(config.limits, relay)


def _pads(limits: Limits, relay: Relay) -> Iterator[Fault]:
    most = limits.keys_per_request_max * limits.key_size_bits_max // 8
    if pad_bytes(relay.block_bytes) > most:
        hint = f"at most {pad_bytes(0)} bytes less than {most}; or raise limits.keys_per_request_max"
        yield Fault(("relay", "block_bytes"), f"{relay.block_bytes} bytes need more pad than one request gives", hint)
