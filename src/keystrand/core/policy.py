"""Who may draw what: deny by default, one rule per ordered pair of SAEs; a lower level needs a waiver that ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keystrand.core.errors import NotPermitted
from keystrand.core.protection import Protection


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """Permission to go below the required level for a while: who approved it, why, and when it ends (Unix seconds)."""

    protection: Protection
    approved_by: tuple[str, ...]
    reason: str
    expires_s: float

    def __post_init__(self) -> None:
        if not self.approved_by or not self.reason.strip():
            raise ValueError("a waiver needs approved_by and reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one ordered pair (initiator, responder) may do.

    quota_bps: sustained key bits per second that the initiator may draw; quota_burst_bits: how much it may draw at once
    after a pause. Both 0: no quota.
    """

    initiator: str
    responder: str
    require: Protection = Protection.HYBRID
    quota_bps: float = 0.0
    quota_burst_bits: int = 0
    waiver: Waiver | None = None

    def __post_init__(self) -> None:
        if self.initiator == self.responder:
            raise ValueError(f"{self.initiator}: initiator and responder are the same SAE")
        if self.quota_bps < 0 or self.quota_burst_bits < 0 or (self.quota_bps > 0) != (self.quota_burst_bits > 0):
            pair = f"{self.initiator} -> {self.responder}"
            raise ValueError(f"{pair}: state both quota_bps and quota_burst_bits, or neither")

    def floor_at(self, now_s: float) -> Protection:
        """The lowest protection acceptable now: `require`, or what a waiver allows until it ends."""
        if self.waiver is not None and now_s < self.waiver.expires_s:
            return min(self.require, self.waiver.protection)
        return self.require


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules of a site, and the site that serves each SAE. What is not listed is refused."""

    rules: Mapping[tuple[str, str], Rule]
    site_of: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: tuple[Rule, ...], site_of: Mapping[str, str]) -> Policy:
        """Build from a list. Raises ValueError for a pair that is listed twice or an SAE that no site serves."""
        table: dict[tuple[str, str], Rule] = {}
        for rule in rules:
            pair = (rule.initiator, rule.responder)
            if pair in table:
                raise ValueError(f"{pair[0]} -> {pair[1]} is listed twice")
            for sae in pair:
                if sae not in site_of:
                    raise ValueError(f"SAE {sae} is not assigned to a site")
            table[pair] = rule
        return cls(table, dict(site_of))

    def rule_for(self, initiator: str, responder: str) -> Rule:
        """The rule of this pair. Raises NotPermitted when there is none."""
        try:
            return self.rules[initiator, responder]
        except KeyError:
            raise NotPermitted(
                f"no rule allows {initiator} to draw keys towards {responder}",
                hint="add a [[policy]] entry to site.toml",
            ) from None
