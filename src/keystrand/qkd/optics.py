"""The photons: the only simulated part of a link. Weak pulses through a lossy fibre into two gated detectors.

Where the border runs: what the transmitter puts on the quantum channel is a pulse train, that is, the seed of her choices and
a number of pulses. Real light would carry the choices physically; here `QuantumChannel` holds the seed and nobody else at the
receiver's end may. The protocol code of the receiver gets `Clicks` (index, basis, bit) and no more. So the connection that
carries pulse trains stands for the fibre: whoever reads it knows what no reader of a fibre can know, and it must not leave
the machine or the laboratory network.

Only pulses that may click are drawn: geometric gaps at the probability of the brightest pulse, then thinning by what was
really sent, then dead time. That makes the cost follow the clicks and not the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from keystrand.core.secret import Secret
from keystrand.qkd.choices import Bits, ChoiceStream, Indices
from keystrand.qkd.profile import LinkProfile

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clicks:
    """What the receiver's detectors say: pulse index, the basis that was measured in, the bit. Same length, ascending."""

    indices: Indices
    bases: Bits
    bits: Bits


@dataclass(frozen=True, slots=True)
class Light:
    """Pulses between fibre and detector: index, basis and bit as encoded, mean photons at the receiver's entrance.

    An attacker may look at all of it; one that reads `photons` instead of counting them is stronger than physics allows.
    """

    indices: Indices
    bases: Bits
    bits: Bits
    photons: Floats


Attack = Callable[[Light, np.random.Generator], Light]


def intercept_resend(fraction: float, *, p_key_basis: float = 0.5) -> Attack:
    """Eve measures `fraction` of the pulses in a basis of her choice and sends what she saw, as bright as it was.

    She is given perfect detectors. With both bases equally likely the error rate rises by a quarter of `fraction` in either
    basis; an Eve biased to the key basis shows in the test basis instead.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction} is outside 0 .. 1")

    def attack(light: Light, rng: np.random.Generator) -> Light:
        size = light.indices.size
        taken = rng.random(size) < fraction
        eve = (rng.random(size) >= p_key_basis).astype(np.uint8)
        guess = rng.integers(0, 2, size, dtype=np.uint8)
        seen = np.where(eve == light.bases, light.bits, guess)
        return replace(light, bases=np.where(taken, eve, light.bases), bits=np.where(taken, seen, light.bits))

    return attack


class QuantumChannel:
    """Fibre, an attack if any, and the receiver's detectors, for one run. `detect` turns pulse trains into clicks.

    rng draws detections and the receiver's bases; it must be seeded from the operating system outside of tests.
    """

    def __init__(
        self, seed: Secret, profile: LinkProfile, *, rng: np.random.Generator, attack: Attack | None = None
    ) -> None:
        self._profile = profile
        self._choices = ChoiceStream(seed, profile.source)
        self._rng = rng
        self.attack = attack
        self._blind_until = 0
        self._means = np.array([profile.source.mu, profile.source.nu]) * profile.fibre.transmittance

    def detect(self, first: int, count: int) -> Clicks:
        """Clicks among the pulses first .. first + count - 1. Trains must come in order."""
        chosen = self._arrivals(first, count)
        if self.attack is not None:
            chosen = self.attack(chosen, self._rng)
        return self._blind(self._measure(self._thin(chosen)))

    def _arrivals(self, first: int, count: int) -> Light:
        """Every pulse that could click, as it leaves the fibre."""
        indices = first + self._gaps(float(self._click_probability(self._means)[0]), count)
        sent = self._choices.at(indices)
        return Light(indices, sent.bases, sent.bits, self._means[sent.intensities])

    def _gaps(self, probability: float, count: int) -> Indices:
        """Ascending positions below count, each present with `probability`."""
        guess = int(count * probability + 8 * np.sqrt(count * probability) + 16)
        positions = np.cumsum(self._rng.geometric(probability, guess)) - 1
        while positions[-1] < count:
            more = np.cumsum(self._rng.geometric(probability, guess)) + positions[-1]
            positions = np.concatenate([positions, more])
        return positions[: np.searchsorted(positions, count)].astype(np.int64)

    def _click_probability(self, photons: Floats) -> Floats:
        """That at least one of the two detectors clicks."""
        detector = self._profile.detector
        dark = 1 - detector.dark_count_probability
        silent: Floats = dark**2 * np.exp(-detector.efficiency * photons)
        return 1 - silent

    def _thin(self, light: Light) -> Light:
        probability = self._click_probability(light.photons) / self._click_probability(self._means)[0]
        # Compared as it is: an attack that brightens a pulse beyond the brightest would silently lose clicks.
        assert np.all(probability <= 1 + 1e-12), "an attack may not raise the mean photon number"
        kept = self._rng.random(light.indices.size) < probability
        return Light(light.indices[kept], light.bases[kept], light.bits[kept], light.photons[kept])

    def _measure(self, light: Light) -> Clicks:
        """Which detector clicked, given that one did. A double click becomes a random bit: dropping it would open a door."""
        size = light.indices.size
        bases = (self._rng.random(size) >= self._profile.source.p_key_basis).astype(np.uint8)
        detector, wrong = self._profile.detector, self._profile.fibre.misalignment
        stray = np.where(bases == light.bases, wrong, 0.5)
        reach = detector.efficiency * light.photons
        dark = 1 - detector.dark_count_probability
        right_silent, wrong_silent = dark * np.exp(-reach * (1 - stray)), dark * np.exp(-reach * stray)
        some = 1 - right_silent * wrong_silent
        # P(wrong | some): wrong alone, or half of both
        errs = ((1 - wrong_silent) * right_silent + 0.5 * (1 - wrong_silent) * (1 - right_silent)) / some
        bits = light.bits ^ (self._rng.random(size) < errs).astype(np.uint8)
        return Clicks(light.indices, bases, bits)

    def _blind(self, clicks: Clicks) -> Clicks:
        """Both detectors stay off for the dead time after every click."""
        dead = self._profile.dead_gates
        if dead == 0 or clicks.indices.size == 0:
            return clicks
        following = np.searchsorted(clicks.indices, clicks.indices + dead + 1).tolist()
        kept: list[int] = []
        place = int(np.searchsorted(clicks.indices, self._blind_until))
        while place < len(following):
            kept.append(place)
            place = following[place]
        if kept:
            self._blind_until = int(clicks.indices[kept[-1]]) + dead + 1
        return Clicks(clicks.indices[kept], clicks.bases[kept], clicks.bits[kept])
