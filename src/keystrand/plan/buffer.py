"""Stores of keys: how long they last, how large they must be, how often they run dry, and how long each key lies exposed.

A store is filled at g and drained at c bits per second. A larger one outlives longer outages, and every key in it lies there
for longer: mean residence is B / c (Little 1961). So the smallest store that meets the aim is the best one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

EXPOSURE_MEANS: Final = (
    "mean time from birth of a key to its destruction in a store that is drained in order: size / demand"
)


@dataclass(frozen=True, slots=True)
class Store:
    """One store of a path. outage_s: that it bridges; fills_s: after that outage, None where it never fills again;
    exposure_s: see EXPOSURE_MEANS; starvation: chance to find it empty at most, None where up and down times are unknown."""

    size_bits: float
    outage_s: float
    fills_s: float | None
    exposure_s: float
    starvation: float | None


def time_to_empty_s(size_bits: float, reserve_bits: float, drain_bps: float, gain_bps: float = 0.0) -> float:
    """Until only the reserve is left; infinite where the store does not shrink."""
    if drain_bps <= gain_bps:
        return math.inf
    return max(0.0, size_bits - reserve_bits) / (drain_bps - gain_bps)


def size_bits(outage_s: float, drain_bps: float, reserve_bits: float = 0.0) -> float:
    """That outlives an outage without a new key."""
    return drain_bps * outage_s + reserve_bits


def refill_s(outage_s: float, drain_bps: float, gain_bps: float) -> float | None:
    """After an outage, until the store is full again; None where the link gains no more than it spends."""
    return drain_bps * outage_s / (gain_bps - drain_bps) if gain_bps > drain_bps else None


def exposure_s(size_bits: float, drain_bps: float) -> float:
    return size_bits / drain_bps if drain_bps > 0 else math.inf


def starvation(size_bits: float, drain_bps: float, gain_bps: float, mtbf_s: float, mttr_s: float) -> float:
    """Share of time without a key, at most: rho * exp(-z B), for exponential up and down times (a Markov fluid queue).

    p_d = lambda / (lambda + mu), rho = p_d g / (g - c), z = mu / c - lambda / (g - c). 1 where the link gains less than it
    spends on average: no store helps then. For other repair times replay a trace instead.
    """
    fails, heals = 1 / mtbf_s, 1 / mttr_s
    down = fails / (fails + heals)
    if drain_bps <= 0:
        return 0.0
    if gain_bps * (1 - down) <= drain_bps:
        return 1.0
    rho = down * gain_bps / (gain_bps - drain_bps)
    z = heals / drain_bps - fails / (gain_bps - drain_bps)
    return min(1.0, rho * math.exp(-z * size_bits))


def store(
    *, outage_s: float, reserve_bits: float, drain_bps: float, gain_bps: float, up_down_s: tuple[float, float] | None
) -> Store:
    """The smallest one that bridges the outage."""
    size = size_bits(outage_s, drain_bps, reserve_bits)
    chance = None if up_down_s is None else starvation(size, drain_bps, gain_bps, *up_down_s)
    lasts_s = time_to_empty_s(size, reserve_bits, drain_bps)
    return Store(size, lasts_s, refill_s(outage_s, drain_bps, gain_bps), exposure_s(size, drain_bps), chance)
