"""A site in words: what it serves, whom it trusts, what it refuses, and what deserves a second look."""

from __future__ import annotations

from collections.abc import Iterator

from keystrand.config.policy import PolicyEntry
from keystrand.config.schema import SiteConfig
from keystrand.core.protection import Protection


def explain(config: SiteConfig) -> str:
    """Lines for people, ending in a newline."""
    parts = (_site(config), _peers(config), _policy(config), _gateway(config), _cautions(config))
    return "\n".join(line for part in parts for line in part) + "\n"


def _site(config: SiteConfig) -> Iterator[str]:
    yield f"site {config.site.name}, KME {config.site.kme_id}, state in {config.site.state_dir}"
    yield f"  keys (ETSI GS QKD 014) on {config.etsi014.listen}, TLS {config.tls.minimum} or later, {_group(config)}"
    yield f"  peers on {config.peer.listen}, QKD modules on {config.device.listen}"
    yield f"  status page on {config.status.listen}" if config.status else "  no status page"


def _group(config: SiteConfig) -> str:
    return "ML-KEM key agreement required" if config.tls.require_pqc_group else "ML-KEM key agreement NOT required"


def _peers(config: SiteConfig) -> Iterator[str]:
    for name, peer in config.peers.items():
        links = [link for link, facts in config.links.items() if facts.peer == name]
        links += [f"{link} (relayed)" for link, end in config.relayed_links.items() if end == name]
        yield f"peer {name}: KME {peer.kme_id} at {peer.address}, links: {', '.join(links) or 'none'}"


def _policy(config: SiteConfig) -> Iterator[str]:
    if not config.policy:
        yield "policy: nobody may draw keys"
    for entry in config.policy:
        yield f"policy: {entry.initiator} may draw keys shared with {entry.responder}: {terms(entry)}"


def terms(entry: PolicyEntry) -> str:
    """What a rule asks of its keys, and how far it gives way."""
    quota = f", {entry.quota_bps:g} bit/s, bursts of {entry.quota_burst_bits} bit" if entry.quota_bps else ", no quota"
    if entry.fallback is not None:
        limits = f"{entry.fallback.keys} keys within {entry.fallback.for_s:g} s"
        quota += f", FAILS OPEN to {entry.fallback.protection.label} for {limits}"
    if entry.waiver is None:
        return f"{entry.require.label}{quota}"
    waiver, who = entry.waiver, ", ".join(entry.waiver.approved_by)
    told = f"until {waiver.expires.isoformat()} by {who} ({waiver.reason})"
    return f"{entry.require.label}, WAIVED down to {waiver.protection.label} {told}{quota}"


def _gateway(config: SiteConfig) -> Iterator[str]:
    if (gateway := config.gateway) is not None:
        reaches = ", ".join(gateway.peers) or "no other gateway yet"
        rotation = f"a fresh key every {gateway.rotate_bytes} bytes or {gateway.rotate_s:g} s"
        yield f"gateway {gateway.sae} on {gateway.listen}: {rotation}; reaches {reaches}"


def _cautions(config: SiteConfig) -> Iterator[str]:
    exposed = not config.etsi014.listen.is_loopback
    if exposed and not config.tls.require_pqc_group:
        yield "caution: keys leave over TLS that may be recorded today and read later (require_pqc_group = false)"
    if config.kmip is not None and not config.kmip.require_pqc_group:
        yield "caution: what KMIP clients read may be recorded today and read later ([kmip] require_pqc_group = false)"
    if config.interdomain is not None:
        yield "caution: keys shared with other networks are known to every KME on their way and worth pqc, whatever rules say"
        for before, one, other, kme_id in config.interdomain.carried:
            if one < other:
                ends = f"{one} ({before}) and {other} ({kme_id})"
                yield f"caution: this KME carries keys of {ends} on, and has them in clear meanwhile"
    if config.tls.revoked is None:
        yield "caution: no revocation list: a lost certificate stays valid until it expires"
    if config.peers and config.peer_trust == config.tls.trust:
        yield "caution: whoever vouches for peers also vouches for SAEs here; name another trust in [peer]"
    if config.site.root_key_file and config.site.root_key_file.is_relative_to(config.site.state_dir):
        yield "caution: the passphrase lies beside the store that it seals; a copy of the directory has both"
    if config.site.root_key == "pkcs11" and config.site.root_key_file:
        yield "caution: root_key_file is not used under an HSM; once the store has moved, remove it"
    if any(e.waiver and e.waiver.protection < Protection.PQC for e in config.policy):
        yield "caution: a waiver allows keys that are not quantum-safe"
