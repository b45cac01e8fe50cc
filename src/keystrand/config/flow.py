"""Where keys of a site may go, as its configuration has it: the map that the audit log is held against."""

from __future__ import annotations

from collections.abc import Iterator

from keystrand.config.relay import relay_sae
from keystrand.config.schema import SiteConfig
from keystrand.core.policy import Rule
from keystrand.core.protection import Protection, Strand, strands_for
from keystrand.observe.flow import Flow


def key_flows(config: SiteConfig) -> list[Flow]:
    """Every flow that links, policy, other networks and key managers of this site allow; sorted. Raises ValueError."""
    flows = {Flow(kind="fills", link=link) for link in (*config.links, *config.relayed_links)}
    flows |= {Flow(kind="exports", recipient=name) for name in config.kms}
    flows |= {*_by_policy(config), *_by_networks(config)}
    return sorted(flows)


def _by_policy(config: SiteConfig) -> Iterator[Flow]:
    policy, here = config.rules(), config.site.name
    for (initiator, responder), rule in policy.rules.items():
        ends = {initiator: policy.site_of[initiator], responder: policy.site_of[responder]}
        for recipient, peer in ((initiator, ends[responder]), (responder, ends[initiator])):
            if ends[recipient] != here or peer == here:
                continue
            for level in _levels(rule):
                for link in _links(config, peer) if Strand.QKD in strands_for(level) else [""]:
                    yield Flow(
                        kind="gives",
                        link=link,
                        peer=peer,
                        initiator=initiator,
                        responder=responder,
                        recipient=recipient,
                        protection=level.label,
                    )


def _by_networks(config: SiteConfig) -> Iterator[Flow]:
    """Keys shared with SAEs of other networks, in both directions."""
    if config.interdomain is None:
        return
    for before, initiator, target, kme_id in config.interdomain.carried:
        yield Flow(
            kind="carries", peer=kme_id, initiator=initiator, responder=target, recipient=before, protection="pqc"
        )
    for kme_id, domain in config.interdomain.peers.items():
        for far, near in ((far, near) for far, ours in domain.saes.items() for near in ours if near in config.saes):
            for initiator, responder in ((near, far), (far, near)):
                yield Flow(
                    kind="gives",
                    peer=kme_id,
                    initiator=initiator,
                    responder=responder,
                    recipient=near,
                    protection=domain.protection,
                )


def _levels(rule: Rule) -> list[Protection]:
    """What keys of this rule may be worth: the required level, and what its waiver or its fallback accepts."""
    lowest = rule.waiver.protection if rule.waiver is not None else rule.require
    levels = {level for level in Protection if lowest <= level <= rule.require}
    levels |= {rule.fallback.protection} if rule.fallback is not None else set()
    return [level for level in sorted(levels) if strands_for(level) - {Strand.CLASSICAL}]


def _links(config: SiteConfig, peer: str) -> list[str]:
    direct = [name for name, link in config.links.items() if link.peer == peer]
    return direct + [name for name, end in config.relayed_links.items() if end == peer]


def consumers(config: SiteConfig) -> dict[str, str]:
    """What of this site's configuration uses the keys of an SAE; one that is not in it is an application of its own."""
    found: dict[str, list[str]] = {}
    if config.gateway is not None:
        found.setdefault(config.gateway.sae, []).append("gateway")
    for name, tunnel in config.tunnel.items():
        found.setdefault(tunnel.sae, []).append(f"tunnel {name} ({tunnel.kind})")
    if config.skip is not None:
        for sae in config.skip.encryptors:
            found.setdefault(sae, []).append("encryptor (SKIP)")
    if config.relay is not None:
        found.setdefault(relay_sae(config.site.name), []).append("relay")
    return {sae: ", ".join(uses) for sae, uses in found.items()}
