"""How many bits of a block Eve knows nothing of: finite-key bounds of decoy-state BB84.

Three published bounds as pure functions of counts. "Key" is the basis that makes the key, "test" the other one (the papers
disagree on which of X and Z that is). Leakage is always what was really disclosed, never a model of it.

Sources: Wiesemann, Krause, Tupkary, Lütkenhaus, Rusca, Walenta, arXiv:2405.16578v3, §4 and §6.2 (default); Rusca et al.,
Appl. Phys. Lett. 112, 171104 (2018), Appendix A; Lim et al., Phys. Rev. A 89, 022307 (2014), eqs. 1 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from keystrand.qkd.profile import Proof

Pair = tuple[float, float]  # one figure per intensity, the stronger first


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What both ends know of one block: clicks and errors by intensity (signal first), with the intensities as sent.

    key, test: sifted bits; key_errors, test_errors: those that differ between the ends. `intensities` are mean photon
    numbers and `shares` their probabilities.
    """

    intensities: tuple[float, ...]
    shares: tuple[float, ...]
    key: tuple[float, ...]
    key_errors: tuple[float, ...]
    test: tuple[float, ...]
    test_errors: tuple[float, ...]

    def __post_init__(self) -> None:
        for clicks, errors in ((self.key, self.key_errors), (self.test, self.test_errors)):
            if any(not 0 <= wrong <= all_ for wrong, all_ in zip(errors, clicks, strict=True)):
                raise ValueError("more errors than clicks, or a negative count")

    @property
    def qber(self) -> float:
        """Error rate of the key basis (0 where nothing was seen)."""
        return sum(self.key_errors) / sum(self.key) if sum(self.key) else 0.0

    @property
    def qber_test(self) -> float:
        """Error rate of the test basis (0 where nothing was seen)."""
        return sum(self.test_errors) / sum(self.test) if sum(self.test) else 0.0


def binary_entropy(p: float) -> float:
    """Shannon entropy of a coin, in bits."""
    if not 0 < p < 1:
        return 0.0
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def deviation(n: float, eps: float) -> float:
    """Hoeffding's bound on how far a count out of n strays from its mean, but for probability eps."""
    return math.sqrt(n / 2 * math.log(1 / eps))


def tau(photons: int, counts: Counts) -> float:
    """Probability that a pulse holds so many photons, over all intensities."""
    pairs = zip(counts.intensities, counts.shares, strict=True)
    return sum(p * math.exp(-k) * k**photons for k, p in pairs) / math.factorial(photons)


def _scale(counts: Counts, index: int) -> float:
    return math.exp(counts.intensities[index]) / counts.shares[index]


def _clip(value: float, top: float) -> float:
    return max(0.0, min(value, top))


def _vacuum_upper(counts: Counts, clicks: Sequence[float], errors: Sequence[float], eps: float) -> float:
    """Upper bound on vacuum clicks of one basis: half of them are errors. The best of the two intensities."""
    n, m = sum(clicks), sum(errors)
    slack = deviation(n, eps)
    bounds = [
        2 * (tau(0, counts) * _scale(counts, k) * min(errors[k] + deviation(m, eps), m) + slack)
        for k in range(len(errors))
    ]
    return _clip(min(bounds), n)


def _vacuum_lower(counts: Counts, clicks: Sequence[float], eps: float) -> float:
    mu, nu = counts.intensities
    n = sum(clicks)
    strong = _scale(counts, 0) * _clip(clicks[0] + deviation(n, eps), n)
    weak = _scale(counts, 1) * _clip(clicks[1] - deviation(n, eps), n)
    return _clip(tau(0, counts) / (mu - nu) * (mu * weak - nu * strong), n)


def _single_lower(counts: Counts, clicks: Sequence[float], errors: Sequence[float], eps: float) -> float:
    """Lower bound on clicks of one basis that came of exactly one photon."""
    mu, nu = counts.intensities
    n = sum(clicks)
    strong = _scale(counts, 0) * _clip(clicks[0] + deviation(n, eps), n)
    weak = _scale(counts, 1) * _clip(clicks[1] - deviation(n, eps), n)
    vacuum = _vacuum_upper(counts, clicks, errors, eps) / tau(0, counts)
    bound = weak - (nu / mu) ** 2 * strong - (mu**2 - nu**2) / mu**2 * vacuum
    return _clip(tau(1, counts) * mu / (nu * (mu - nu)) * bound, n)


def _single_errors_upper(counts: Counts, eps: float) -> float:
    """Upper bound on errors of the test basis that came of exactly one photon."""
    mu, nu = counts.intensities
    m = sum(counts.test_errors)
    strong = _scale(counts, 0) * _clip(counts.test_errors[0] + deviation(m, eps), m)
    weak = _scale(counts, 1) * _clip(counts.test_errors[1] - deviation(m, eps), m)
    return _clip(tau(1, counts) / (mu - nu) * (strong - weak), sum(counts.test))


