"""Between source and detectors while nobody disturbs it: loss, noise of classical neighbours, slow drift."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from keystrand.qkd.optics_disturb import Conditions
from keystrand.qkd.profile import LinkProfile


def quiet_conditions(profile: LinkProfile) -> Conditions:
    """The link as its profile says, with nobody and nothing disturbing it."""
    return Conditions(
        profile=profile,
        transmittance=profile.transmittance,
        misalignment=profile.fibre.misalignment,
        dark_probability=profile.detector.dark_count_probability,
        stray_photons=raman_photons_per_gate(profile),
    )


def raman_photons_per_gate(profile: LinkProfile) -> float:
    """Mean photons per gate at the receiver's entrance that classical channels on the fibre scatter into its filter.

    Spontaneous Raman scattering by Eraerds et al., New J. Phys. 12, 063027 (2010), eqs. 8 and 9, and what the multiplexers
    let through of the channels themselves.
    """
    light, fibre = profile.coexistence, profile.fibre
    if light.forward + light.backward == 0:
        return 0.0
    received_w = raman_w(profile) * 10 ** (-fibre.fixed_loss_db / 10)
    end_w = 1e-3 * 10 ** ((light.launch_dbm - fibre.attenuation_db_per_km * fibre.length_km - light.isolation_db) / 10)
    return (received_w + light.forward * end_w) * profile.detector.gate_s / profile.source.photon_j


def raman_w(profile: LinkProfile) -> float:
    """Power of that noise at the end of the fibre, in watts."""
    light, fibre = profile.coexistence, profile.fibre
    per_km = fibre.attenuation_db_per_km * math.log(10) / 10
    launch_w = 1e-3 * 10 ** (light.launch_dbm / 10)
    forward_km = fibre.length_km * math.exp(-per_km * fibre.length_km)
    backward_km = -math.expm1(-2 * per_km * fibre.length_km) / (2 * per_km) if per_km else fibre.length_km
    reach_km = light.forward * forward_km + light.backward * backward_km
    return launch_w * reach_km * light.raman_per_km_nm * light.filter_nm


class Wander:
    """Slow changes of loss and alignment: two Ornstein-Uhlenbeck processes, advanced by `step`."""

    def __init__(self, profile: LinkProfile, rng: np.random.Generator) -> None:
        self._fibre, self._rng = profile.fibre, rng
        self.still = profile.fibre.loss_drift_db == 0 == profile.fibre.misalignment_drift
        self._at = rng.standard_normal(2)

    def step(self, conditions: Conditions, seconds: float) -> Conditions:
        if self.still:
            return conditions
        kept = math.exp(-seconds / self._fibre.drift_time_s)
        self._at = kept * self._at + math.sqrt(1 - kept**2) * self._rng.standard_normal(2)
        loss_db = self._fibre.loss_drift_db * float(self._at[0])
        astray = conditions.misalignment + self._fibre.misalignment_drift * float(self._at[1])
        return replace(
            conditions,
            transmittance=min(1.0, conditions.transmittance * 10 ** (-loss_db / 10)),
            misalignment=min(0.5, max(0.0, astray)),
        )
