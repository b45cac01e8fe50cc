"""What goes wrong with a link while nobody means harm, each with the strength that its first field states."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from keystrand.qkd.kernels.optics import response
from keystrand.qkd.optics_channel import raman_photons_per_gate
from keystrand.qkd.optics_disturb import Conditions, Light, Strength, dimmed
from keystrand.qkd.profile import Coexistence

CUT_DB: Final = 100.0


class Fault(Strength):
    """Something is worse than it was."""


@dataclass(frozen=True)
class FibreCut(Fault):
    """No light arrives any more. strength: 1 for a cut; less leaves that share of CUT_DB."""

    strength: float = 1.0
    name = "fibre-cut"

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        return dimmed(now, self.strength * CUT_DB)


@dataclass(frozen=True)
class LossStep(Fault):
    """A bend, a bad splice, a dirty connector. strength: dB of further loss."""

    strength: float
    name = "loss-step"
    is_share = False

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        return dimmed(now, self.strength)


@dataclass
class PolarisationDrift(Fault):
    """The bases of the two ends turn against each other. strength: radians per minute, from the beginning of the fault."""

    strength: float
    name = "polarisation-drift"
    is_share = False
    _elapsed_s: float = field(default=0.0, init=False)

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        self._elapsed_s += seconds
        turned = math.sin(self.strength * self._elapsed_s / 60) ** 2
        return replace(now, misalignment=now.misalignment + turned * (1 - 2 * now.misalignment))


@dataclass(frozen=True)
class Raman(Fault):
    """Classical channels are lit on the same fibre. strength: how many, each of 0 dBm, forward."""

    strength: float
    name = "raman"
    is_share = False

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        one = replace(now.profile, coexistence=Coexistence(forward=1))
        return replace(now, stray_photons=now.stray_photons + self.strength * raman_photons_per_gate(one))


@dataclass(frozen=True)
class DarkCountRise(Fault):
    """The detectors warm up. strength: how many times the usual dark counts come on top."""

    strength: float
    name = "dark-count-rise"
    is_share = False

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        return replace(now, dark_probability=min(0.5, now.dark_probability * (1 + self.strength)))


@dataclass(frozen=True)
class SyncLoss(Fault):
    """The ends count different pulses. strength: share of pulses that are taken for others; they come at any time in a gate."""

    strength: float
    name = "sync-loss"

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        half_s = now.profile.detector.skew_s / 2  # where one detector is at its best
        return replace(now, boost=now.boost * float(response(half_s, half_s, now.profile.detector.gate_s)))

    def light(self, light: Light, now: Conditions, rng: np.random.Generator) -> Light:
        size, source = light.indices.size, now.profile.source
        lost = rng.random(size) < self.strength
        other = rng.permutation(size)
        gate_s = now.profile.detector.gate_s
        return replace(
            light,
            bases=np.where(lost, rng.random(size) >= source.p_key_basis, light.bases).astype(np.uint8),
            bits=np.where(lost, rng.integers(0, 2, size), light.bits).astype(np.uint8),
            photons=np.where(lost, light.photons[other], light.photons),
            numbers=np.where(lost, light.numbers[other], light.numbers),
            weights=np.where(lost, light.weights[other], light.weights),
            offsets_s=np.where(lost, (rng.random(size) - 0.5) * gate_s, light.offsets_s),
        )


FAULTS: Final[dict[str, Callable[[float], Fault]]] = {
    kind.name: kind for kind in (FibreCut, LossStep, PolarisationDrift, Raman, DarkCountRise, SyncLoss)
}
