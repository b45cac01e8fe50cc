"""The slow twin of the sampler of clicks: every pulse and every photon is drawn, nothing is thinned, nothing is skipped."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from keystrand.qkd.optics_disturb import Conditions

CHUNK = 1_000_000


@dataclass
class Seen:
    """What clicked: gate, sent bit, basis and intensity, measured basis and bit, and whether both detectors did."""

    rows: list[tuple[int, int, int, int, int, int, int]] = field(default_factory=list)

    def table(self) -> np.ndarray:
        return np.array(self.rows, np.int64).reshape(-1, 7)


def pulse_by_pulse(now: Conditions, pulses: int, rng: np.random.Generator) -> np.ndarray:
    """Rows as in `Seen`, by gate: photon numbers by Poisson, each photon takes its own way, then the detectors' memory."""
    seen, busy_until, after = Seen(), 0, (-1, 0)
    for first in range(0, pulses, CHUNK):
        busy_until, after = _chunk(now, first, min(CHUNK, pulses - first), rng, seen, busy_until, after)
    return seen.table()


def _chunk(now, first, size, rng, seen, busy_until, after):
    source, detector = now.profile.source, now.profile.detector
    intensities = rng.choice(len(source.shares), size, p=source.shares)
    bits, bases = rng.integers(0, 2, size), (rng.random(size) >= source.p_key_basis).astype(int)
    measured = (rng.random(size) >= source.p_key_basis).astype(int)
    means = np.array(now.photons)[intensities] * (1 + source.intensity_noise * rng.standard_normal(size))
    photons = rng.poisson(means.clip(0))
    stray = np.where(bases == measured, now.misalignment, 0.5)
    to_wrong = rng.binomial(photons, stray)
    arriving = np.stack(
        [np.where(bits == 0, photons - to_wrong, to_wrong), np.where(bits == 0, to_wrong, photons - to_wrong)]
    )
    light = rng.binomial(arriving, np.array(detector.efficiencies)[:, None]) > 0
    dark = rng.random((2, size)) < np.array(now.dark_per_gate)[:, None]
    hits = light | dark
    dead, rate = now.profile.dead_gates, -np.expm1(-1 / (detector.afterpulse_time_s * source.clock_hz))
    events = np.flatnonzero(hits.any(axis=0)).tolist()
    place = 0
    while True:
        gate = events[place] if place < len(events) else size
        own = after[0] - first
        at = min(gate, own) if own >= 0 else gate
        if at >= size:
            return busy_until, after
        place += at == gate
        zero, one = bool(hits[0, at]), bool(hits[1, at])
        if at == own:
            zero, one = zero or after[1] == 0, one or after[1] == 1
            after = (-1, 0)
        if first + at < busy_until:
            continue
        bit = int(rng.integers(0, 2)) if zero and one else int(one)
        seen.rows.append((first + at, bits[at], bases[at], intensities[at], measured[at], bit, int(zero and one)))
        busy_until, after = first + at + 1 + dead, (-1, 0)
        if rng.random() < detector.afterpulse_probability:
            after = (first + at + dead + int(rng.geometric(rate)), bit)
