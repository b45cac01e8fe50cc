"""Quotas: token buckets of key bits and of keys, per ordered pair, per SAE and per tenant: no one draws a link empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from keystrand.core.errors import QuotaExceeded
from keystrand.core.policy import Policy, Quota, Rule, Sae, Tenant
from keystrand.core.pool import Drawn
from keystrand.kme.ask import Ask
from keystrand.kme.draws import Draws
from keystrand.kme.site import Site

BITS: Final = "bits"
KEYS: Final = "keys"
Scope = tuple[str, str, str]  # what is counted, for whom (words), in which unit


@dataclass(slots=True)
class Bucket:
    """Fills at `rate_per_s` up to `burst`. Times are monotonic seconds."""

    scope: Scope
    rate_per_s: float
    burst: int
    left: float
    at_s: float

    def fill(self, now_s: float) -> float:
        self.left = min(self.burst, self.left + (now_s - self.at_s) * self.rate_per_s)
        self.at_s = now_s
        return self.left


class Quotas:
    """The buckets of a site; in memory, so a restart refills them. A changed policy keeps what is left in each."""

    def __init__(self, site: Site, draws: Draws | None = None) -> None:
        self._site = site
        self._draws = draws or Draws(site)
        self._draws.hear.append(self._hear)
        self._policy = site.policy
        self._buckets: dict[Scope, Bucket] = {}
        self._of_rule: dict[tuple[str, str], tuple[Bucket, ...]] = {}

    def check(self, ask: Ask) -> None:
        """Raises QuotaExceeded when this is more than may be drawn now. Takes nothing."""
        buckets = self._buckets_of(ask)
        if not buckets:
            return
        self._draws.follow()
        now_s = self._site.clock.monotonic_s()
        for bucket in buckets:
            wanted = ask.bits if bucket.scope[2] is BITS else ask.number
            if bucket.fill(now_s) < wanted:
                smallest = self._site.limits.key_size_bits_min if bucket.scope[2] is BITS else 1
                raise _exceeded(bucket, wanted, smallest)

    def spend(self, ask: Ask) -> None:
        """Take what `check` allowed."""
        buckets = self._buckets_of(ask)
        for bucket in buckets:
            bucket.left -= ask.bits if bucket.scope[2] is BITS else ask.number
        if buckets:
            self._draws.note(ask, Drawn(ask.bits, ask.number))

    def _hear(self, initiator: str, responders: tuple[str, ...], peer: str, more: Drawn) -> None:
        """Another replica served these."""
        rules = self._site.policy.rules
        found = (rules.get((initiator, responder)) for responder in responders)
        scopes = {bucket.scope: bucket for rule in found if rule is not None for bucket in self._buckets_for(rule)}
        for bucket in scopes.values():
            bucket.fill(self._site.clock.monotonic_s())
            bucket.left -= more.bits if bucket.scope[2] is BITS else more.keys

    def _buckets_of(self, ask: Ask) -> tuple[Bucket, ...]:
        """Each bucket once: an SAE or a tenant pays for a key once, however many share it."""
        if len(ask.rules) == 1:
            return self._buckets_for(ask.rules[0])
        return tuple({bucket.scope: bucket for rule in ask.rules for bucket in self._buckets_for(rule)}.values())

    def _buckets_for(self, rule: Rule) -> tuple[Bucket, ...]:
        if self._site.policy is not self._policy:
            self._policy = self._site.policy
            self._of_rule.clear()
        pair = (rule.initiator, rule.responder)
        known = self._of_rule.get(pair)
        if known is None:
            known = self._of_rule[pair] = tuple(self._renewed(self._policy, rule))
        return known

    def _renewed(self, policy: Policy, rule: Rule) -> Iterator[Bucket]:
        for scope, rate_per_s, burst in _terms(policy, rule):
            now_s = self._site.clock.monotonic_s()
            bucket = self._buckets.setdefault(scope, Bucket(scope, rate_per_s, burst, burst, now_s))
            bucket.fill(now_s)
            bucket.rate_per_s, bucket.burst = rate_per_s, burst
            yield bucket


def _terms(policy: Policy, rule: Rule) -> Iterator[tuple[Scope, float, int]]:
    """The quotas that a draw under `rule` counts against."""
    holders: tuple[tuple[str, Quota], ...] = (
        (f"{rule.initiator} -> {rule.responder}", rule.quota),
        (f"SAE {rule.initiator}", policy.saes.get(rule.initiator, Sae()).quota),
        (f"tenant {rule.tenant}", policy.tenants.get(rule.tenant, Tenant()).quota),
    )
    for who, quota in holders:
        if quota.bps:
            yield ("quota_bps", who, BITS), quota.bps, quota.burst_bits
        if quota.keys_per_s:
            yield ("quota_keys_per_s", who, KEYS), quota.keys_per_s, quota.burst_keys


def _exceeded(bucket: Bucket, wanted: int, smallest: int) -> QuotaExceeded:
    name, who, unit = bucket.scope
    return QuotaExceeded(
        f"quota of {who}: asked for {wanted} {unit}, {int(bucket.left)} left",
        hint=f"wait, or raise {name} ({bucket.rate_per_s:g}) in the policy",
        retry_after_s=max(1.0, (wanted - bucket.left) / bucket.rate_per_s),
        empty_s=(smallest - bucket.left) / bucket.rate_per_s,
    )
