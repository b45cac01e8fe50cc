"""One block as a few figures, each with how far chance alone moves it: what the monitor compares with the link's usual.

Figures that scale are taken as logarithms, so that a doubling is as far as a halving. What no instrument of this end showed
is left out; a monitor takes what it gets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from keystrand.qkd.observables import Observables
from keystrand.qkd.optics_disturb import METER_FLOOR_W
from keystrand.qkd.optics_readings import RESPONSIVITY_A_W
from keystrand.qkd.profile import LinkProfile

METER_ERROR: Final = 0.1  # of a power meter at an entrance, as a share: assumed
LASER_METER_ERROR: Final = 0.005  # of the meter of the transmitter's own laser: assumed
CURRENT_ERROR: Final = 0.02  # of the ammeter of the diodes: assumed
COUNTS_MIN: Final = 20  # below it a rate says nothing
ARRIVALS_MIN: Final = 2000  # below it a few dark clicks, which come at any time, make the width


@dataclass(frozen=True, slots=True)
class Feature:
    """sigma: standard deviation of `value` by chance. usual: where a link as its profile says stands; None: learnt only."""

    name: str
    value: float
    sigma: float
    usual: float | None = None


def features_of(seen: Observables, profile: LinkProfile) -> dict[str, Feature]:
    """By name: see the functions below, each of which says what it measures."""
    found = [*_errors(seen), *_gains(seen, profile)]
    if seen.readings is not None:
        found += [*_detectors(seen), *_powers(seen, profile)]
    if seen.transmitter is not None:
        found += [*_transmitter(seen)]
    return {feature.name: feature for feature in found}


def _errors(seen: Observables) -> Iterator[Feature]:
    """Error rates of signal pulses in either basis."""
    counts = seen.counts
    for basis, errors, clicks in (("key", counts.key_errors, counts.key), ("test", counts.test_errors, counts.test)):
        if basis == "key" and not _is_corrected(seen):
            continue
        if clicks[0] >= COUNTS_MIN and errors[0] <= clicks[0]:
            rate = errors[0] / clicks[0]
            yield Feature(f"qber_{basis}", rate, math.sqrt(max(rate, 1 / clicks[0]) / clicks[0]))


def _is_corrected(seen: Observables) -> bool:
    """Whether the errors of the key basis are known: a block that its test basis gave away never gets so far."""
    return sum(seen.counts.key_errors) > 0 or sum(seen.counts.test_errors) == 0


def _gains(seen: Observables, profile: LinkProfile) -> Iterator[Feature]:
    """How much arrives of the signal; whether decoys arrive in the proportion that physics fixes; how much comes of nothing,
    and the errors that this does not explain."""
    counts, gains = seen.counts, seen.gains
    clicks = [key + test for key, test in zip(counts.key, counts.test, strict=True)]
    if clicks[0] < COUNTS_MIN:
        yield Feature("gain", math.log(max(gains[0], 1e-12)), 1.0)
        return
    yield Feature("gain", math.log(gains[0]), 1 / math.sqrt(clicks[0]))
    usual = 2 * profile.detector.dark_count_probability
    if len(gains) > 2:
        one = gains[2] / clicks[2] if clicks[2] else usual
        dark = gains[2] + one  # as if one click more had come: none at all is no logarithm
        yield Feature("vacuum", math.log(dark), 1 / math.sqrt(clicks[2] + 1))
        if _is_corrected(seen):
            yield _intrinsic(seen, dark, dark / math.sqrt(clicks[2] + 1))
    if clicks[1] >= COUNTS_MIN:
        expected = decoy_gain(gains[0], dark if len(gains) > 2 else usual, profile)
        yield Feature("decoy_ratio", math.log(gains[1] / expected), math.sqrt(1 / clicks[1] + 1 / clicks[0]), 0.0)
        if len(gains) == 2 and _is_corrected(seen):
            yield _intrinsic(seen, *_background(gains, clicks, profile))


def _background(gains: tuple[float, ...], clicks: list[float], profile: LinkProfile) -> tuple[float, float]:
    """What would click without a signal, and its standard deviation, from the gains of signal and one decoy (eq. 7 twice)."""
    mu, nu = profile.source.intensities[:2]
    part = nu / mu
    dark = 1 - ((1 - gains[1]) / (1 - gains[0]) ** part) ** (1 / (1 - part))
    spread = math.hypot(gains[1] / math.sqrt(clicks[1]), part * gains[0] / math.sqrt(clicks[0])) / (1 - part)
    return max(0.0, dark), spread


def _intrinsic(seen: Observables, dark: float, dark_spread: float) -> Feature:
    """The error rate that is left when the errors of the background are taken off, half of whose clicks are wrong: alignment,
    timing, and whoever measures on the way."""
    counts, gain = seen.counts, seen.gains[0]
    errors, clicks = counts.key_errors[0] + counts.test_errors[0], counts.key[0] + counts.test[0]
    rate = errors / clicks
    value = (rate - dark / gain / 2) / max(1e-9, 1 - dark / gain)
    return Feature(
        "intrinsic_error", value, math.hypot(math.sqrt(max(rate, 1 / clicks) / clicks), dark_spread / gain / 2)
    )


def decoy_gain(signal_gain: float, dark: float, profile: LinkProfile) -> float:
    """What the decoy's gain has to be where the signal's is this: both are 1 - (1 - Y0) exp(-eta k) for one channel (Ma et al.,
    Phys. Rev. A 72, 012326, eq. 7)."""
    mu, nu = profile.source.intensities[:2]
    through: float = min((1 - signal_gain) / (1 - dark), 1.0 - 1e-15)
    return float(1 - (1 - dark) * through ** (nu / mu))


def _detectors(seen: Observables) -> Iterator[Feature]:
    """Both detectors at once, one more often than the other, and when in the gate they click."""
    readings = seen.readings
    assert readings is not None
    total = readings.total
    if total < COUNTS_MIN:
        return
    yield Feature("doubles", readings.double_ratio, math.sqrt(readings.doubles + 1) / total)
    yield Feature("balance", readings.balance, 0.5 / math.sqrt(total))
    mean_s, deviation_s, _ = readings.arrival_s
    if deviation_s > 0 and total >= ARRIVALS_MIN:
        yield Feature("arrival", mean_s * 1e12, 1e12 * deviation_s / math.sqrt(total))
        yield Feature("arrival_width", math.log(deviation_s), 1 / math.sqrt(total))


def _powers(seen: Observables, profile: LinkProfile) -> Iterator[Feature]:
    """Current through the diodes beyond what their avalanches bring, and light at the receiver's entrance."""
    readings = seen.readings
    assert readings is not None
    if not readings.seconds:
        return
    avalanches = readings.total + readings.doubles
    expected_a = (avalanches * profile.detector.avalanche_c + RESPONSIVITY_A_W * METER_FLOOR_W) / readings.seconds
    if expected_a > 0:
        excess = readings.photocurrent_a / expected_a
        yield Feature("photocurrent", math.log(max(excess, 1e-9)), CURRENT_ERROR, 0.0)
    yield Feature("receiver_light", math.log(max(readings.entrance_w, METER_FLOOR_W)), METER_ERROR)


def _transmitter(seen: Observables) -> Iterator[Feature]:
    """The laser against what was set, and light that shines into the transmitter."""
    meters = seen.transmitter
    assert meters is not None
    yield Feature("source", meters.source_ratio - 1, LASER_METER_ERROR, 0.0)
    light = math.log(max(meters.entrance_w, METER_FLOOR_W / 10) / METER_FLOOR_W)
    yield Feature("transmitter_light", light, METER_ERROR, 0.0)
