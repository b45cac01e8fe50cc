"""Attacks on a link, each with the strength that its first field states.

Eve is given what her attack needs and no more than physics allows: perfect detectors, a lossless fibre, full knowledge of
the profile. `eve_share` is the part of the sifted key that she then knows. What each leaves to see: docs/concepts/optics.md.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np

from keystrand.qkd.kernels import optics as kernels
from keystrand.qkd.optics_channel import quiet_conditions
from keystrand.qkd.optics_disturb import Conditions, Floats, Light, Strength, require_share
from keystrand.qkd.profile import LinkProfile

PHOTONS_MAX: Final = 16  # of one pulse; mu <= 2 makes more than that once in 1e10
TROJAN_ROUND_TRIP_DB: Final = 60.0  # assumed: in through isolator and attenuator, a weak reflection, and out again
BLINDING_W: Final = 1e-5  # assumed: continuous light that keeps a gated photodiode below breakdown


class Attack(Strength, ABC):
    """Somebody means harm."""

    @abstractmethod
    def eve_share(self, now: Conditions) -> float:
        """The part of the sifted key that Eve knows, where the link without her is `now`."""


@dataclass(frozen=True)
class InterceptResend(Attack):
    """Eve measures a share of the pulses in a basis of her choice and sends what she saw, as bright as it was.

    With both bases equally likely the error rate rises by a quarter of `strength` in either basis; an Eve biased to the key
    basis shows in the test basis instead.
    """

    strength: float
    p_key_basis: float = 0.5
    name = "intercept-resend"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self.p_key_basis)

    def light(self, light: Light, now: Conditions, rng: np.random.Generator) -> Light:
        size = light.indices.size
        taken = rng.random(size) < self.strength
        eve = (rng.random(size) >= self.p_key_basis).astype(np.uint8)
        guess = rng.integers(0, 2, size, dtype=np.uint8)
        seen = np.where(eve == light.bases, light.bits, guess)
        return replace(light, bases=np.where(taken, eve, light.bases), bits=np.where(taken, seen, light.bits))

    def eve_share(self, now: Conditions) -> float:
        return self.strength * self.p_key_basis


@dataclass(frozen=True)
class PhotonNumberSplitting(Attack):
    """Eve counts the photons of a share of the pulses without disturbing them. Of two or more she keeps one and forwards the
    rest; single photons she stops, as far as the receiver's rate of signal pulses stays what it was."""

    strength: float
    name = "pns"

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        _, singles = split_plan(now)
        arrive = max(float(_forwarded(mean, singles)[1:].sum()) for mean in now.sent_photons)
        return replace(now, candidates=max(now.candidates, arrive)) if self.strength else now

    def light(self, light: Light, now: Conditions, rng: np.random.Generator) -> Light:
        reach, singles = split_plan(now)
        size = light.indices.size
        taken, u = rng.random(size) < self.strength, rng.random(size)
        numbers, photons, weights = light.numbers.copy(), light.photons.copy(), light.weights.copy()
        for intensity, mean in enumerate(now.sent_photons):
            chosen = taken & (light.intensities == intensity)
            arriving = _forwarded(mean, singles)[1:] / now.candidates  # given that the pulse is a candidate
            number = np.searchsorted(np.cumsum(arriving), u[chosen], side="right") + 1
            numbers[chosen] = np.where(number > PHOTONS_MAX, 0, number)
        photons[taken], weights[taken] = reach, 1.0
        return replace(light, numbers=numbers, photons=photons, weights=weights)

    def eve_share(self, now: Conditions) -> float:
        reach, singles = split_plan(now)
        mean, eta = now.sent_photons[0], now.profile.detector.efficiency * reach
        known = _clicks(_forwarded(mean, 0.0), eta)
        return self.strength * known / max(known, _clicks(_forwarded(mean, singles), eta), 1e-300)


@lru_cache(maxsize=64)
def split_plan(now: Conditions) -> tuple[float, float]:
    """How Eve keeps the rate of signal pulses: transmittance of her own line, and the share of single photons let through."""
    eta, mean = now.profile.detector.efficiency, now.sent_photons[0]
    goal = -math.expm1(-eta * now.photons[0])
    if _clicks(_forwarded(mean, 0.0), eta) >= goal:
        return _bisect(lambda reach: _clicks(_forwarded(mean, 0.0), eta * reach) - goal), 0.0
    if _clicks(_forwarded(mean, 1.0), eta) <= goal:
        return 1.0, 1.0
    return 1.0, _bisect(lambda singles: _clicks(_forwarded(mean, singles), eta) - goal)


