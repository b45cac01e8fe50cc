"""Predicted rates against published experiments, reference codes, and the sampler of clicks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.qkd.test_optics_twin import PROFILES

from keystrand.config.linkprofile import names
from keystrand.config.load import load_profile
from keystrand.core.secret import Secret
from keystrand.qkd.choices import ChoiceStream
from keystrand.qkd.optics import QuantumChannel
from keystrand.qkd.optics_channel import quiet_conditions, raman_photons_per_gate, raman_w
from keystrand.qkd.optics_statistics import count_clicks
from keystrand.qkd.profile import Coexistence, Detector, Distillation, Fibre, LinkProfile, Proof, Source
from keystrand.qkd.rate_models import EntangledPairs, GaussianStates, TwinField
from keystrand.qkd.rates import asymptotic_bits, at_length, expected, optimised, plob_bits, rate


def gys(mu: float = 0.1, **fibre: float) -> LinkProfile:
    profile = load_profile("gys-2004").profile
    return replace(profile, source=replace(profile.source, mu=mu), fibre=replace(profile.fibre, **fibre))


@pytest.mark.parametrize(("km", "qber"), [(4.4, 0.033), (122.0, 0.089)])
def test_error_rates_of_Gobby_Yuan_Shields_2004(km, qber):
    """Measured at mu = 0.1: 3.3 % at 4.4 km, 8.9 % at 122 km."""
    seen = expected(quiet_conditions(gys(length_km=km)))
    assert seen.errors[0] == pytest.approx(qber, rel=0.03)


def gys_sifted_bps(km: float) -> float:
    """Every pulse a signal, half of them in matching bases."""
    return 2e6 * expected(quiet_conditions(gys(length_km=km))).gains[0] / 2


def test_sifted_rates_of_Gobby_Yuan_Shields_2004():
    """Measured: 3.4 kbit/s at 4.4 km, 23.4 bit/s at 101 km, 9.2 bit/s at 122 km.

    The two far points are the model's times one factor, 0.65, and their ratio agrees to 1 %. It is no loss: that would spare
    the dark counts, and make 11 % of the 8.9 % of errors that were measured at 122 km. So it is a share of the time in which
    bits were counted at all, and no parameter that the source states; the profile is not tuned to it.
    """
    assert gys_sifted_bps(4.4) == pytest.approx(3400, rel=0.1)
    assert gys_sifted_bps(101) / gys_sifted_bps(122) == pytest.approx(23.4 / 9.2, rel=0.02)
    for km, measured_bps in ((101, 23.4), (122, 9.2)):
        assert measured_bps / gys_sifted_bps(km) == pytest.approx(0.65, abs=0.02)
    extra_db = -10 * math.log10(0.65)
    darker = expected(quiet_conditions(gys(length_km=122.0, insertion_loss_db=extra_db)))
    assert darker.errors[0] > 1.2 * 0.089


def test_reach_of_vacuum_and_weak_decoy_is_that_of_Ma_2005():
    """140.55 km with f = 1.22; to 1 %."""

    def bits(km: float) -> float:
        return asymptotic_bits(quiet_conditions(gys(mu=0.48, length_km=km)), f_ec=1.22, used=1)

    assert bits(140.55 * 0.99) > 0 == bits(140.55 * 1.01)


@pytest.mark.parametrize(("loss_db", "rate_bps"), [(0.0, 7.74805e7), (20.0, 5.50944e5)])
def test_counts_of_the_model_give_the_rate_of_Wiesemanns_own_code(loss_db, rate_bps):
    """Their model has one detector's dark counts per gate and adds errors; ours has two detectors and double clicks: 1 %."""
    profile = LinkProfile(
        source=Source(clock_hz=625e6, mu=0.5, nu=0.15, p_mu=0.9, p_key_basis=0.9),
        fibre=Fibre(length_km=0, insertion_loss_db=loss_db, misalignment=0.02),
        detector=Detector(efficiency=1.0, dark_count_probability=100 / 625e6, dead_time_s=0),
        distillation=Distillation(eps_sec=1e-12, eps_cor=1e-12),
    )
    from keystrand.qkd.distill.estimate import binary_entropy, wiesemann

    counts = expected(quiet_conditions(profile)).counts(profile, 1e12)
    leak = sum(counts.key) * 1.16 * binary_entropy(counts.qber)
    bits = wiesemann(counts, leak_bits=leak, eps_sec=1e-12, eps_cor=1e-12)
    assert bits / (1e12 / 625e6) == pytest.approx(rate_bps, rel=0.01 if loss_db else 0.06)


