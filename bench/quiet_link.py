"""Blocks of a healthy link that drifts, drawn from their distributions instead of click by click: a year of them in minutes."""

from __future__ import annotations

import math

import numpy as np

from keystrand.qkd.distill.estimate import Counts
from keystrand.qkd.observables import Observables
from keystrand.qkd.optics_channel import Wander, quiet_conditions
from keystrand.qkd.optics_disturb import METER_FLOOR_W, Conditions
from keystrand.qkd.optics_readings import RESPONSIVITY_A_W, Readings, transmitter_readings
from keystrand.qkd.profile import LinkProfile


class QuietLink:
    """One link from one seed; `block` draws what the next block shows."""

    def __init__(self, profile: LinkProfile, seed: int) -> None:
        self.profile, self._rng = profile, np.random.default_rng(seed)
        self._quiet, self._wander = quiet_conditions(profile), Wander(profile, self._rng)

    def block(self, pulses: int) -> Observables:
        source, rng = self.profile.source, self._rng
        now = self._wander.step(self._quiet, pulses / source.clock_hz)
        tables = []
        for share in (source.p_key_basis**2, (1 - source.p_key_basis) ** 2):
            clicks = [
                float(rng.poisson(pulses * share * p * gain))
                for p, gain in zip(source.shares, gains_of(now), strict=True)
            ]
            wrong = [
                float(rng.binomial(int(seen), rate)) if seen else 0.0
                for seen, rate in zip(clicks, errors_of(now), strict=True)
            ]
            tables.append((tuple(clicks), tuple(wrong)))
        (key, key_errors), (test, test_errors) = tables
        counts = Counts(
            intensities=source.intensities,
            shares=source.shares,
            key=key,
            key_errors=key_errors,
            test=test,
            test_errors=test_errors,
        )
        return Observables(
            pulses=pulses,
            p_key_basis=source.p_key_basis,
            counts=counts,
            readings=self._readings(now, pulses),
            transmitter=transmitter_readings(now, rng),
        )

    def _readings(self, now: Conditions, pulses: int) -> Readings:
        detector, rng = self.profile.detector, self._rng
        seconds = pulses / self.profile.source.clock_hz
        mean = sum(p * gain for p, gain in zip(self.profile.source.shares, gains_of(now), strict=True))
        total = int(rng.poisson(pulses * mean))
        first = int(rng.binomial(total, 0.5))
        doubles = int(rng.poisson(total * mean / 4))
        jitter_s = detector.jitter_s
        spread = rng.standard_normal(2) * math.sqrt(total)
        moments_s = np.array([jitter_s * spread[0], jitter_s**2 * (total + math.sqrt(2) * spread[1]), 0.0])
        return Readings(
            gates=pulses,
            seconds=seconds,
            clicks=np.array([first, total - first]),
            doubles=doubles,
            moments_s=moments_s,
            charge_c=(total + doubles) * detector.avalanche_c + RESPONSIVITY_A_W * METER_FLOOR_W * seconds,
            energy_j=METER_FLOOR_W * seconds + pulses * self.profile.source.photon_j * now.mean_photons,
        )


def gains_of(now: Conditions) -> list[float]:
    """Clicks per pulse by intensity."""
    dark, eta = 2 * now.dark_probability, now.profile.detector.efficiency
    return [1 - (1 - dark) * math.exp(-eta * mean) for mean in now.photons]


def errors_of(now: Conditions) -> list[float]:
    """Error rates by intensity: half of the dark clicks, and what leaves through the wrong port."""
    dark, eta = 2 * now.dark_probability, now.profile.detector.efficiency
    rates = []
    for mean, gain in zip(now.photons, gains_of(now), strict=True):
        signal = 1 - math.exp(-eta * mean)
        rates.append(min(0.5, (dark / 2 + now.misalignment * signal) / gain))
    return rates
