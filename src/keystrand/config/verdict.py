"""Verdicts of a policy without a running site: what a request would meet, and what deserves a second look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from keystrand.config.schema import SiteConfig
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy, Quota, Rule, Sae, Tenant
from keystrand.core.policy_change import spelled
from keystrand.core.protection import Protection
from keystrand.kme.ask import Explanation, explain_ask

SOON_S = 14 * 86_400.0  # a waiver that ends within a fortnight deserves a word


@dataclass(frozen=True, slots=True)
class Moment:
    """A clock that stands still: a verdict is about one instant (Unix seconds)."""

    at_s: float

    def now_s(self) -> float:
        return self.at_s

    def monotonic_s(self) -> float:
        return self.at_s


@dataclass(frozen=True, slots=True)
class Desk:
    """What a running KME would know of its site, taken from the file."""

    name: str
    policy: Policy
    limits: Limits
    peer_kme_ids: Mapping[str, str]
    clock: Moment


def desk_of(config: SiteConfig, now_s: float) -> Desk:
    peers = {name: peer.kme_id for name, peer in config.peers.items()}
    return Desk(config.site.name, config.rules(), config.limits, peers, Moment(now_s))


def verdict(
    config: SiteConfig, initiator: str, responder: str, *, number: int | None, size_bits: int | None, now_s: float
) -> Explanation:
    """What the KME of this file would say at `now_s` (Unix seconds), as far as policy and limits decide."""
    return explain_ask(desk_of(config, now_s), initiator, responder, number, size_bits)


def standing(policy: Policy, rule: Rule) -> list[tuple[str, str]]:
    """What else counts for a pair while the site runs: quotas, what is reserved, when a key is due."""
    facts = [
        ("quota of the pair", _quota(rule.quota)),
        (f"quota of SAE {rule.initiator}", _quota(policy.saes.get(rule.initiator, Sae()).quota)),
        (f"quota of tenant {rule.tenant}", _quota(policy.tenants.get(rule.tenant, Tenant()).quota)),
        ("reserved", f"{rule.floor_bps:g} bit/s for the pair" if rule.floor_bps else ""),
        ("weight", f"{rule.weight:g}" if rule.weight != 1 else ""),
        ("cryptoperiod", _cryptoperiod(rule)),
    ]
    return [(name, words) for name, words in facts if words]


def _quota(quota: Quota) -> str:
    return spelled(quota) if quota else ""


def _cryptoperiod(rule: Rule) -> str:
    bounds = (
        (rule.cryptoperiod_s, "s"),
        (rule.cryptoperiod_uses, "uses"),
        (rule.cryptoperiod_bytes, "bytes"),
    )
    return ", ".join(f"{value:g} {unit}" for value, unit in bounds if value)


def cautions(policy: Policy, now_s: float) -> Iterator[str]:
    """What is allowed and still deserves a second look, with the place of each rule."""
    for rule in policy.rules.values():
        at = f"{rule.source or ' -> '.join(rule.pair)}: {rule.initiator} -> {rule.responder}"
        if rule.waiver is not None:
            ends = datetime.fromtimestamp(rule.waiver.expires_s, UTC).isoformat()
            soon = ", soon" if rule.waiver.expires_s - now_s < SOON_S else ""
            yield f"{at}: waived down to {rule.waiver.protection.label}; ends {ends}{soon}"
        if rule.fallback is not None:
            yield f"{at}: fails open: {spelled(rule.fallback)}"
        if rule.cross_tenant and len({policy.saes.get(sae, Sae()).tenant for sae in rule.pair}) > 1:
            yield f"{at}: joins two tenants"
        if not any((rule.quota, policy.saes.get(rule.initiator, Sae()).quota)) and rule.require >= Protection.QKD:
            yield f"{at}: no quota; it may draw the link empty, but for what others reserve"