def test_rate_of_Rusca_2018_at_26_dB():
    """Read from the figure at second hand: about 2e5 bit/s at 26 dB with blocks of 1e7 bits; half of it to a quarter more."""
    best = rate(optimised(load_profile("rusca-2018").profile, f_ec=1.16), f_ec=1.16)
    assert 1e5 < best.skr_bps < 2.5e5


# Figures of the three papers below are from memory, but for the 70 dB of Ma, Fung and Lo, which was read in the abstract.


def test_reach_of_entangled_pairs_lies_where_Ma_Fung_and_Lo_2007_put_it():
    """70 dB in all (read) with two-way processing, which adds to what one way reaches; 53 dB with statistics (recalled),
    which takes from it. Parameters of their simulation recalled: 14.5 %, 6.02e-6, 1.5 %, f 1.22. The model: 62 dB."""

    def best(loss_db: float) -> float:
        figures = {"clock_hz": 1.0, "efficiency": 0.145, "dark": 6.02e-6, "misalignment": 0.015}
        return max(
            EntangledPairs(mean_pairs=pairs, **figures).rate(loss_db)[0] for pairs in np.geomspace(0.005, 2, 100)
        )

    assert best(53) > 0
    assert best(61) > 0 == best(63)
    assert best(70) == 0


def test_rate_of_gaussian_states_is_that_of_Lodewyck_2007_over_25_km():
    """All recalled: more than 2 kbit/s over 25 km, held back by the computers, and 350,000 key symbols a second would give
    12.3 kbit/s against collective attacks, at a variance of 18.5, transmission 0.302, excess noise 0.005, detector 0.606 and
    0.041, reconciliation 0.898. To 1 %."""
    figures = {"variance": 18.5, "excess_noise": 0.005, "efficiency": 0.606, "electronic_noise": 0.041, "beta": 0.898}
    bps, _ = GaussianStates(clock_hz=350e3, **figures).rate(-10 * math.log10(0.302))
    assert bps == pytest.approx(12_300, rel=0.01)
    assert bps > 2_000


def test_twin_field_crosses_the_bound_where_Ma_Zeng_and_Zhou_2018_do():
    """All recalled: detectors of 14.5 % with 8e-8 dark counts, 16 slices, 1.5 %, f 1.15, 0.2 dB/km: above the bound (of a
    channel that holds the detectors) from about 250 km on, key up to 418 km. The model: 252 km, and 402 km, 4 % less."""

    def best(km: float) -> float:
        figures = {"clock_hz": 1.0, "efficiency": 0.145, "dark": 8e-8, "phase_slices": 16, "misalignment": 0.015}
        return max(TwinField(mu=mu, **figures).rate(0.2 * km)[0] for mu in np.geomspace(0.005, 1, 100))

    detectors_db = -10 * math.log10(0.145)
    above = [best(km) > plob_bits(0.2 * km + detectors_db) for km in (230, 245, 260, 300)]
    assert above == [False, False, True, True]
    assert best(395) > 0 == best(418 * 1.03)


