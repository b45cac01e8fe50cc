"""Who may draw what: deny by default, one rule per ordered pair of SAEs; a lower level needs a waiver that ends.

A `Policy` is immutable and has a version: the serial that its author states and a digest of all that decides. Tenants and
tags are settled when it is built: a pair that they forbid is listed in `refused`, with the reason, and never in `rules`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from keystrand.core.errors import NotPermitted
from keystrand.core.labels import LABELS
from keystrand.core.protection import Protection
from keystrand.core.window import Window

DEFAULT_TENANT: Final = "default"
TAG_NAMES: Final = ("asset", "data_class", "geography")  # beside the tenant, which every SAE and key has
SELECTORS: Final = ("tenant", *TAG_NAMES)  # `tenant=acme` in a rule stands for all SAEs of that tenant
PAIRS_MAX: Final = 100_000  # that rules with selectors may stand for, all together

Pair = tuple[str, str]
Tags = tuple[tuple[str, str], ...]  # names in the order of TAG_NAMES


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
class Fallback:
    """What a rule that fails open serves when the required level cannot be had: so many keys, for so long, then a pause.

    keys: at most so many under `protection` in one episode; for_s: an episode ends so long after its first key; rest_s:
    the next may begin so long after the end of the last. Who approved it and why is recorded with every use.
    """

    protection: Protection
    keys: int
    for_s: float
    rest_s: float
    approved_by: tuple[str, ...]
    reason: str

    def __post_init__(self) -> None:
        if not self.approved_by or not self.reason.strip():
            raise ValueError("a fallback needs approved_by and reason")
        if self.keys < 1 or self.for_s <= 0 or self.rest_s < 0:
            raise ValueError("a fallback needs keys and for_s above 0, and rest_s of at least 0")
        if self.protection not in (Protection.PQC, Protection.QKD):
            raise ValueError(f"fallback protection {self.protection.label} is neither pqc nor qkd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A sustained rate and how much may be drawn at once after a pause, in key bits and in keys. All 0: no quota."""

    bps: float = 0.0
    burst_bits: int = 0
    keys_per_s: float = 0.0
    burst_keys: int = 0

    def __post_init__(self) -> None:
        for rate, burst, names in (
            (self.bps, self.burst_bits, ("quota_bps", "quota_burst_bits")),
            (self.keys_per_s, self.burst_keys, ("quota_keys_per_s", "quota_burst_keys")),
        ):
            if rate < 0 or burst < 0 or (rate > 0) != (burst > 0):
                raise ValueError(f"state both {names[0]} and {names[1]}, or neither")

    def __bool__(self) -> bool:
        return self.bps > 0 or self.keys_per_s > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sae:
    """What a policy knows of an application: whose it is, what it is tagged with, what it may draw over all pairs."""

    tenant: str = DEFAULT_TENANT
    tags: Tags = ()
    quota: Quota = Quota()

    def value(self, name: str) -> str:
        """Of one selector; empty where the SAE has none."""
        return self.tenant if name == "tenant" else dict(self.tags).get(name, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """What all SAEs of a tenant have together: a quota, and bits per second that stay reserved towards each peer."""

    quota: Quota = Quota()
    floor_bps: float = 0.0
    floor_burst_bits: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TagGrant:
    """What the tag `name` = `value` on a key permits: SAEs with one of `holders` as their value, at least `require`."""

    name: str
    value: str
    holders: frozenset[str]
    require: Protection = Protection.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagging:
    """Tags that every key must have, and what single values permit. Without a grant: `asset` goes to any SAE, `data_class`
    and `geography` only to SAEs with the same value.
    """

    mandatory: tuple[str, ...] = ()
    grants: tuple[TagGrant, ...] = ()

    def grant(self, name: str, value: str) -> TagGrant | None:
        return next((g for g in self.grants if (g.name, g.value) == (name, value)), None)

    def permits(self, name: str, value: str, sae: Sae) -> bool:
        """Whether `sae` may hold a key that has this tag."""
        if (grant := self.grant(name, value)) is not None:
            return sae.value(name) in grant.holders
        return name == "asset" or sae.value(name) == value


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one ordered pair (initiator, responder) may do.

    sizes_bits: key sizes allowed, none listed: all within the limits. quota_bps, quota_burst_bits, quota_keys_per_s,
    quota_burst_keys: see `Quota`. floor_bps: bits per second that others cannot draw, up to floor_burst_bits (0: a minute's
    worth); weight: share of what no floor reserves. cryptoperiod_s, _uses, _bytes: when a key is due for rotation, 0: never
    by this measure. fallback: None fails closed. tenant and tags are those of the keys; `Policy.of` completes them.
    source: where the rule stands, file:line; no part of what it says.
    """

    initiator: str
    responder: str
    require: Protection = Protection.HYBRID
    quota_bps: float = 0.0
    quota_burst_bits: int = 0
    waiver: Waiver | None = None
    fallback: Fallback | None = None
    sizes_bits: tuple[int, ...] = ()
    quota_keys_per_s: float = 0.0
    quota_burst_keys: int = 0
    floor_bps: float = 0.0
    floor_burst_bits: int = 0
    weight: float = 1.0
    cryptoperiod_s: float = 0.0
    cryptoperiod_uses: int = 0
    cryptoperiod_bytes: int = 0
    cross_tenant: bool = False
    tenant: str = DEFAULT_TENANT
    tags: Tags = ()
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        pair = f"{self.initiator} -> {self.responder}"
        if self.initiator == self.responder and not self.is_general:
            raise ValueError(f"{self.initiator}: initiator and responder are the same SAE")
        try:
            _ = self.quota
        except ValueError as problem:
            raise ValueError(f"{pair}: {problem}") from None
        if self.floor_bps < 0 or self.floor_burst_bits < 0 or (self.floor_burst_bits and not self.floor_bps):
            raise ValueError(f"{pair}: floor_burst_bits needs a floor_bps")
        if self.weight <= 0:
            raise ValueError(f"{pair}: weight must be above 0")
        if min(self.cryptoperiod_s, self.cryptoperiod_uses, self.cryptoperiod_bytes) < 0:
            raise ValueError(f"{pair}: a cryptoperiod cannot be negative")
        if any(size <= 0 or size % 8 for size in self.sizes_bits):
            raise ValueError(f"{pair}: sizes_bits must be multiples of 8")
        if self.fallback is not None and self.fallback.protection >= self.require:
            raise ValueError(f"{pair}: the fallback is no weaker than require, so it falls back to nothing")

    @property
    def pair(self) -> Pair:
        return self.initiator, self.responder

    @property
    def is_general(self) -> bool:
        """Whether a selector stands for several SAEs; no SAE's name has an equals sign."""
        return "=" in self.initiator or "=" in self.responder

    @property
    def quota(self) -> Quota:
        return Quota(
            bps=self.quota_bps,
            burst_bits=self.quota_burst_bits,
            keys_per_s=self.quota_keys_per_s,
            burst_keys=self.quota_burst_keys,
        )

    def require_at(self, now_s: float) -> Protection:
        """The level that keys should have now. A `require` below hybrid that a waiver approved ends with the waiver."""
        if self.waiver is None or now_s < self.waiver.expires_s:
            return self.require
        return Protection.HYBRID

    def floor_at(self, now_s: float) -> Protection:
        """The lowest level acceptable now: what is required, or what a waiver allows until it ends."""
        if self.waiver is not None and now_s < self.waiver.expires_s:
            return min(self.require, self.waiver.protection)
        return self.require_at(now_s)

    def lowest_at(self, now_s: float) -> Protection:
        """The lowest level that a key may have that is there already: a fallback may have made it."""
        floor = self.floor_at(now_s)
        return floor if self.fallback is None else min(floor, self.fallback.protection)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A pair that is listed and refused all the same, because of tenants or tags."""

    reason: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules of a site, and the site that serves each SAE. What is not listed is refused."""

    rules: Mapping[Pair, Rule]
    site_of: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[Pair, Refusal] = field(default_factory=dict)
    saes: Mapping[str, Sae] = field(default_factory=dict)
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    tagging: Tagging = Tagging()
    windows: tuple[Window, ...] = ()
    serial: int = 1
    digest: str = ""

    @classmethod
    def of(
        cls,
        rules: tuple[Rule, ...],
        site_of: Mapping[str, str],
        *,
        saes: Mapping[str, Sae] | None = None,
        tenants: Mapping[str, Tenant] | None = None,
        tagging: Tagging = Tagging(),
        windows: tuple[Window, ...] = (),
        serial: int = 1,
    ) -> Policy:
        """Build from a list. Raises ValueError for a pair that is listed twice or an SAE that no site serves."""
        known = {name: Sae() for name in site_of} | dict(saes or {})
        table: dict[Pair, Rule] = {}
        refused: dict[Pair, Refusal] = {}
        for pair, rule in _expanded(rules, site_of, known).items():
            whole = _completed(rule, known[pair[0]])
            reason = _forbidden(whole, known, tagging)
            if reason:
                refused[pair] = Refusal(reason, whole)
            else:
                table[pair] = whole
        policy = cls(table, dict(site_of), refused, known, dict(tenants or {}), tagging, windows, serial)
        return replace(policy, digest=_digest(policy))

    @property
    def version(self) -> str:
        """Serial and the start of the digest, for people and records."""
        return f"{self.serial}-{self.digest[:16]}"

    def rule_for(self, initiator: str, responder: str) -> Rule:
        """The rule of this pair. Raises NotPermitted when there is none."""
        try:
            return self.rules[initiator, responder]
        except KeyError:
            raise self._refusal(initiator, responder) from None

    def _refusal(self, initiator: str, responder: str) -> NotPermitted:
        listed = self.refused.get((initiator, responder))
        if listed is not None:
            return NotPermitted(listed.reason, hint=f"see {listed.rule.source or 'the policy'}")
        return NotPermitted(
            f"no rule allows {initiator} to draw keys towards {responder}",
            hint="add a [[policy]] entry to site.toml",
        )

    def tags_of(self, rules: tuple[Rule, ...]) -> Tags:
        """The tags of one key that all these rules serve. Raises NotPermitted where they contradict each other."""
        if len(rules) == 1:
            return rules[0].tags
        merged: dict[str, str] = {}
        for rule in rules:
            for name, value in rule.tags:
                if merged.setdefault(name, value) != value:
                    raise NotPermitted(f"one key cannot have {name} {merged[name]} and {value}")
        for name, value in merged.items():
            for rule in rules:
                if not self.tagging.permits(name, value, self.saes.get(rule.responder, Sae())):
                    raise NotPermitted(f"{rule.responder} may not hold keys with {name} {value}")
        return _ordered(merged)

    def may_change_at(self, now_s: float) -> bool:
        """Whether a change window is open; always, where none is stated."""
        return not self.windows or any(window.is_open(now_s) for window in self.windows)


def selected(selector: str, saes: Mapping[str, Sae]) -> list[str]:
    """The SAEs that `tenant=acme` or a plain name stands for. Raises ValueError for an unknown kind of selector."""
    name, equals, value = selector.partition("=")
    if not equals:
        return [selector]
    if name not in SELECTORS or not value:
        raise ValueError(f"{selector!r}: a selector is {', '.join(SELECTORS)}, an equals sign and a value")
    return [sae for sae, facts in saes.items() if facts.value(name) == value]


def _expanded(rules: Iterable[Rule], site_of: Mapping[str, str], saes: Mapping[str, Sae]) -> dict[Pair, Rule]:
    """One rule per pair. A pair listed by its names goes before selectors; two selectors for one pair are refused."""
    table: dict[Pair, Rule] = {}
    listed = list(rules)
    for rule in listed:
        if rule.is_general:
            continue
        if rule.pair in table:
            raise ValueError(f"{rule.initiator} -> {rule.responder} is listed twice")
        for sae in rule.pair:
            if sae not in site_of:
                raise ValueError(f"SAE {sae} is not assigned to a site")
        table[rule.pair] = rule
    general: dict[Pair, Rule] = {}
    for rule in listed:
        if rule.is_general:
            _spread(rule, site_of, saes, table, general)
    return general | table


def _spread(
    rule: Rule,
    site_of: Mapping[str, str],
    saes: Mapping[str, Sae],
    listed: Mapping[Pair, Rule],
    general: dict[Pair, Rule],
) -> None:
    """One rule for each pair between two sites that the selectors of `rule` name and no entry lists by its names."""
    for initiator in selected(rule.initiator, saes):
        for responder in selected(rule.responder, saes):
            pair = (initiator, responder)
            if site_of.get(initiator) == site_of.get(responder) or pair in listed:
                continue
            if pair in general:
                places = f"{general[pair].source or 'one'} and {rule.source or 'another'}"
                raise ValueError(f"{initiator} -> {responder} is named by two entries with selectors: {places}")
            if len(general) >= PAIRS_MAX:
                raise ValueError(f"selectors stand for more than {PAIRS_MAX} pairs; narrow them")
            general[pair] = replace(rule, initiator=initiator, responder=responder)


def _completed(rule: Rule, initiator: Sae) -> Rule:
    """Keys belong to the tenant of their initiator and have its tags, where the rule states no others."""
    tags = _ordered(dict(initiator.tags) | dict(rule.tags))
    if (rule.tenant, rule.tags) == (initiator.tenant, tags):
        return rule
    return replace(rule, tenant=initiator.tenant, tags=tags)


def _ordered(tags: Mapping[str, str]) -> Tags:
    return tuple((name, tags[name]) for name in TAG_NAMES if tags.get(name))


def _forbidden(rule: Rule, saes: Mapping[str, Sae], tagging: Tagging) -> str:
    """Why tenants or tags forbid this rule; empty when they do not."""
    ends = {sae: saes.get(sae, Sae()) for sae in rule.pair}
    first, last = (end.tenant for end in ends.values())
    if first != last and not rule.cross_tenant:
        return f"{rule.initiator} is of tenant {first} and {rule.responder} of {last}: state cross_tenant to join them"
    have = dict(rule.tags)
    for name in tagging.mandatory:
        if name not in have:
            return f"keys of {rule.initiator} -> {rule.responder} have no {name}, which is mandatory"
    for name, value in rule.tags:
        for sae, facts in ends.items():
            if not tagging.permits(name, value, facts):
                return f"{sae} ({name} {facts.value(name) or 'not stated'}) may not hold keys with {name} {value}"
        grant = tagging.grant(name, value)
        if grant is not None and _weakest(rule) < grant.require:
            return f"keys with {name} {value} need {grant.require.label}, the rule allows {_weakest(rule).label}"
    return ""


def _weakest(rule: Rule) -> Protection:
    """The lowest level that this rule may ever allow."""
    levels = [rule.require]
    if rule.waiver is not None:
        levels.append(rule.waiver.protection)
    if rule.fallback is not None:
        levels.append(rule.fallback.protection)
    return min(levels)


def _digest(policy: Policy) -> str:
    """SHA-256 over all that decides, in one order; where a rule stands in its file does not count."""
    refused = {pair: refusal.rule for pair, refusal in policy.refused.items()}
    content = [
        sorted(_plain(rule) for rule in (dict(policy.rules) | refused).values()),
        sorted(policy.site_of.items()),
        sorted((name, _plain(sae)) for name, sae in policy.saes.items()),
        sorted((name, _plain(tenant)) for name, tenant in policy.tenants.items()),
        _plain(policy.tagging),
        [_plain(window) for window in policy.windows],
    ]
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(LABELS["policy/content"] + text.encode()).hexdigest()


def _plain(value: Any) -> str:
    """The fields of a dataclass as text with one spelling."""
    stated = {f.name: getattr(value, f.name) for f in fields(value) if f.compare}
    shown = {k: sorted(_plain(g) for g in v) if k == "grants" else v for k, v in stated.items()}
    return json.dumps(shown, default=_spelled, separators=(",", ":"), sort_keys=True)


def _spelled(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else _plain(value)