def serfling(c: float, d: float, eps: float) -> float:
    """How far the error rate of c unseen bits may exceed that of d seen ones (arXiv:2405.16578, §4.2)."""
    return math.sqrt((c + d) / (c * d) * (d + 1) / d * math.log(1 / eps))


def random_sampling(eps: float, rate: float, c: float, d: float) -> float:
    """The same by Fung, Ma and Chau, as used by Lim and Rusca (gamma there)."""
    if not 0 < rate < 1:
        return serfling(c, d, eps)
    spread = (c + d) / (c * d)
    return math.sqrt(
        max(0.0, spread * (1 - rate) * rate / math.log(2) * math.log2(spread / ((1 - rate) * rate) / eps**2))
    )


def wiesemann(counts: Counts, *, leak_bits: float, eps_sec: float, eps_cor: float) -> float:
    """Secret bits of a one-decoy block, Wiesemann et al. 2024; negative where there are none."""
    eps = eps_sec / 15
    single = _single_lower(counts, counts.key, counts.key_errors, eps)
    single_test = _single_lower(counts, counts.test, counts.test_errors, eps)
    phase = 0.5
    if single > 0 and single_test > 0:
        phase = min(0.5, _single_errors_upper(counts, eps) / single_test + serfling(single, single_test, eps))
    cost = math.log2(2 / eps_cor) + 4 * math.log2(15 / (eps_sec * 2**0.25))
    return single * (1 - binary_entropy(phase)) - leak_bits - cost


def rusca(counts: Counts, *, leak_bits: float, eps_sec: float, eps_cor: float) -> float:
    """Secret bits of a one-decoy block, Rusca et al. 2018; negative where there are none.

    Kept for comparison with published rates: arXiv:2405.16578 names gaps in its proof.
    """
    eps = eps_sec / 19
    single = _single_lower(counts, counts.key, counts.key_errors, eps)
    single_test = _single_lower(counts, counts.test, counts.test_errors, eps)
    phase = 0.5
    if single > 0 and single_test > 0:
        rate = min(0.5, _single_errors_upper(counts, eps) / single_test)
        phase = min(0.5, rate + random_sampling(eps, rate, single_test, single))
    vacuum = _vacuum_lower(counts, counts.key, eps)
    cost = 6 * math.log2(19 / eps_sec) + math.log2(2 / eps_cor)
    return vacuum + single * (1 - binary_entropy(phase)) - leak_bits - cost


def _lim_photons(counts: Counts, clicks: Sequence[float], eps: float) -> Pair:
    """Lower bounds on vacuum and single-photon clicks of one basis from three intensities."""
    k1, k2, k3 = counts.intensities
    slack = deviation(sum(clicks), eps)
    low = [_scale(counts, k) * max(0.0, n - slack) for k, n in enumerate(clicks)]
    high = [_scale(counts, k) * (n + slack) for k, n in enumerate(clicks)]
    vacuum = max(0.0, tau(0, counts) * (k2 * low[2] - k3 * high[1]) / (k2 - k3))
    many = (k2**2 - k3**2) / k1**2 * (high[0] - vacuum / tau(0, counts))
    single = tau(1, counts) * k1 * (low[1] - high[2] - many) / (k1 * (k2 - k3) - k2**2 + k3**2)
    return vacuum, max(0.0, single)


def lim(counts: Counts, *, leak_bits: float, eps_sec: float, eps_cor: float) -> float:
    """Secret bits of a two-decoy block (mu1 > mu2 + mu3, mu2 > mu3 >= 0), Lim et al. 2014; negative where there are none."""
    eps = eps_sec / 21
    _, k2, k3 = counts.intensities
    vacuum, single = _lim_photons(counts, counts.key, eps)
    _, single_test = _lim_photons(counts, counts.test, eps)
    slack = deviation(sum(counts.test_errors), eps)
    weak = _scale(counts, 1) * (counts.test_errors[1] + slack)
    weakest = _scale(counts, 2) * max(0.0, counts.test_errors[2] - slack)
    phase = 0.5
    if single > 0 and single_test > 0:
        rate = _clip(tau(1, counts) * (weak - weakest) / (k2 - k3) / single_test, 0.5)
        phase = min(0.5, rate + random_sampling(eps, rate, single_test, single))
    cost = 6 * math.log2(21 / eps_sec) + math.log2(2 / eps_cor)
    return vacuum + single * (1 - binary_entropy(phase)) - leak_bits - cost


def bound_bits(counts: Counts, *, proof: Proof, leak_bits: int, eps_sec: float, eps_cor: float) -> int:
    """The most bits that a block may yield: floor of the chosen bound, never negative, never more than was sifted."""
    formula = {Proof.WIESEMANN: wiesemann, Proof.RUSCA: rusca, Proof.LIM: lim}[proof]
    value = formula(counts, leak_bits=leak_bits, eps_sec=eps_sec, eps_cor=eps_cor)
    return max(0, min(math.floor(value), int(sum(counts.key)) - leak_bits))
