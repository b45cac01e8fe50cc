"""What the instruments of the two devices show beside the key: counts, times of arrival, currents, powers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.choices import Bits
from keystrand.qkd.optics_disturb import Conditions

BINS: Final = 32  # of the histogram of arrival times, over one gate
RESPONSIVITY_A_W: Final = 1.0  # of a photodiode at 1550 nm, without gain


@dataclass(slots=True)
class Readings:
    """Sums of the receiver's instruments over some trains.

    gates: pulses in all; seconds: of light; clicks: by detector (of a double click, the one that was drawn); doubles: gates in
    which both clicked; arrivals: histogram of arrival times in BINS bins over the gate, early first; moments_s: sums of the
    first three powers of the arrival time; charge_c: through the diodes; energy_j: of all light at the entrance;
    dead_gates: in which the detectors were held off.
    """

    gates: int = 0
    seconds: float = 0.0
    clicks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    doubles: int = 0
    arrivals: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    moments_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    charge_c: float = 0.0
    energy_j: float = 0.0
    dead_gates: int = 0

    def add(self, now: Conditions, gates: int, bits: Bits, doubles: Bits, offsets_s: NDArray[np.float32]) -> None:
        """One stretch of light and its clicks."""
        profile = now.profile
        seconds, width_s = gates / profile.source.clock_hz, profile.detector.gate_s
        self.gates += gates
        self.seconds += seconds
        self.clicks += np.bincount(bits, minlength=2)
        self.doubles += int(doubles.sum())
        self.arrivals += _histogram(offsets_s, width_s)
        late_s = offsets_s.astype(np.float64)
        squares = late_s * late_s
        self.moments_s += [
            late_s.sum(),
            squares.sum(),
            squares @ late_s,
        ]  # numpy's third power takes longer than all the rest
        avalanches = bits.size + int(doubles.sum())
        self.charge_c += avalanches * profile.detector.avalanche_c + RESPONSIVITY_A_W * now.receiver_w * seconds
        self.energy_j += now.receiver_w * seconds + gates * profile.source.photon_j * (
            now.mean_photons + now.stray_photons
        )
        self.dead_gates += bits.size * profile.dead_gates

    @property
    def total(self) -> int:
        """Gates that clicked."""
        return int(self.clicks.sum())

    @property
    def live_gates(self) -> int:
        """In which a click was possible."""
        return max(1, self.gates - self.dead_gates)

    @property
    def photocurrent_a(self) -> float:
        """Mean current through both diodes."""
        return self.charge_c / self.seconds if self.seconds else 0.0

    @property
    def entrance_w(self) -> float:
        """Mean power of light at the receiver's entrance."""
        return self.energy_j / self.seconds if self.seconds else 0.0

    @property
    def balance(self) -> float:
        """Share of clicks of detector 0."""
        return float(self.clicks[0]) / self.total if self.total else 0.5

    @property
    def double_ratio(self) -> float:
        """Gates in which both detectors clicked, as a share of those that clicked."""
        return self.doubles / self.total if self.total else 0.0

    @property
    def arrival_s(self) -> tuple[float, float, float]:
        """Mean and standard deviation of the arrival time, and its skewness (no unit)."""
        if self.total == 0:
            return 0.0, 0.0, 0.0
        first, second, third = self.moments_s / self.total
        variance = max(0.0, second - first**2)
        if variance == 0:
            return float(first), 0.0, 0.0
        central = third - 3 * first * second + 2 * first**3
        return float(first), float(np.sqrt(variance)), float(central / variance**1.5)


def _histogram(offsets_s: NDArray[np.float32], width_s: float) -> NDArray[np.int64]:
    """Counts by time; what lies outside the gate is in the outer bins."""
    places = ((offsets_s / width_s + 0.5) * BINS).astype(np.int64).clip(0, BINS - 1)
    return np.bincount(places, minlength=BINS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransmitterReadings:
    """What the transmitter's instruments show: its own laser against the set value, and light that comes in from outside."""

    source_ratio: float
    entrance_w: float


def transmitter_readings(now: Conditions, rng: np.random.Generator) -> TransmitterReadings:
    """With meters that are good to 0.5 % (laser) and 10 % (entrance)."""
    return TransmitterReadings(
        source_ratio=now.source_ratio * (1 + 0.005 * float(rng.standard_normal())),
        entrance_w=now.transmitter_w * max(0.0, 1 + 0.1 * float(rng.standard_normal())),
    )
