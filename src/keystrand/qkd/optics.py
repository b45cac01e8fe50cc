"""The photons: the only simulated part of a link. Weak pulses through a lossy channel into two gated detectors.

Where the border runs: what the transmitter puts on the quantum channel is a pulse train, that is, the seed of her choices and
a number of pulses. Real light would carry the choices physically; here `QuantumChannel` holds the seed and nobody else at the
receiver's end may. The protocol code of the receiver gets `Clicks` (index, basis, bit) and no more. So the connection that
carries pulse trains stands for the fibre: whoever reads it knows what no reader of a fibre can know, and it must not leave
the machine or the laboratory network.

Only gates in which something may happen are drawn (`kernels/optics.py`), so the cost follows the clicks and not the clock.
What attackers and faults do hooks in between source and detector, see `optics_disturb.py`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keystrand.core.secret import Secret
from keystrand.qkd.choices import Bits, ChoiceStream, Indices
from keystrand.qkd.kernels import aes
from keystrand.qkd.kernels import optics as kernels
from keystrand.qkd.kernels.shine import shine
from keystrand.qkd.optics_channel import Wander, quiet_conditions
from keystrand.qkd.optics_disturb import Conditions, Disturbance, Light
from keystrand.qkd.optics_readings import Readings
from keystrand.qkd.profile import LinkProfile

Found = tuple[Indices, Bits, Bits]
Out = tuple[Indices, Bits, Bits, Bits, NDArray[np.float32]]

NOISE_SIGMAS_MAX: Final = 4.0  # intensity noise is cut off there, so that no pulse is brighter than the bound
CANDIDATES_MAX: Final = 200_000  # drawn at a time: what they need stays in the processor's cache


@dataclass(frozen=True, slots=True)
class Clicks:
    """What the receiver's detectors say: pulse index, the basis that was measured in, the bit. Same length, ascending."""

    indices: Indices
    bases: Bits
    bits: Bits


class QuantumChannel:
    """Source, channel, what disturbs it, and the receiver's detectors, for one run. `detect` turns pulse trains into clicks.

    rng draws detections and the receiver's bases; it must be seeded from the operating system outside of tests.
    `disturbances` may be exchanged between trains; they act in their order. `readings` are what the receiver's instruments
    have shown since they were last taken.
    """

    def __init__(
        self,
        seed: Secret,
        profile: LinkProfile,
        *,
        rng: np.random.Generator,
        disturbances: Sequence[Disturbance] = (),
    ) -> None:
        self._profile = profile
        self._choices = ChoiceStream(seed, profile.source)
        self._keys, self._rules = aes.expand(seed.reveal()), self._choices.rules()
        self._rng = rng
        self._quiet = quiet_conditions(profile)
        self._wander = Wander(profile, rng)
        self._state = np.zeros(kernels.STATES, np.int64)
        self._state[kernels.AFTER_GATE] = kernels.FAR
        self.disturbances = tuple(disturbances)
        self.readings = Readings()
        self._whole = threading.Lock()

    def take_readings(self) -> Readings:
        """Of all trains since the last call. From any thread: what is being added is in it whole, or in the next."""
        with self._whole:
            taken, self.readings = self.readings, Readings()
        return taken

    def detect(self, first: int, count: int) -> Clicks:
        """Clicks among the pulses first .. first + count - 1. Trains must come in order."""
        now = self._conditions(count / self._profile.source.clock_hz)
        step = max(1, int(CANDIDATES_MAX / max(now.candidates, 1e-12)))
        chunk = self._chunk
        if aes.available and not self.disturbances:
            step, chunk = count, self._straight
        parts = [chunk(now, at, min(first + count, at + step)) for at in range(first, first + count, step)]
        assert self._state[kernels.OVERFLOWS] == 0, "a disturbance may not make light brighter than it declares"
        indices, bases, bits = (np.concatenate([part[k] for part in parts]) for k in range(3))
        return Clicks(indices, bases, bits)

    def _conditions(self, seconds: float) -> Conditions:
        """Of the next train: as the profile says, drifted, disturbed."""
        now = self._wander.step(self._quiet, seconds)
        for disturbance in self.disturbances:
            now = disturbance.conditions(now, seconds)
        brightest = max(now.photons) * (1 + NOISE_SIGMAS_MAX * self._profile.source.intensity_noise)
        honest = -math.expm1(-max(self._profile.detector.efficiencies) * brightest * now.boost)
        return replace(now, candidates=min(1.0, max(now.candidates, honest)))

    def _chunk(self, now: Conditions, first: int, stop: int) -> Found:
        light = self._arrivals(now, first, stop)
        for disturbance in self.disturbances:
            light = disturbance.light(light, now, self._rng)
        out = self._room(now, stop - first, light.indices.size)
        found = kernels.receive(
            self._rng,
            first,
            stop,
            light.indices,
            light.bases,
            light.bits,
            light.photons,
            light.numbers,
            light.weights,
            light.offsets_s,
            self._rng.random((2, light.indices.size)),
            now.figures(),
            self._state,
            *out,
        )
        return self._read(now, stop - first, found, out)

    def _straight(self, now: Conditions, first: int, stop: int) -> Found:
        """The same where nobody disturbs the light: candidates in the dead time are never drawn."""
        mean = (stop - first) * now.candidates
        out = self._room(now, stop - first, int(mean + 8 * math.sqrt(mean) + 32))
        noise = self._profile.source.intensity_noise
        photons = np.asarray(now.photons)
        chances = (photons, noise, NOISE_SIGMAS_MAX, now.candidates, now.figures(), self._state)
        found = shine(self._rng, first, stop, self._keys, self._rules, *chances, *out)
        return self._read(now, stop - first, found, out)

    def _room(self, now: Conditions, gates: int, candidates: int) -> Out:
        """Room for every click that can be, or nearly: gates, bases, bits, double clicks, times of arrival."""
        spare = 64 + int(4 * gates * sum(now.dark_per_gate))
        size = min(2 * candidates + spare + 8 * math.isqrt(spare), gates // (self._profile.dead_gates + 1) + 1)
        bases, bits, doubles = (np.empty(size, np.uint8) for _ in range(3))
        return np.empty(size, np.int64), bases, bits, doubles, np.empty(size, np.float32)

    def _read(self, now: Conditions, gates: int, found: int, out: Out) -> Found:
        """Let the instruments see so many clicks of a stretch of light; what the protocol sees of them."""
        indices, bases, bits, doubles, offsets_s = out
        with self._whole:
            self.readings.add(now, gates, bits[:found], doubles[:found], offsets_s[:found])
        return indices[:found], bases[:found], bits[:found]

    def _arrivals(self, now: Conditions, first: int, stop: int) -> Light:
        """Every pulse that could click, as it reaches the receiver's entrance undisturbed."""
        mean = (stop - first) * now.candidates
        room = np.empty(int(mean + 8 * math.sqrt(mean) + 32), np.int64)
        indices = room[: kernels.gaps(self._rng, now.candidates, first, stop, room)]
        sent = self._choices.at(indices)
        photons = np.asarray(now.photons)[sent.intensities]
        if self._profile.source.intensity_noise:
            drawn = self._rng.standard_normal(indices.size).clip(-NOISE_SIGMAS_MAX, NOISE_SIGMAS_MAX)
            photons *= 1 + self._profile.source.intensity_noise * drawn
        return Light.coherent(indices, sent, photons, weight=1 / now.candidates)
