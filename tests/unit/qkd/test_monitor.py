"""The monitor: attacks in their first block, faults by their name, a healthy link left alone, and no flapping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from bench.quiet_link import QuietLink

from keystrand.lab.fibre import LitFibre
from keystrand.qkd.monitor.causes import BACKGROUND
from keystrand.qkd.monitor.features import decoy_gain, features_of
from keystrand.qkd.monitor.monitor import Health, Monitor, Verdict
from keystrand.qkd.observables import Observables
from keystrand.qkd.optics_attacks import ATTACKS, strength_for
from keystrand.qkd.optics_disturb import Disturbance
from keystrand.qkd.optics_faults import FAULTS
from keystrand.qkd.profile import Distillation, Fibre, LinkProfile, Proof, Source

# short and bright, so that few pulses tell much; splitting photons pays on a lossy link only
LOSSY = LinkProfile(source=Source(p_mu=0.5, p_vacuum=0.1), distillation=Distillation(proof=Proof.LIM))
BRIGHT = LinkProfile(
    source=Source(p_mu=0.5, p_vacuum=0.1),
    fibre=Fibre(length_km=5, insertion_loss_db=0),
    distillation=Distillation(proof=Proof.LIM),
)
PULSES = 12_000_000


def judged(
    blocks: int,
    disturbances: Sequence[Disturbance] = (),
    *,
    profile: LinkProfile = BRIGHT,
    pulses: int = PULSES,
) -> tuple[Monitor, list[Verdict]]:
    """A monitor that has learnt a quiet link, and its verdicts on `blocks` disturbed blocks."""
    fibre, monitor = LitFibre(profile, 1), Monitor(profile)
    for _ in range(8):
        verdict = monitor.judge(fibre.block(pulses))
        assert not verdict.cause, verdict
    return monitor, [monitor.judge(fibre.block(pulses, disturbances)) for _ in range(blocks)]


@pytest.mark.parametrize("name", list(ATTACKS))
@pytest.mark.proves("R025")
def test_an_attack_that_gains_a_twentieth_of_the_key_is_seen_at_once(name: str) -> None:
    profile, pulses = (LOSSY, 250_000_000) if name == "pns" else (BRIGHT, PULSES)
    attack = ATTACKS[name](strength_for(ATTACKS[name], profile, 0.05))
    _, (verdict,) = judged(1, (attack,), profile=profile, pulses=pulses)
    assert verdict.health is Health.ATTACK, verdict
    assert verdict.reject
    assert verdict.cause == name


@pytest.mark.parametrize(
    ("name", "strength", "called"),
    [
        ("fibre-cut", 1.0, {"fibre-cut"}),
        ("loss-step", 1.5, {"loss-step"}),
        ("raman", 3.0, {BACKGROUND}),
        ("dark-count-rise", 200.0, {BACKGROUND}),
        ("sync-loss", 0.2, {"sync-loss", BACKGROUND}),
    ],
)
@pytest.mark.proves("R099")
def test_a_fault_is_named_and_is_no_attack(name: str, strength: float, called: set[str]) -> None:
    _, verdicts = judged(1, (FAULTS[name](strength),))
    assert verdicts[0].health is Health.DEGRADED, verdicts
    assert verdicts[0].cause in called


def test_slow_drift_of_polarisation_is_told_from_somebody_who_measures() -> None:
    monitor, verdicts = judged(25, (FAULTS["polarisation-drift"](4.0),))
    causes = {verdict.cause for verdict in verdicts} - {""}
    assert causes
    assert causes <= {"polarisation-drift"}, causes
    assert monitor.health is not Health.ATTACK


@pytest.mark.proves("R099")
def test_a_link_in_noise_does_not_flap() -> None:
    """Over a healthy, drifting stretch the health changes once: from learning to normal."""
    profile = replace(BRIGHT, fibre=replace(BRIGHT.fibre, loss_drift_db=0.1, misalignment_drift=0.002))
    link, monitor = QuietLink(profile, 5), Monitor(profile)
    changes = [verdict.health for _ in range(3000) if (verdict := monitor.judge(link.block(60_000_000))).changed]
    assert changes == [Health.NORMAL]


@pytest.mark.proves("R025")
def test_blocks_stay_rejected_until_the_link_was_calm() -> None:
    fibre, monitor = LitFibre(BRIGHT, 3), Monitor(BRIGHT)
    for _ in range(8):
        monitor.judge(fibre.block(PULSES))
    assert monitor.judge(fibre.block(PULSES, (ATTACKS["intercept-resend"](0.3),))).reject
    after = [monitor.judge(fibre.block(PULSES)) for _ in range(monitor.rules.calm_blocks)]
    assert [verdict.reject for verdict in after[:-1]] == [True] * (len(after) - 1)
    assert not after[-1].reject
    assert after[-1].health is Health.NORMAL


def test_a_repaired_fibre_is_no_attack_on_the_source() -> None:
    fibre, monitor = LitFibre(BRIGHT, 4), Monitor(BRIGHT)
    for _ in range(8):
        monitor.judge(fibre.block(PULSES))
    for _ in range(2):
        monitor.judge(fibre.block(PULSES, (FAULTS["loss-step"](3.0),)))
    back = [monitor.judge(fibre.block(PULSES)) for _ in range(6)]
    assert not any(verdict.cause for verdict in back), back
    assert monitor.health is Health.NORMAL


def test_one_who_creeps_is_stopped_at_the_bound_of_what_does_not_drift() -> None:
    """The decoys' proportion is physics, not weather: it may not leave its place, however slowly."""
    link, monitor = QuietLink(LOSSY, 6), Monitor(LOSSY)
    for _ in range(20):
        monitor.judge(link.block(1_000_000_000))
    for step in range(1, 400):
        block = link.block(1_000_000_000)
        signal, decoy, vacuum = block.counts.key
        fewer = replace(block.counts, key=(signal, decoy * (1 - 0.0005 * step), vacuum))
        if (verdict := monitor.judge(replace(block, counts=fewer))).reject:
            break
    assert verdict.cause == "pns"
    assert 0.0005 * step < 0.15


def test_decoys_follow_the_channel() -> None:
    """eq. 7 of Ma et al.: from the signal's gain the decoy's follows."""
    dark, eta = 1e-5, 0.03
    mu, nu, _ = BRIGHT.source.intensities
    gain = 1 - (1 - dark) * math.exp(-eta * mu)
    expected = 1 - (1 - dark) * math.exp(-eta * nu)
    assert decoy_gain(gain, dark, BRIGHT) == pytest.approx(expected, rel=1e-12)


def test_what_is_not_seen_is_left_out() -> None:
    block = LitFibre(BRIGHT, 8).block(PULSES)
    bare = Observables(pulses=block.pulses, p_key_basis=block.p_key_basis, counts=block.counts)
    whole = features_of(block, BRIGHT)
    assert features_of(bare, BRIGHT).keys() < whole.keys()
    assert {"photocurrent", "transmitter_light", "arrival_width"} <= whole.keys()
