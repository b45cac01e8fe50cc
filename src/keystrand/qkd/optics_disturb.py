"""What acts between source and detector: the interface of attacks and faults, and what they act upon.

A `Disturbance` has two hooks. `conditions` changes what holds for a whole train: brightness, loss, alignment, background,
what the power meters read. `light` changes single pulses. Attacks are in `optics_attacks.py`, faults in `optics_faults.py`;
each has a strength and composes with the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.choices import Bits, Choices, Indices
from keystrand.qkd.kernels import optics as kernels
from keystrand.qkd.profile import LinkProfile

Floats = NDArray[np.float64]

METER_FLOOR_W: Final = 1e-12  # what a power meter at an entrance reads in the dark


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The link during one train.

    transmittance: of the channel to the receiver's detectors; misalignment: share of photons at the wrong port;
    dark_probability: per detector and gate; stray_photons: mean photons per gate at the entrance that no pulse brought;
    brightness: mean photon numbers, as a multiple of those that were set; boost: how much more
    likely a disturbance makes a click than the brightest pulse does; candidates: probability with which gates are looked at
    (filled in by the channel, a disturbance may raise it); blinded: share of the time that the detectors do not count photons;
    source_ratio: what the transmitter's own meter shows of its laser, as a multiple of what was set; transmitter_w, receiver_w:
    power of light that enters either device beyond the pulses.
    """

    profile: LinkProfile
    transmittance: float
    misalignment: float
    dark_probability: float
    stray_photons: float = 0.0
    brightness: float = 1.0
    boost: float = 1.0
    candidates: float = 0.0
    blinded: float = 0.0
    source_ratio: float = 1.0
    transmitter_w: float = METER_FLOOR_W
    receiver_w: float = METER_FLOOR_W

    @property
    def sent_photons(self) -> tuple[float, ...]:
        """Mean photon numbers as they leave the transmitter, by intensity."""
        return tuple(self.brightness * mean for mean in self.profile.source.intensities)

    @property
    def photons(self) -> tuple[float, ...]:
        """The same at the detectors."""
        return tuple(self.transmittance * mean for mean in self.sent_photons)

    @property
    def dark_per_gate(self) -> tuple[float, float]:
        """Counts without a signal photon, per live gate, of either detector."""
        low, high = (
            1 - (1 - self.dark_probability) * math.exp(-eta * self.stray_photons / 2)
            for eta in self.profile.detector.efficiencies
        )
        return low, high

    @property
    def mean_photons(self) -> float:
        """Per pulse at the detectors, over all intensities."""
        return sum(p * mean for p, mean in zip(self.profile.source.shares, self.photons, strict=True))

    def figures(self) -> Floats:
        """As the kernel wants them."""
        detector, clock_hz = self.profile.detector, self.profile.source.clock_hz
        out = np.zeros(kernels.FIGURES)
        out[kernels.ETA0], out[kernels.ETA1] = detector.efficiencies
        out[kernels.DARK0], out[kernels.DARK1] = self.dark_per_gate
        out[kernels.STRAY] = self.misalignment
        out[kernels.KEY_BASIS_SHARE] = self.profile.source.p_key_basis
        out[kernels.AFTER] = detector.afterpulse_probability
        out[kernels.AFTER_RATE] = -math.expm1(-1 / (detector.afterpulse_time_s * clock_hz))
        out[kernels.JITTER_S], out[kernels.GATE_S] = detector.jitter_s, detector.gate_s
        out[kernels.SKEW_S], out[kernels.BLINDED] = detector.skew_s, self.blinded
        out[kernels.DEAD_GATES] = self.profile.dead_gates
        return out


@dataclass(frozen=True, slots=True)
class Light:
    """Candidate pulses at the receiver's entrance, as arrays of one length.

    indices, bases, bits, intensities: as sent (an attacker may encode anew); photons: mean at the detectors; numbers:
    `COHERENT`, `BRIGHT` (of a blinded detector), or how many photons the pulse holds, each arriving with probability
    `photons`; weights: by how much a click is likelier, given that the pulse was drawn at all; offsets_s: how late it comes.

    An attacker that reads more of it than its disturbance would let her is stronger than physics allows.
    """

    indices: Indices
    bases: Bits
    bits: Bits
    intensities: Bits
    photons: Floats
    numbers: NDArray[np.int8]
    weights: Floats
    offsets_s: Floats

    @classmethod
    def coherent(cls, indices: Indices, sent: Choices, photons: Floats, *, weight: float) -> Light:
        size = indices.size
        return cls(
            indices,
            sent.bases,
            sent.bits,
            sent.intensities,
            photons,
            np.full(size, kernels.COHERENT, np.int8),
            np.full(size, weight),
            np.zeros(size),
        )


class Disturbance:
    """Something that acts on a link. By itself it does nothing; subclasses change what they must."""

    def conditions(self, now: Conditions, seconds: float) -> Conditions:
        """What holds during the next `seconds` of light."""
        return now

    def light(self, light: Light, now: Conditions, rng: np.random.Generator) -> Light:
        """What becomes of single pulses. May not make a click likelier than `Conditions.candidates` over weight."""
        return light


class Strength(Disturbance):
    """A disturbance whose first argument states how strong it is: as a share, or as any figure from 0 on."""

    name: ClassVar[str]
    is_share: ClassVar[bool] = True
    strength: float

    def __post_init__(self) -> None:
        (require_share if self.is_share else require_positive)(self.strength)


def require_share(strength: float) -> None:
    """Raises ValueError unless it is a share."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} is outside 0 .. 1")


def require_positive(strength: float) -> None:
    """Raises ValueError unless it is at least 0 and finite."""
    if not 0 <= strength < math.inf:
        raise ValueError(f"strength={strength} is negative or not finite")


def dimmed(now: Conditions, loss_db: float) -> Conditions:
    """With so much more loss."""
    return replace(now, transmittance=now.transmittance * 10 ** (-loss_db / 10))
