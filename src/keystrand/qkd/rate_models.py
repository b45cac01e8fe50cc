"""Rate models of protocols that the link engine does not run, for planning: all asymptotic, without finite-key effects."""

from __future__ import annotations

import math
from dataclasses import dataclass

from keystrand.qkd.distill.estimate import binary_entropy


@dataclass(frozen=True, kw_only=True, slots=True)
class EntangledPairs:
    """BBM92 with a source of photon pairs in the middle: Ma, Fung and Lo, Phys. Rev. A 76, 012307 (2007), eqs. 9, 10, 22.

    clock_hz: pump pulses per second; mean_pairs: per pulse; efficiency: of each receiver, all its losses; dark: counts
    per gate and receiver; misalignment: share of errors of light; f_ec: inefficiency of error correction.
    """

    clock_hz: float
    mean_pairs: float
    efficiency: float
    dark: float
    misalignment: float
    f_ec: float = 1.22

    def rate(self, loss_db: float) -> tuple[float, float]:
        """Secret bits per second and error rate, where the channel loses `loss_db` in all, half of it on either side."""
        lam, eta = self.mean_pairs / 2, self.efficiency * 10 ** (-loss_db / 20)
        one = (1 - self.dark) / (1 + eta * lam) ** 2
        both = 1 + 2 * eta * lam - eta**2 * lam
        gain = 1 - 2 * one + (1 - self.dark) ** 2 / both**2
        light = 2 * (0.5 - self.misalignment) * eta**2 * lam * (1 + lam) / ((1 + eta * lam) ** 2 * both)
        qber = 0.5 - light / gain
        return self.clock_hz * max(0.0, gain / 2 * (1 - (1 + self.f_ec) * binary_entropy(qber))), qber


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianStates:
    """GG02 with homodyne detection and reverse reconciliation: Lodewyck et al., Phys. Rev. A 76, 042305 (2007), eqs. 5 to 14.

    clock_hz: symbols per second; variance: of the modulation, in shot noise units; excess_noise: at the channel's input;
    efficiency, electronic_noise: of the homodyne detector; beta: efficiency of reconciliation.
    """

    clock_hz: float
    variance: float
    excess_noise: float
    efficiency: float
    electronic_noise: float
    beta: float

    def rate(self, loss_db: float) -> tuple[float, float]:
        """Secret bits per second, and mutual information of the ends in bits per symbol."""
        T, V = 10 ** (-loss_db / 10), self.variance + 1
        line = 1 / T - 1 + self.excess_noise
        hom = (1 - self.efficiency + self.electronic_noise) / self.efficiency
        total = line + hom / T
        shared = 0.5 * math.log2((V + total) / (1 + total))
        A = V**2 * (1 - 2 * T) + 2 * T + T**2 * (V + line) ** 2
        B = T**2 * (V * line + 1) ** 2
        C = (A * hom + V * math.sqrt(B) + T * (V + line)) / (T * (V + total))
        D = math.sqrt(B) * (V + math.sqrt(B) * hom) / (T * (V + total))
        holevo = sum(_thermal(x) for x in _symplectic(A, B)) - sum(_thermal(x) for x in _symplectic(C, D))
        return self.clock_hz * max(0.0, self.beta * shared - holevo), shared


def _symplectic(a: float, b: float) -> tuple[float, float]:
    root = math.sqrt(max(0.0, a * a - 4 * b))
    return math.sqrt((a + root) / 2), math.sqrt(max(1.0, (a - root) / 2))


def _thermal(symplectic: float) -> float:
    """Entropy of a thermal state with this symplectic eigenvalue."""
    x = (symplectic - 1) / 2
    return (x + 1) * math.log2(x + 1) - x * math.log2(x) if x > 1e-15 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TwinField:
    """Twin-field QKD as phase matching: Ma, Zeng and Zhou, Phys. Rev. X 8, 031043 (2018), eqs. 3 and B22 to B28.

    clock_hz: pulses per second; mu: mean photon number of both sides together; efficiency: of the middle's detectors; dark:
    counts per gate and detector; phase_slices: into which the phase is sorted; misalignment: of the interference; f_ec:
    inefficiency of error correction.
    """

    clock_hz: float
    mu: float
    efficiency: float
    dark: float
    phase_slices: int
    misalignment: float
    f_ec: float = 1.15

    def rate(self, loss_db: float) -> tuple[float, float]:
        """Secret bits per second and error rate; the middle station is half way."""
        eta, dark = self.efficiency * 10 ** (-loss_db / 20), self.dark
        gain = 1 - (1 - 2 * dark) * math.exp(-eta * self.mu)
        angle = math.pi / self.phase_slices
        astray = self.misalignment + angle - math.sin(angle) ** 3 / angle**2
        qber = (dark + eta * self.mu * astray) * math.exp(-eta * self.mu) / gain
        odd = wrong = 0.0
        for n in range(1, 40, 2):
            poisson = math.exp(-self.mu) * self.mu**n / math.factorial(n)
            light = 1 - (1 - eta) ** n
            odd += poisson * (1 - (1 - 2 * dark) * (1 - light)) / gain
            wrong += poisson * (dark * (1 - light) + light * astray) / gain
        vacuum = math.exp(-self.mu) * 2 * dark / gain
        phase = min(0.5, vacuum / 2 + wrong + max(0.0, 1 - vacuum - odd))
        bits = gain * (1 - self.f_ec * binary_entropy(min(0.5, qber)) - binary_entropy(phase))
        return self.clock_hz * 2 / self.phase_slices * max(0.0, bits), qber


Model = EntangledPairs | GaussianStates | TwinField
