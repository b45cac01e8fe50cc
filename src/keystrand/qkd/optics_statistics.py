"""Counts of a stretch of light without its clicks: what hours of a link give, in the time of a few random numbers.

Clicks renew everything that the detectors remember (dead time; at most one afterpulse pending), so the times between them
are independent, and so is what each click is. Therefore the number of clicks follows from sums of geometric variables, and
their kinds from multinomials, exactly as the click-by-click sampler would count them; `tests/unit/qkd` compares the two.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.distill.estimate import Counts
from keystrand.qkd.optics_disturb import Conditions
from keystrand.qkd.rates import live_gate

SIGMAS: Final = 10.0  # a stretch is filled to so many deviations below its end, then click by click
FEW: Final = 4096


def count_clicks(now: Conditions, pulses: int, rng: np.random.Generator) -> tuple[Counts, int]:
    """Sifted counts of `pulses` pulses in these conditions, and clicks in all, drawn at random.

    What disturbances do to single pulses is not seen here; what they do to conditions is.
    """
    source = now.profile.source
    gates = np.array([live_gate(now, photons) for photons in now.photons])
    shares = np.array(source.shares)
    some = float(shares @ gates[:, 0])
    clicks, afterpulses = _renewals(now, some, pulses, rng)
    own = _kinds(shares * gates[:, 0] / some, gates[:, 1] / gates[:, 0], clicks - afterpulses, source.p_key_basis, rng)
    dark = shares * (1 - gates[:, 0]) / (1 - some)
    late = _kinds(dark, np.full(len(dark), 0.5), afterpulses, source.p_key_basis, rng)
    (key, test), (key_errors, test_errors) = own + late
    counts = Counts(
        intensities=source.intensities,
        shares=source.shares,
        key=tuple(key.tolist()),
        key_errors=tuple(key_errors.tolist()),
        test=tuple(test.tolist()),
        test_errors=tuple(test_errors.tolist()),
    )
    return counts, clicks


def _kinds(
    shares: NDArray[np.float64], errors: NDArray[np.float64], clicks: int, p_key: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Sifted clicks and errors among them, each by basis and intensity: 2 x 2 x intensities."""
    bases = np.array([p_key**2, (1 - p_key) ** 2])
    cells = np.append(np.outer(bases, shares).ravel(), 1 - bases.sum())
    seen = rng.multinomial(clicks, cells / cells.sum())[:-1].reshape(2, -1)
    return np.array([seen, rng.binomial(seen, errors)])


def _renewals(now: Conditions, some: float, pulses: int, rng: np.random.Generator) -> tuple[int, int]:
    """Clicks in `pulses` gates, and how many of them are afterpulses and nothing else."""
    detector, dead = now.profile.detector, now.profile.dead_gates
    after = detector.afterpulse_probability
    release = -math.expm1(-1 / (detector.afterpulse_time_s * now.profile.source.clock_hz))
    either = some + release - some * release
    left, clicks, pending_clicks = pulses + dead, 0, 0  # the first click has no dead time before it
    mean = dead + (1 - after) / some + after / either
    spread = math.sqrt(mean**2 + (1 - after) / some**2)
    while (number := int(left / mean - SIGMAS * spread / mean * math.sqrt(left / mean))) > FEW:
        pending = int(rng.binomial(number, after))
        left -= number * dead + _waiting(number - pending, some, rng) + _waiting(pending, either, rng)
        clicks, pending_clicks = clicks + number, pending_clicks + pending
    number = max(64, int(2 * left / mean + 16 * spread / mean * math.sqrt(max(1.0, left / mean))))
    is_pending = rng.random(number) < after
    waits = np.where(is_pending, rng.geometric(either, number), rng.geometric(some, number)) + dead
    fitting = int(np.searchsorted(np.cumsum(waits), left, side="right"))
    pending_clicks += int(is_pending[:fitting].sum())
    alone = release * (1 - some) / either
    return clicks + fitting, int(rng.binomial(pending_clicks, alone))


def _waiting(clicks: int, probability: float, rng: np.random.Generator) -> int:
    """Gates until so many clicks, each of this probability."""
    return clicks + int(rng.negative_binomial(clicks, probability)) if clicks else 0
