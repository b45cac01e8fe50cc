"""What a link of a profile gives on average: gains, error rates, and the secret key that the finite-key bound allows.

The same physics as the sampler of `optics.py`, in closed form: clicks are a renewal process of dead time, light, dark counts
and at most one afterpulse. The bound is the one that the running link uses. Every figure from here is *simulated*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from keystrand.qkd.distill.estimate import Counts, binary_entropy, bound_bits
from keystrand.qkd.optics_channel import quiet_conditions
from keystrand.qkd.optics_disturb import Conditions
from keystrand.qkd.profile import LinkProfile

F_EC: Final = 1.05  # error correction of the link engine, see bench_distill
TAG_BITS: Final = 128  # verification and error counts of a block


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Of one link, on average: clicks per pulse in all, and gain and error rate by intensity, in matching bases."""

    clicks_per_pulse: float
    gains: tuple[float, ...]
    errors: tuple[float, ...]

    def counts(self, profile: LinkProfile, pulses: float) -> Counts:
        """Mean counts of so many pulses."""
        source = profile.source
        key, test = pulses * source.p_key_basis**2, pulses * (1 - source.p_key_basis) ** 2
        seen = [share * gain for share, gain in zip(source.shares, self.gains, strict=True)]
        wrong = [clicks * error for clicks, error in zip(seen, self.errors, strict=True)]
        return Counts(
            intensities=source.intensities,
            shares=source.shares,
            key=tuple(key * s for s in seen),
            key_errors=tuple(key * w for w in wrong),
            test=tuple(test * s for s in seen),
            test_errors=tuple(test * w for w in wrong),
        )


def live_gate(now: Conditions, photons: float) -> tuple[float, float]:
    """Of a gate in which the detectors are live, in matching bases: chance of a click, and of one with the wrong bit.

    Detectors click independently; a double click is a random bit. Unequal detectors are averaged over the bit that is sent.
    """
    dark0, dark1 = now.dark_per_gate
    eta0, eta1 = now.profile.detector.efficiencies
    some = wrong = 0.0
    for right, other, dark_right, dark_other in ((eta0, eta1, dark0, dark1), (eta1, eta0, dark1, dark0)):
        right_silent = (1 - dark_right) * math.exp(-right * photons * (1 - now.misalignment))
        wrong_silent = (1 - dark_other) * math.exp(-other * photons * now.misalignment)
        some += (1 - right_silent * wrong_silent) / 2
        wrong += (1 - wrong_silent) * (1 + right_silent) / 4
    return some, wrong


def expected(now: Conditions) -> Expected:
    """Of a link in these conditions. Clicks renew everything, so their rate is one over the mean time between them."""
    profile = now.profile
    gates = [live_gate(now, photons) for photons in now.photons]
    some = sum(share * click for share, (click, _) in zip(profile.source.shares, gates, strict=True))
    detector = profile.detector
    release = -math.expm1(-1 / (detector.afterpulse_time_s * profile.source.clock_hz))
    after = detector.afterpulse_probability
    either = some + release - some * release
    if some == 0:
        return Expected(clicks_per_pulse=0.0, gains=(0.0,) * len(gates), errors=(0.5,) * len(gates))
    clicks = 1 / (profile.dead_gates + (1 - after) / some + after / either)
    alone = after * release * (1 - some) / either  # share of clicks that are afterpulses and nothing else
    gains, errors = [], []
    for click, wrong in gates:
        own, late = clicks * (1 - alone) * click / some, clicks * alone * (1 - click) / (1 - some)
        gains.append(own + late)
        errors.append((own * wrong / click + late / 2) / (own + late) if own + late else 0.5)
    return Expected(clicks_per_pulse=clicks, gains=tuple(gains), errors=tuple(errors))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A link on average. block_s: time to fill a block, which is also the time to the first key; plob_bps: what no link
    without repeaters can exceed at this loss, -log2(1 - transmittance) per pulse (Pirandola et al. 2017); asymptotic_bps: of
    blocks without end at the same settings."""

    loss_db: float
    clicks_per_s: float
    sifted_bps: float
    qber: float
    qber_test: float
    block_sifted_bits: int
    block_s: float
    secret_bits: int
    skr_bps: float
    asymptotic_bps: float
    plob_bps: float


def plob_bits(loss_db: float) -> float:
    """Secret bits per pulse at most, at this loss between the devices."""
    eta: float = 10 ** (-loss_db / 10)
    return math.inf if eta >= 1 else -math.log1p(-eta) / math.log(2)


def rate(profile: LinkProfile, *, f_ec: float = F_EC) -> Rate:
    """What the link of this profile gives. `f_ec`: disclosed bits of error correction over Shannon's limit."""
    now = quiet_conditions(profile)
    mean = expected(now)
    clock_hz, rules = profile.source.clock_hz, profile.distillation
    per_pulse = sum(mean.counts(profile, 1.0).key)
    pulses = rules.block_sifted_bits / per_pulse if per_pulse > 0 else math.inf
    loss_db = profile.loss_db
    plob_bps = clock_hz * plob_bits(loss_db - profile.fibre.insertion_loss_db)
    if not math.isfinite(pulses):
        return Rate(
            loss_db=loss_db,
            clicks_per_s=0.0,
            sifted_bps=0.0,
            qber=0.5,
            qber_test=0.5,
            block_sifted_bits=rules.block_sifted_bits,
            block_s=math.inf,
            secret_bits=0,
            skr_bps=0.0,
            asymptotic_bps=0.0,
            plob_bps=plob_bps,
        )
    counts = mean.counts(profile, pulses)
    leak = math.ceil(f_ec * rules.block_sifted_bits * binary_entropy(counts.qber)) + TAG_BITS
    secret = 0
    if max(counts.qber, counts.qber_test) <= rules.qber_abort:
        secret = bound_bits(counts, proof=rules.proof, leak_bits=leak, eps_sec=rules.eps_sec, eps_cor=rules.eps_cor)
    block_s = pulses / clock_hz
    uptime = profile.free_space.availability if profile.free_space is not None else 1.0
    return Rate(
        loss_db=loss_db,
        clicks_per_s=clock_hz * mean.clicks_per_pulse,
        sifted_bps=rules.block_sifted_bits / block_s,
        qber=counts.qber,
        qber_test=counts.qber_test,
        block_sifted_bits=rules.block_sifted_bits,
        block_s=block_s,
        secret_bits=secret,
        skr_bps=uptime * secret / block_s,
        asymptotic_bps=uptime
        * clock_hz
        * profile.source.p_mu
        * profile.source.p_key_basis**2
        * asymptotic_bits(now, f_ec=f_ec),
        plob_bps=plob_bps,
    )


