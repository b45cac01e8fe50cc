"""Clicks of light that nobody disturbs, straight from one live gate to the next.

The same events as in `optics.receive`, with the same chances. But what could click while the detectors are held off is not
drawn at all: waiting times have no memory, so they begin anew when the detectors are back. A pulse's choices are derived on the
spot, as which pulse is looked at next depends on whether this one clicked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.kernels import allocating, kernel
from keystrand.qkd.kernels.aes import block
from keystrand.qkd.kernels.optics import (
    AFTER,
    AFTER_DETECTOR,
    AFTER_GATE,
    AFTER_RATE,
    BUSY_UNTIL,
    COHERENT,
    DARK0,
    DARK1,
    DEAD_GATES,
    ETA0,
    ETA1,
    FAR,
    GATE_S,
    JITTER_S,
    KEY_BASIS_SHARE,
    OVERFLOWS,
    STRAY,
    light_hits,
    unlit,
)

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


@kernel
def choices(keys: NDArray[np.uint64], thresholds: NDArray[np.uint64], gate: int) -> tuple[Any, int, int]:
    """Bit, basis and intensity of one pulse, as `choices.ChoiceStream` has them."""
    low, high = block(keys, np.uint64(gate))
    third = high & LOW
    intensity = (1 if third >= thresholds[1] else 0) + (1 if third >= thresholds[2] else 0)
    return np.int64(low & np.uint64(1)), 1 if low >> HALF >= thresholds[0] else 0, intensity


@kernel
def wait_of(probability: float) -> float:
    """Mean wait, in gates, for something of this probability; 0 for what never happens."""
    return -1 / math.log1p(-probability) if probability > 0 else 0.0


@kernel
def after(rng: Any, wait: float, gate: int) -> int:
    """As `optics.next_gate`, by the mean wait: a logarithm less."""
    return gate + 1 + int(min(rng.standard_exponential() * wait, 1e18)) if wait > 0 else int(FAR)


@allocating
def shine(
    rng: Any,
    first: int,
    stop: int,
    keys: NDArray[np.uint64],
    thresholds: NDArray[np.uint64],
    photons: NDArray[np.float64],
    noise: float,
    noise_max: float,
    candidates: float,
    figures: NDArray[np.float64],
    state: NDArray[np.int64],
    out_gates: NDArray[np.int64],
    out_bases: NDArray[np.uint8],
    out_bits: NDArray[np.uint8],
    out_doubles: NDArray[np.uint8],
    out_offsets_s: NDArray[np.float32],
) -> int:
    """Clicks among the gates first .. stop - 1 into the out arrays, until those are full. Returns how many.

    keys, thresholds: of the choices; photons: mean at the detectors, by intensity, each time off by `noise` of it, within
    `noise_max` standard deviations; candidates: probability with which a gate is looked at, that no pulse exceeds.
    """
    wait, wait0, wait1 = wait_of(candidates), wait_of(figures[DARK0]), wait_of(figures[DARK1])
    after_wait, weight = wait_of(figures[AFTER_RATE]), 1.0 / candidates if candidates > 0 else 0.0
    dead, found = int(figures[DEAD_GATES]), 0
    busy = max(first, state[BUSY_UNTIL])
    light = after(rng, wait, busy - 1)
    dark0, dark1 = after(rng, wait0, busy - 1), after(rng, wait1, busy - 1)
    while found < out_gates.size:
        gate = min(min(light, state[AFTER_GATE]), min(dark0, dark1))
        if gate >= stop:
            break
        hits, basis = 0, 0 if rng.random() < figures[KEY_BASIS_SHARE] else 1
        if light == gate:
            bit, sent, intensity = choices(keys, thresholds, gate)
            mean = photons[intensity]
            if noise > 0:
                mean *= 1 + noise * min(max(rng.standard_normal(), -noise_max), noise_max)
            stray = 0.5 if basis != sent else figures[STRAY]
            hits = light_hits(rng.random(), weight, COHERENT, mean, bit, stray, figures[ETA0], figures[ETA1])
            if hits < 0:
                state[OVERFLOWS] += 1
                hits = 0
            light = after(rng, wait, gate)
        in_time = hits > 0
        hits |= unlit(gate, dark0, dark1, False, state)
        dark0 = after(rng, wait0, gate) if dark0 == gate else dark0
        dark1 = after(rng, wait1, gate) if dark1 == gate else dark1
        if hits == 0:
            continue
        bit = (1 if rng.random() < 0.5 else 0) if hits == 3 else hits - 1
        late_s = figures[JITTER_S] * rng.standard_normal() if in_time else (rng.random() - 0.5) * figures[GATE_S]
        out_gates[found], out_bases[found], out_bits[found] = gate, basis, bit
        out_doubles[found], out_offsets_s[found] = hits == 3, late_s
        found += 1
        busy = gate + 1 + dead
        light = after(rng, wait, busy - 1) if light < busy else light
        dark0 = after(rng, wait0, busy - 1) if dark0 < busy else dark0
        dark1 = after(rng, wait1, busy - 1) if dark1 < busy else dark1
        state[BUSY_UNTIL] = busy
        state[AFTER_GATE] = FAR
        if figures[AFTER] > 0 and rng.random() < figures[AFTER]:
            state[AFTER_GATE] = after(rng, after_wait, gate + dead)
            state[AFTER_DETECTOR] = bit
    return found
