"""Clicks of two gated detectors, event by event: light that may click, dark counts, afterpulses, dead time.

A gate is named by its number. Only gates in which something may happen are visited: candidates for a click of light, drawn at
a probability that no pulse exceeds and thinned by what was really sent; counts that no signal made, at their own rate for
each detector; the one afterpulse that may be pending. Between them nothing can click, so nothing is drawn.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.kernels import allocating, kernel

FAR: Final = np.int64(2**62)
COHERENT: Final = -1  # in `numbers`: a coherent state of mean `photons`
BRIGHT: Final = (
    -2
)  # in `numbers`: bright light into a blinded detector; clicks in the sender's basis only, at `photons`

# Places in the array of figures
ETA0, ETA1, DARK0, DARK1, STRAY, KEY_BASIS_SHARE, AFTER, AFTER_RATE, JITTER_S, GATE_S, SKEW_S, BLINDED, DEAD_GATES = (
    range(13)
)
FIGURES: Final = 13
# Places in the array of state
BUSY_UNTIL, AFTER_GATE, AFTER_DETECTOR, OVERFLOWS = range(4)
STATES: Final = 4
WINDOW_GATES: Final = 4096  # blinding is on or off for so many gates at a time


@allocating
def gaps(rng: Any, probability: float, first: int, stop: int, out: NDArray[np.int64]) -> int:
    """Ascending gates of first .. stop - 1, each present with `probability`, until `out` is full. Returns how many."""
    if probability <= 0:
        return 0
    rate = -math.log1p(-probability)
    gate, found = first - 1, 0
    while found < out.size:
        gate += 1 + int(min(rng.standard_exponential() / rate, 4e18))
        if gate >= stop or gate < 0:
            return found
        out[found] = gate
        found += 1
    return found


@kernel
def next_gate(rng: Any, probability: float, gate: int) -> int:
    """The next gate after `gate` in which something of this probability happens."""
    if probability <= 0:
        return int(FAR)
    return gate + 1 + int(min(rng.standard_exponential() / -math.log1p(-probability), 1e18))


@kernel
def is_blinded(gate: int, share: float) -> bool:
    """Whether this gate lies in a window in which the detectors are blinded: a share of all, spread by a fixed hash."""
    if share <= 0:
        return False
    word = (gate // WINDOW_GATES) * 2654435761 % 4294967296
    word = (word ^ (word >> 15)) * 2246822519 % 4294967296
    return (word ^ (word >> 13)) < share * 4294967296


@allocating
def blinded(gates: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """`is_blinded` of many gates."""
    out = np.empty(gates.size, np.bool_)
    for place in range(gates.size):
        out[place] = is_blinded(gates[place], share)
    return out


@kernel
def response(offset_s: float, skew_s: float, gate_s: float) -> float:
    """Efficiency of a detector for light that comes `offset_s` late, against light in time: its gate is a Gaussian of
    full width `gate_s` at half maximum, `skew_s` late itself."""
    if offset_s == 0.0:
        return 1.0
    width = gate_s / 2.3548200450309493
    late = (offset_s - skew_s) / width
    usual = skew_s / width
    return math.exp(0.5 * (usual * usual - late * late))


@kernel
def light_hits(
    u: float, weight: float, number: int, photons: float, bit: int, stray: float, eta0: float, eta1: float
) -> int:
    """Which detectors a pulse makes click: 0 none, 1 the first, 2 the second, 3 both; -1 where `weight` allows no more.

    u: uniform in 0 .. 1, the only randomness; weight: how likely the pulse is to be asked at all, inverted; stray: share
    of its photons that go to the detector of the other bit.
    """
    share0 = 1.0 - stray if bit == 0 else stray
    reach0, reach1 = eta0 * photons * share0, eta1 * photons * (1.0 - share0)
    if number >= 0:  # each of `number` photons arrives with probability `photons`
        silent0, silent1 = (1.0 - reach0) ** number, (1.0 - reach1) ** number
        silent = (1.0 - reach0 - reach1) ** number
    else:
        silent0, silent1 = math.exp(-reach0), math.exp(-reach1)
        silent = silent0 * silent1
    some = (1.0 - silent) * weight
    if some > 1.0 + 1e-9:
        return -1
    if u >= some:
        return 0
    u /= weight
    only0 = silent1 - silent
    if u < only0:
        return 1
    return 2 if u < only0 + silent0 - silent else 3


@kernel
def lit(
    turned: bool,
    number: int,
    photons: float,
    weight: float,
    bit: int,
    late_s: float,
    u: float,
    figures: NDArray[np.float64],
) -> int:
    """Which detectors a candidate makes click, `turned` against the basis that it was sent in or not: as `light_hits`."""
    stray = 0.5 if turned else figures[STRAY]
    if number == BRIGHT:
        if turned:
            return 0
        stray = 0.0
    half_s = figures[SKEW_S] / 2
    eta0 = figures[ETA0] * response(late_s, -half_s, figures[GATE_S])
    eta1 = figures[ETA1] * response(late_s, half_s, figures[GATE_S])
    return light_hits(u, weight, number, photons, bit, stray, eta0, eta1)


@kernel
def unlit(gate: int, dark0: int, dark1: int, quiet: bool, state: NDArray[np.int64]) -> int:
    """Which detectors click without light in a gate: by their next dark counts, and by the afterpulse that may be due."""
    hits = 0
    if dark0 == gate:
        hits |= 1
    if dark1 == gate:
        hits |= 2
    if state[AFTER_GATE] == gate:
        hits |= 1 << state[AFTER_DETECTOR]
        state[AFTER_GATE] = FAR
    return 0 if quiet else hits


@allocating
def receive(
    rng: Any,
    first: int,
    stop: int,
    indices: NDArray[np.int64],
    bases: NDArray[np.uint8],
    bits: NDArray[np.uint8],
    photons: NDArray[np.float64],
    numbers: NDArray[np.int8],
    weights: NDArray[np.float64],
    offsets_s: NDArray[np.float64],
    uniforms: NDArray[np.float64],
    figures: NDArray[np.float64],
    state: NDArray[np.int64],
    out_gates: NDArray[np.int64],
    out_bases: NDArray[np.uint8],
    out_bits: NDArray[np.uint8],
    out_doubles: NDArray[np.uint8],
    out_offsets_s: NDArray[np.float32],
) -> int:
    """Clicks among the gates first .. stop - 1 into the out arrays, until those are full. Returns how many.

    indices .. offsets_s: candidates for light, ascending; uniforms: two rows of as many; figures, state: as named above;
    state goes on from call to call.
    """
    p_dark0, p_dark1 = figures[DARK0], figures[DARK1]
    dark0, dark1 = next_gate(rng, p_dark0, first - 1), next_gate(rng, p_dark1, first - 1)
    place, found, dead = 0, 0, int(figures[DEAD_GATES])
    while found < out_gates.size:
        gate = min(min(dark0, dark1), state[AFTER_GATE])
        if place < indices.size:
            gate = min(gate, indices[place])
        if gate >= stop:
            break
        live, hits, basis, late_s = gate >= state[BUSY_UNTIL], 0, 255, 0.0
        if place < indices.size and indices[place] == gate:
            if live:
                basis = 0 if uniforms[1, place] < figures[KEY_BASIS_SHARE] else 1
                turned, u, late_s = basis != bases[place], uniforms[0, place], offsets_s[place]
                hits = lit(turned, numbers[place], photons[place], weights[place], bits[place], late_s, u, figures)
                if hits < 0:
                    state[OVERFLOWS] += 1
                    hits = 0
            place += 1
        in_time = hits > 0
        hits |= unlit(gate, dark0, dark1, not live or is_blinded(gate, figures[BLINDED]), state)
        dark0 = next_gate(rng, p_dark0, gate) if dark0 == gate else dark0
        dark1 = next_gate(rng, p_dark1, gate) if dark1 == gate else dark1
        if hits == 0:
            continue
        if basis == 255:
            basis = 0 if rng.random() < figures[KEY_BASIS_SHARE] else 1
        bit = (1 if rng.random() < 0.5 else 0) if hits == 3 else hits - 1
        late_s += (
            figures[JITTER_S] * rng.standard_normal() if in_time else (rng.random() - 0.5) * figures[GATE_S] - late_s
        )
        out_gates[found], out_bases[found], out_bits[found] = gate, basis, bit
        out_doubles[found], out_offsets_s[found] = hits == 3, late_s
        found += 1
        state[BUSY_UNTIL] = gate + 1 + dead
        state[AFTER_GATE] = FAR
        if figures[AFTER] > 0 and rng.random() < figures[AFTER]:
            state[AFTER_GATE] = next_gate(rng, figures[AFTER_RATE], gate + dead)
            state[AFTER_DETECTOR] = bit
    return found
