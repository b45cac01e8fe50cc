"""The event-driven sampler against a twin that draws every pulse and every photon: the same statistics, by chi-square."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.qkd.pulse_by_pulse import pulse_by_pulse

from keystrand.core.secret import Secret
from keystrand.qkd.choices import ChoiceStream
from keystrand.qkd.kernels import aes
from keystrand.qkd.kernels.shine import choices
from keystrand.qkd.optics import QuantumChannel
from keystrand.qkd.optics_channel import quiet_conditions
from keystrand.qkd.optics_disturb import Disturbance
from keystrand.qkd.profile import Coexistence, Detector, Distillation, Fibre, LinkProfile, Proof, Source

SEED = bytes(range(32))
PULSES = 6_000_000
SIGMAS = 4.5  # of a chi-square: one run in about 1e5 fails by chance, and the seeds are fixed

PROFILES = {
    "plain": LinkProfile(fibre=Fibre(length_km=0, insertion_loss_db=2)),
    "everything": LinkProfile(
        source=Source(p_vacuum=0.2, vacuum=1e-3, intensity_noise=0.05),
        fibre=Fibre(length_km=10, connectors=2, misalignment=0.03),
        detector=Detector(
            efficiency=0.3,
            efficiency_mismatch=0.2,
            dark_count_probability=3e-4,
            dead_time_s=2e-7,
            afterpulse_probability=0.08,
            afterpulse_time_s=3e-7,
        ),
        distillation=Distillation(proof=Proof.LIM),
        coexistence=Coexistence(forward=2, launch_dbm=-10),
    ),
    "dark": LinkProfile(fibre=Fibre(length_km=100), detector=Detector(dark_count_probability=1e-3, dead_time_s=5e-8)),
}


@dataclass
class Sample:
    """Rows of `pulse_by_pulse.Seen`."""

    rows: np.ndarray

    def categories(self) -> np.ndarray:
        """Counts by intensity, bases alike, error, double click: 3 x 2 x 2 x 2 cells."""
        _, bit, basis, intensity, measured, seen, double = self.rows.T
        cell = ((intensity * 2 + (basis == measured)) * 2 + (bit != seen)) * 2 + double
        return np.bincount(cell, minlength=24)

    def gaps(self, dead_gates: int) -> np.ndarray:
        """Histogram of the gates between clicks, in bins that are equally likely without afterpulses."""
        gaps = np.diff(self.rows[:, 0]) - dead_gates - 1
        edges = np.quantile(gaps, np.linspace(0, 1, 24)[1:-1])
        return gaps, edges


def fast(profile: LinkProfile, *disturbances: Disturbance) -> Sample:
    channel = QuantumChannel(Secret(SEED), profile, rng=np.random.default_rng(11), disturbances=disturbances)
    trains = [channel.detect(first, PULSES // 4) for first in range(0, PULSES, PULSES // 4)]
    indices = np.concatenate([t.indices for t in trains])
    sent = ChoiceStream(Secret(SEED), profile.source).at(indices)
    bases, bits = np.concatenate([t.bases for t in trains]), np.concatenate([t.bits for t in trains])
    rows = np.stack([indices, sent.bits, sent.bases, sent.intensities, bases, bits, np.zeros_like(indices)], axis=1)
    assert channel.readings.total == indices.size
    return Sample(rows)


def slow(profile: LinkProfile) -> Sample:
    return Sample(pulse_by_pulse(quiet_conditions(profile), PULSES, np.random.default_rng(12)))


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Chi-square of two histograms of the same size of experiment, in standard deviations above its mean."""
    both = ours + theirs
    used = both > 20
    chi = float((((ours - theirs) ** 2)[used] / both[used]).sum())
    freedom = int(used.sum())
    return (chi - freedom) / math.sqrt(2 * freedom)


@pytest.fixture(scope="module", params=PROFILES)
def twin(request):
    profile = PROFILES[request.param]
    return profile, slow(profile)


@pytest.fixture(scope="module", params=[(), (Disturbance(),)], ids=["straight", "as if disturbed"])
def pair(request, twin):
    if not request.param and not aes.available:
        pytest.skip("without AES instructions, or compilation, all light is drawn as if disturbed")
    profile, theirs = twin
    return profile, fast(profile, *request.param), theirs


@pytest.mark.skipif(not aes.available, reason="this processor has no AES instructions, or kernels are not compiled")
@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**63 - 1), st.floats(0.5, 0.9))
def test_choices_on_the_spot_are_those_of_the_stream(seed, gate, share):
    source = Source(p_key_basis=share, p_mu=share / 2, p_vacuum=share / 4)
    stream = ChoiceStream(Secret(seed), source)
    sent = stream.at(np.array([gate], np.int64))
    expected = (sent.bits[0], sent.bases[0], sent.intensities[0])
    assert choices(aes.expand(seed), stream.rules(), gate) == expected


def test_gains_errors_and_bases_agree_with_the_twin(pair):
    _, ours, theirs = pair
    ours, theirs = (s.categories().reshape(-1, 2).sum(axis=1) for s in (ours, theirs))
    assert theirs.sum() > 10_000
    assert distance(ours, theirs) < SIGMAS


def test_times_between_clicks_agree_with_the_twin(pair):
    profile, ours, theirs = pair
    gaps, edges = theirs.gaps(profile.dead_gates)
    mine, _ = ours.gaps(profile.dead_gates)
    assert mine.min() >= 0
    bins = [np.bincount(np.searchsorted(edges, g, side="right"), minlength=24) for g in (mine, gaps)]
    assert distance(*bins) < SIGMAS


def test_double_clicks_agree_with_the_twin(pair):
    profile, _, theirs = pair
    channel = QuantumChannel(Secret(SEED), profile, rng=np.random.default_rng(11))
    channel.detect(0, PULSES)
    expected = int(theirs.rows[:, 6].sum())
    assert abs(channel.readings.doubles - expected) < 5 * math.sqrt(2 * expected + 1)


def test_the_twin_test_can_fail():
    """A link with 0.6 dB less loss, or without afterpulses, is told from the other one."""
    plain, whole = PROFILES["plain"], PROFILES["everything"]
    brighter = LinkProfile(fibre=Fibre(length_km=0, insertion_loss_db=1.4))
    calmer = replace(whole, detector=replace(whole.detector, afterpulse_probability=0.0))
    for one, other in ((brighter, plain), (calmer, whole)):
        assert distance(fast(one).categories(), fast(other).categories()) > SIGMAS
