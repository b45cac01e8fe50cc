"""Blocks of a link as its monitor sees them, without the distillation in between: for drills of the monitor, and to measure it.

Light, choices, detectors and what disturbs them are those of `qkd.optics`; sifting is done here in one step, with both ends'
data, which no end of a real link has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keystrand.core.secret import Secret
from keystrand.qkd.choices import ChoiceStream
from keystrand.qkd.distill.estimate import Counts
from keystrand.qkd.observables import Observables
from keystrand.qkd.optics import QuantumChannel
from keystrand.qkd.optics_channel import quiet_conditions
from keystrand.qkd.optics_disturb import Disturbance
from keystrand.qkd.optics_readings import transmitter_readings
from keystrand.qkd.profile import LinkProfile

TRAIN_PULSES = 20_000_000


class LitFibre:
    """One link from one seed."""

    def __init__(self, profile: LinkProfile, seed: int) -> None:
        rng = np.random.default_rng(seed)
        secret = Secret(rng.bytes(32))
        self.profile, self._rng = profile, rng
        self._choices = ChoiceStream(secret, profile.source)
        self._channel = QuantumChannel(secret, profile, rng=rng)
        self._next = 0

    def block(self, pulses: int, disturbances: Sequence[Disturbance] = ()) -> Observables:
        """What the next `pulses` pulses show, both ends' instruments together."""
        self._channel.disturbances = tuple(disturbances)
        shares = self.profile.source.shares
        tables = np.zeros((2, 2, len(shares)))  # basis; clicks, errors; intensity
        left = pulses
        while left:
            count = min(left, TRAIN_PULSES)
            clicks = self._channel.detect(self._next, count)
            self._next += count
            left -= count
            sent = self._choices.at(clicks.indices)
            same = sent.bases == clicks.bases
            wrong = same & (sent.bits != clicks.bits)
            for basis in (0, 1):
                for row, chosen in enumerate((same, wrong)):
                    of_basis = sent.intensities[chosen & (sent.bases == basis)]
                    tables[basis, row] += np.bincount(of_basis, minlength=len(shares))
        now = quiet_conditions(self.profile)
        for disturbance in disturbances:
            now = disturbance.conditions(now, 0.0)
        return Observables(
            pulses=pulses,
            p_key_basis=self.profile.source.p_key_basis,
            counts=_counts(self.profile, tables),
            readings=self._channel.take_readings(),
            transmitter=transmitter_readings(now, self._rng),
        )


def _counts(profile: LinkProfile, tables: np.ndarray) -> Counts:
    (key, key_errors), (test, test_errors) = (tuple(map(tuple, table)) for table in tables)
    source = profile.source
    return Counts(
        intensities=source.intensities,
        shares=source.shares,
        key=key,
        key_errors=key_errors,
        test=test,
        test_errors=test_errors,
    )