def _bisect(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def _forwarded(mean: float, singles: float) -> Floats:
    """Probabilities that 0, 1, .. photons go on, of a pulse of this mean."""
    photons = np.arange(PHOTONS_MAX + 2)
    poisson = np.array([math.exp(-mean) * mean**n / math.factorial(n) for n in photons])
    out: Floats = np.zeros(PHOTONS_MAX + 1)
    out[1:] = poisson[2 : PHOTONS_MAX + 2]
    out[1] += singles * poisson[1]
    out[0] = 1 - out[1:].sum()
    return out


def _clicks(numbers: Floats, eta: float) -> float:
    """Probability that one photon or more is detected."""
    return float((numbers * (1 - (1 - eta) ** np.arange(numbers.size))).sum())


@dataclass(frozen=True)
class Blinding(Attack):
    """Bright light takes the detectors out of photon counting for a share of the time; on top of it Eve sends what she measured
    as pulses that make exactly the detector of her choice click, and only in her own basis.

    She measures in either basis equally often and sends so often that the receiver's rate is what it was.
    """

    strength: float
    name = "blinding"

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        power_w = now.receiver_w + self.strength * BLINDING_W
        boost = now.boost * 2 if self.strength else now.boost
        return replace(now, blinded=self.strength, receiver_w=power_w, boost=boost)

    def light(self, light: Light, now: Conditions, rng: np.random.Generator) -> Light:
        size = light.indices.size
        taken = kernels.blinded(light.indices, self.strength)
        eve = rng.integers(0, 2, size, dtype=np.uint8)
        seen = np.where(eve == light.bases, light.bits, rng.integers(0, 2, size, dtype=np.uint8))
        return replace(
            light,
            bases=np.where(taken, eve, light.bases),
            bits=np.where(taken, seen, light.bits),
            photons=np.where(taken, 2 * light.photons, light.photons),
            numbers=np.where(taken, np.int8(kernels.BRIGHT), light.numbers),
        )

    def eve_share(self, now: Conditions) -> float:
        return self.strength


@dataclass(frozen=True)
class TimeShift(Attack):
    """Eve makes a share of the pulses come early or late, where one detector is more efficient than the other, and knows then
    which of them clicked more likely. She makes up for the lower efficiency with a better fibre."""

    strength: float
    shift_gates: float = 0.4
    name = "time-shift"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.shift_gates <= 1:
            raise ValueError(f"shift_gates={self.shift_gates} is outside 0 .. 1")

    def _responses(self, now: Conditions) -> tuple[float, float]:
        """Of the detector that a shift favours, and of the other one."""
        detector = now.profile.detector
        shift_s, half_s = self.shift_gates * detector.gate_s, detector.skew_s / 2
        return (
            float(kernels.response(shift_s, half_s, detector.gate_s)),
            float(kernels.response(shift_s, -half_s, detector.gate_s)),
        )

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        favoured, other = self._responses(now)
        made_up = 2 / (favoured + other)
        return replace(now, boost=now.boost * max(1.0, made_up, favoured * made_up)) if self.strength else now

    def light(self, light: Light, now: Conditions, rng: np.random.Generator) -> Light:
        size, shift_s = light.indices.size, self.shift_gates * now.profile.detector.gate_s
        taken, late = rng.random(size) < self.strength, rng.random(size) < 0.5
        moved = np.where(late, shift_s, -shift_s) * taken
        made_up = 2 / sum(self._responses(now))
        return replace(
            light,
            offsets_s=light.offsets_s + moved,
            photons=np.where(taken, light.photons * made_up, light.photons),
        )

    def eve_share(self, now: Conditions) -> float:
        favoured, other = self._responses(now)
        guess = favoured / (favoured + other)
        doubt = 0.0 if guess in (0.0, 1.0) else -guess * math.log2(guess) - (1 - guess) * math.log2(1 - guess)
        return self.strength * (1 - doubt)


@dataclass(frozen=True)
class TrojanHorse(Attack):
    """Eve shines into the transmitter and reads its settings from the reflection: `strength` photons per pulse come out.

    The key shows nothing of it. Only a meter at the transmitter's entrance does.
    """

    strength: float
    name = "trojan"
    is_share = False

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        source = now.profile.source
        out_w = self.strength * source.photon_j * source.clock_hz
        return replace(now, transmitter_w=now.transmitter_w + out_w * 10 ** (TROJAN_ROUND_TRIP_DB / 10))

    def eve_share(self, now: Conditions) -> float:
        return -math.expm1(-self.strength)  # at most: a pulse with a photon in it tells all


@dataclass(frozen=True)
class SourceTamper(Attack):
    """Eve makes the pulses brighter by the factor 1 + strength: by seeding the laser, which its own meter sees, or by damage to
    the attenuator behind that meter (`behind_meter`), which it does not."""

    strength: float
    behind_meter: bool = False
    name = "source-tamper"
    is_share = False

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        ratio = 1.0 if self.behind_meter else 1 + self.strength
        return replace(now, brightness=now.brightness * (1 + self.strength), source_ratio=now.source_ratio * ratio)

    def eve_share(self, now: Conditions) -> float:
        """What pulses of several photons give away beyond what the bound allows for."""
        mean = now.sent_photons[0]
        return _several(mean * (1 + self.strength)) - _several(mean)


def _several(mean: float) -> float:
    """Of pulses that hold a photon, the share that holds more than one."""
    return 1 - mean * math.exp(-mean) / -math.expm1(-mean)


ATTACKS: Final[dict[str, Callable[[float], Attack]]] = {
    kind.name: kind for kind in (InterceptResend, PhotonNumberSplitting, Blinding, TrojanHorse, TimeShift, SourceTamper)
}


def strength_for(kind: Callable[[float], Attack], profile: LinkProfile, share: float) -> float:
    """The least strength, up to 1, at which Eve knows `share` of the sifted key; 1 where she cannot know as much."""
    now = quiet_conditions(profile)
    now = replace(now, candidates=min(1.0, max(now.photons) * max(profile.detector.efficiencies)))
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if kind(middle).eve_share(now) >= share else (middle, high)
    return high