@pytest.mark.proves("R015")
def test_raman_noise_of_the_check_value():
    """0 dBm, 25 km, 0.2 dB/km, 45 pm, 1.5 ns: 1.07e-12 W, 8.2e6 photons/s, 8.6e-4 clicks per gate at 7 %."""
    profile = LinkProfile(
        source=Source(wavelength_nm=1530),
        fibre=Fibre(length_km=25, insertion_loss_db=0),
        detector=Detector(efficiency=0.07, gate_s=1.5e-9),
        coexistence=Coexistence(forward=1, filter_nm=0.045, raman_per_km_nm=3e-9, isolation_db=300),
    )
    assert raman_w(profile) == pytest.approx(1.07e-12, rel=0.01)
    photons = raman_photons_per_gate(profile)
    assert photons / 1.5e-9 == pytest.approx(8.2e6, rel=0.01)
    assert 0.07 * photons == pytest.approx(8.6e-4, rel=0.01)
    dark = replace(profile, detector=replace(profile.detector, dark_count_probability=0.0))
    assert sum(quiet_conditions(dark).dark_per_gate) == pytest.approx(8.6e-4, rel=0.01)


@pytest.mark.parametrize("name", PROFILES)
def test_counts_without_clicks_agree_with_clicks(name):
    """The exact count sampler, the click sampler and the closed form tell the same story, to five standard deviations."""
    profile, pulses = replace(PROFILES[name], fibre=replace(PROFILES[name].fibre)), 40_000_000
    if profile.source.intensity_noise:
        profile = replace(profile, source=replace(profile.source, intensity_noise=0.0))
    now = quiet_conditions(profile)
    counts, clicks = count_clicks(now, pulses, np.random.default_rng(3))
    channel = QuantumChannel(Secret(bytes(32)), profile, rng=np.random.default_rng(4))
    seen = channel.detect(0, pulses)
    sent = ChoiceStream(Secret(bytes(32)), profile.source).at(seen.indices)
    mean = expected(now).counts(profile, pulses)
    for basis, ours, wrong, model, model_wrong in (
        (0, counts.key, counts.key_errors, mean.key, mean.key_errors),
        (1, counts.test, counts.test_errors, mean.test, mean.test_errors),
    ):
        for k in range(len(ours)):
            chosen = (sent.bases == basis) & (seen.bases == basis) & (sent.intensities == k)
            errors = int((sent.bits ^ seen.bits)[chosen].sum())
            for one, other, middle in ((ours[k], int(chosen.sum()), model[k]), (wrong[k], errors, model_wrong[k])):
                assert abs(one - middle) < 5 * math.sqrt(middle + 1)
                assert abs(other - middle) < 5 * math.sqrt(middle + 1)
    assert abs(clicks - seen.indices.size) < 5 * math.sqrt(2 * clicks)


def test_an_optimised_link_is_never_worse():
    for km in (0, 50, 90):
        profile = at_length(load_profile("class-ingaas").profile, km)
        assert rate(optimised(profile)).skr_bps >= rate(profile).skr_bps


@pytest.mark.proves("R002")
@pytest.mark.parametrize("name", names())
def test_no_profile_beats_the_bound_without_repeaters_but_twin_field(name):
    file = load_profile(name)
    if file.model is None:
        found = rate(file.profile)
        assert found.skr_bps < found.plob_bps
    elif file.twin is not None:
        assert file.twin.rate(60.0)[0] > file.twin.clock_hz * plob_bits(60.0)
    else:
        for loss_db in (1.0, 5.0, 10.0, 20.0):
            assert file.model.rate(loss_db)[0] < file.model.clock_hz * plob_bits(loss_db)


@pytest.mark.proves("R124")
def test_free_space_uses_no_fibre_formula():
    profile = load_profile("free-space-urban").profile
    longer = replace(profile, fibre=replace(profile.fibre, length_km=100))
    assert rate(longer).skr_bps == rate(profile).skr_bps
    assert at_length(profile, 14).loss_db > profile.loss_db + 3.5 + 3


def test_the_proof_must_fit_the_source():
    with pytest.raises(ValueError, match="p_vacuum"):
        LinkProfile(distillation=Distillation(proof=Proof.LIM))
