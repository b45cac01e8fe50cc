"""Quotas: a token bucket of key bits per ordered pair, so that no SAE draws a link empty."""

from __future__ import annotations

from dataclasses import dataclass

from keystrand.core.clock import Clock
from keystrand.core.errors import QuotaExceeded
from keystrand.core.policy import Rule


@dataclass(slots=True)
class Bucket:
    bits: float
    at_s: float


class Quotas:
    """Buckets of all pairs; monotonic time, in memory (a restart refills them)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def _bucket(self, rule: Rule) -> Bucket:
        now_s = self._clock.monotonic_s()
        pair = (rule.initiator, rule.responder)
        bucket = self._buckets.setdefault(pair, Bucket(float(rule.quota_burst_bits), now_s))
        bucket.bits = min(rule.quota_burst_bits, bucket.bits + (now_s - bucket.at_s) * rule.quota_bps)
        bucket.at_s = now_s
        return bucket

    def check(self, rule: Rule, bits: int) -> None:
        """Raises QuotaExceeded when `bits` are more than the pair may draw now. Takes nothing."""
        if rule.quota_bps and (bucket := self._bucket(rule)).bits < bits:
            raise QuotaExceeded(
                f"quota of {rule.initiator} -> {rule.responder}: asked for {bits} bits, {int(bucket.bits)} left",
                hint=f"wait, or raise quota_bps ({rule.quota_bps:g}) in the policy",
                retry_after_s=max(1.0, (bits - bucket.bits) / rule.quota_bps),
            )

    def spend(self, rule: Rule, bits: int) -> None:
        """Take `bits` that `check` allowed."""
        if rule.quota_bps:
            self._bucket(rule).bits -= bits

    def left_bits(self, rule: Rule) -> float | None:
        """What the pair may draw now; None without quota."""
        return self._bucket(rule).bits if rule.quota_bps else None