def asymptotic_bits(now: Conditions, *, f_ec: float, used: int | None = None) -> float:
    """Secret bits per pulse in the key basis with vacuum and one weak decoy, without finite-key effects: Ma, Qi, Zhao and Lo,
    Phys. Rev. A 72, 012326 (2005), eqs. 1, 34 and 37, summed over the `used` strongest intensities (None: all).

    The vacuum yield is taken as it is, not bounded.
    """
    mean, sent = expected(now), now.sent_photons
    vacuum, _ = live_gate(now, 0.0)
    (mu, nu), (gain, weak) = sent[:2], mean.gains[:2]
    if gain <= 0:
        return 0.0
    vacuum *= gain / live_gate(now, now.photons[0])[0]  # dead time takes the same share of all clicks
    several = (nu / mu) ** 2 * gain * math.exp(mu) + (mu**2 - nu**2) / mu**2 * vacuum
    single = mu / (mu * nu - nu**2) * (weak * math.exp(nu) - several)
    if single <= 0:
        return 0.0
    phase = min(0.5, max(0.0, (mean.errors[1] * weak * math.exp(nu) - vacuum / 2) / (single * nu)))
    chosen = list(zip(now.profile.source.shares, sent, mean.gains, mean.errors, strict=True))[:used]
    secret = sum(share * k * math.exp(-k) for share, k, _, _ in chosen) * single * (1 - binary_entropy(phase))
    clicks = sum(share * q for share, _, q, _ in chosen)
    wrong = sum(share * q * e for share, _, q, e in chosen)
    return max(0.0, secret - clicks * f_ec * binary_entropy(min(0.5, wrong / clicks)))


def at_length(profile: LinkProfile, length_km: float) -> LinkProfile:
    """The same devices over another length of fibre, or of air."""
    if profile.free_space is not None:
        path = profile.free_space
        longer = replace(path, distance_km=length_km, air_km=path.air_km * length_km / path.distance_km)
        return replace(profile, free_space=longer)
    return replace(profile, fibre=replace(profile.fibre, length_km=length_km))


def optimised(profile: LinkProfile, *, f_ec: float = F_EC) -> LinkProfile:
    """With the intensities and shares that give the most key: a pattern search from three starts."""
    starts = [profile, _set(profile, (0.45, 0.12, 0.7, 0.9)), _set(profile, (0.3, 0.1, 0.4, 0.7))]
    found = [_climb(start, f_ec) for start in starts]
    return max(found, key=lambda each: rate(each, f_ec=f_ec).skr_bps)


def _set(profile: LinkProfile, figures: tuple[float, ...]) -> LinkProfile:
    mu, nu, p_mu, p_key = figures
    p_mu = min(p_mu, 0.98 - profile.source.p_vacuum)
    nu = max(nu, 2 * profile.source.vacuum, 1e-3)
    return replace(profile, source=replace(profile.source, mu=mu, nu=nu, p_mu=p_mu, p_key_basis=p_key))


def _climb(profile: LinkProfile, f_ec: float) -> LinkProfile:
    source = profile.source
    at, step = (source.mu, source.nu, source.p_mu, source.p_key_basis), 0.2
    best = rate(profile, f_ec=f_ec).skr_bps
    while step > 0.01:
        moved = False
        for place in range(4):
            for factor in (1 - step, 1 + step):
                trial = list(at)
                trial[place] *= factor
                mu, nu, p_mu, p_key = trial
                if not (1e-3 < nu < 0.8 * mu and mu <= 1.0 and 0.02 < p_mu < 0.98 and 0.5 <= p_key <= 0.99):
                    continue
                value = rate(_set(profile, tuple(trial)), f_ec=f_ec).skr_bps
                if value > best * (1 + 1e-6):
                    best, at, moved = value, tuple(trial), True  # type: ignore[assignment]
        step = step if moved else step / 2
    return _set(profile, at)
