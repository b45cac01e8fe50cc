"""The photons behave as the formulas of decoy-state BB84 say, and the choices can be derived again."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.secret import Secret
from keystrand.qkd.choices import KEY_BASIS, TEST_BASIS, ChoiceStream
from keystrand.qkd.optics import Clicks, QuantumChannel
from keystrand.qkd.optics_attacks import InterceptResend
from keystrand.qkd.optics_disturb import Conditions, Disturbance, Light
from keystrand.qkd.optics_readings import _histogram
from keystrand.qkd.profile import Detector, Fibre, LinkProfile, Source

SEED = bytes(range(32))
PULSES = 20_000_000


def profile(
    *, loss_db: float = 5.0, dead_time_s: float = 0.0, dark: float = 1e-6, misalignment: float = 0.01
) -> LinkProfile:
    return LinkProfile(
        fibre=Fibre(length_km=0, insertion_loss_db=loss_db, misalignment=misalignment),
        detector=Detector(dead_time_s=dead_time_s, dark_count_probability=dark),
    )


def shine(link: LinkProfile, attack: Disturbance | None = None, pulses: int = PULSES) -> Clicks:
    channel = QuantumChannel(
        Secret(SEED), link, rng=np.random.default_rng(7), disturbances=(attack,) * (attack is not None)
    )
    trains = [channel.detect(first, pulses // 4) for first in range(0, pulses, pulses // 4)]
    return Clicks(*(np.concatenate([getattr(t, name) for t in trains]) for name in ("indices", "bases", "bits")))


def test_readings_that_are_taken_while_light_comes_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clicks without their times of arrival would be a width that no honest link has: the monitor called it an attack."""
    inside, go, seen = threading.Event(), threading.Event(), list[tuple[int, int]]()

    def histogram(offsets_s: np.ndarray, width_s: float) -> np.ndarray:
        inside.set()
        go.wait(60)
        return _histogram(offsets_s, width_s)

    monkeypatch.setattr("keystrand.qkd.optics_readings._histogram", histogram)
    channel = QuantumChannel(Secret(SEED), profile(), rng=np.random.default_rng(7))
    light = threading.Thread(target=channel.detect, args=(0, 100_000))

    def look() -> None:
        taken = channel.take_readings()
        seen.append((taken.total, int(taken.arrivals.sum())))

    meter = threading.Thread(target=look)
    light.start()
    assert inside.wait(60)
    meter.start()
    meter.join(0.3)  # time enough to take what is half there
    go.set()
    light.join()
    meter.join()
    ((clicks, arrivals),) = seen
    assert clicks == arrivals > 0
    assert channel.take_readings().gates == 0


def errors_in(clicks: Clicks, link: LinkProfile, basis: int) -> np.ndarray:
    sent = ChoiceStream(Secret(SEED), link.source).at(clicks.indices)
    chosen = (sent.bases == basis) & (clicks.bases == basis)
    return (sent.bits ^ clicks.bits)[chosen]


def error_rate(clicks: Clicks, link: LinkProfile, basis: int) -> float:
    return float(errors_in(clicks, link, basis).mean())


@pytest.mark.parametrize("loss_db", [0.0, 10.0, 20.0])
@pytest.mark.parametrize("intensity", [0, 1])
def test_detection_rates_follow_the_mean_photon_number(loss_db, intensity):
    link = profile(loss_db=loss_db)
    clicks = shine(link)
    sent = ChoiceStream(Secret(SEED), link.source).at(clicks.indices)
    share = (link.source.p_mu, 1 - link.source.p_mu)[intensity]
    mean = (link.source.mu, link.source.nu)[intensity] * link.fibre.transmittance * link.detector.efficiency
    expected = PULSES * share * (1 - math.exp(-mean) * (1 - 1e-6) ** 2)
    seen = int((sent.intensities == intensity).sum())
    assert abs(seen - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("misalignment", [0.0, 0.01, 0.1])
def test_the_error_rate_is_misalignment_plus_half_the_dark_counts(misalignment):
    link = profile(misalignment=misalignment, loss_db=15, dark=5e-5)
    clicks = shine(link)
    light = 0.22 * link.fibre.transmittance * 0.2
    expected = (light * misalignment + 5e-5) / (light + 1e-4)
    for basis in (KEY_BASIS, TEST_BASIS):
        errors = errors_in(clicks, link, basis)
        assert abs(errors.mean() - expected) < 4 * math.sqrt(expected / errors.size)


def test_a_dark_fibre_clicks_at_the_dark_count_rate():
    link = profile(loss_db=200, dark=1e-4)
    clicks = shine(link)
    assert clicks.indices.size == pytest.approx(2e-4 * PULSES, rel=0.1)
    assert clicks.bits.mean() == pytest.approx(0.5, abs=0.05)


def test_nothing_clicks_within_the_dead_time_even_across_trains():
    link = profile(loss_db=0, dead_time_s=1e-6)
    clicks = shine(link)
    assert np.diff(clicks.indices).min() > link.dead_gates
    open_share = 1 / (1 + 0.22 * 0.2 * link.dead_gates)
    assert clicks.indices.size == pytest.approx(0.22 * 0.2 * PULSES * open_share, rel=0.05)


@pytest.mark.proves("R025")
def test_intercept_resend_adds_a_quarter_of_its_share_to_the_error_rate_and_no_loss():
    link = profile()
    quiet, tapped = shine(link), shine(link, InterceptResend(0.4))
    for basis in (KEY_BASIS, TEST_BASIS):
        # where she hits, errors are 1/4 with either basis: half the time the right one, half the time a coin
        expected = 0.6 * 0.01 + 0.4 * (0.25 + 0.5 * 0.01)
        assert error_rate(tapped, link, basis) == pytest.approx(expected, abs=0.01)
    assert tapped.indices.size == pytest.approx(quiet.indices.size, rel=0.02)


def test_an_attack_that_brightens_pulses_is_refused():
    class Brighten(Disturbance):
        def light(self, light: Light, now: Conditions, rng: np.random.Generator) -> Light:
            return replace(light, photons=light.photons * 2)

    with pytest.raises(AssertionError, match="brighter than it declares"):
        shine(profile(), Brighten())


@given(st.lists(st.integers(0, 2**60), min_size=1, max_size=50, unique=True))
@settings(derandomize=True)
def test_choices_are_the_same_however_they_are_asked_for(indices):
    stream = ChoiceStream(Secret(SEED), Source())
    every = np.array(sorted(indices), np.int64)
    together, alone = stream.at(every), [stream.at(every[i : i + 1]) for i in range(every.size)]
    for name in ("bits", "bases", "intensities"):
        assert list(getattr(together, name)) == [int(getattr(one, name)[0]) for one in alone]


def test_choices_have_the_shares_of_the_profile():
    source = Source()
    choices = ChoiceStream(Secret(SEED), source).at(np.arange(1_000_000))
    assert choices.bits.mean() == pytest.approx(0.5, abs=0.003)
    assert choices.bases.mean() == pytest.approx(1 - source.p_key_basis, abs=0.003)
    assert choices.intensities.mean() == pytest.approx(1 - source.p_mu, abs=0.003)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mu": 0.1, "nu": 0.2},
        {"p_mu": 1.0},
        {"p_key_basis": 0.2},
        {"clock_hz": 0},
    ],
)
def test_impossible_sources_are_refused(wrong):
    with pytest.raises(ValueError):
        Source(**wrong)
