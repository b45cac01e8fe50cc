"""What one block shows of its link: the record that a monitor judges by. Counts and readings only, no bit of any key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keystrand.core.events import Scalar
from keystrand.qkd.distill.estimate import Counts
from keystrand.qkd.optics_readings import Readings, TransmitterReadings

INTENSITIES: Final = ("signal", "decoy", "vacuum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observables:
    """One block as one end saw it.

    pulses: sent for it; p_key_basis: share of the key basis; counts: sifted bits and errors by basis and intensity
    (errors of the key basis are known after correction, 0 before); readings: the receiver's instruments, of the receiver only;
    transmitter: the transmitter's, of the transmitter only.
    """

    pulses: int
    p_key_basis: float
    counts: Counts
    readings: Readings | None = None
    transmitter: TransmitterReadings | None = None

    @property
    def gains(self) -> tuple[float, ...]:
        """Sifted clicks per pulse in matching bases, by intensity."""
        matching = self.p_key_basis**2 + (1 - self.p_key_basis) ** 2
        seen = zip(self.counts.key, self.counts.test, self.counts.shares, strict=True)
        return tuple((key + test) / (self.pulses * share * matching) for key, test, share in seen)

    @property
    def qber_key(self) -> tuple[float, ...]:
        """Error rate of the key basis, by intensity."""
        return _rates(self.counts.key_errors, self.counts.key)

    @property
    def qber_test(self) -> tuple[float, ...]:
        """Error rate of the test basis, by intensity."""
        return _rates(self.counts.test_errors, self.counts.test)

    def fields(self) -> dict[str, Scalar]:
        """As an event carries it."""
        out: dict[str, Scalar] = {"pulses": self.pulses}
        for name, values in (("gain", self.gains), ("qber_key", self.qber_key), ("qber_test", self.qber_test)):
            out |= {f"{name}_{word}": value for word, value in zip(INTENSITIES, values, strict=False)}
        if self.readings is not None:
            out |= _of_receiver(self.readings)
        if self.transmitter is not None:
            out |= {
                "source_ratio": self.transmitter.source_ratio,
                "transmitter_entrance_w": self.transmitter.entrance_w,
            }
        return out


def _rates(errors: tuple[float, ...], seen: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(wrong / all_ if all_ else 0.0 for wrong, all_ in zip(errors, seen, strict=True))


def _of_receiver(readings: Readings) -> dict[str, Scalar]:
    mean_s, deviation_s, skewness = readings.arrival_s
    return {
        "click_ratio": readings.total / readings.live_gates,
        "double_ratio": readings.double_ratio,
        "detector_balance": readings.balance,
        "arrival_mean_s": mean_s,
        "arrival_deviation_s": deviation_s,
        "arrival_skewness": skewness,
        "photocurrent_a": readings.photocurrent_a,
        "entrance_w": readings.entrance_w,
    }
