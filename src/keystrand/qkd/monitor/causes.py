"""What each cause does to the features of a block, and which cause fits best: templates, compared in units of chance.

A template says of a feature: rises (+1), falls (-1), stays (0); what it does not name may do as it likes. The templates
follow from the physics of each attack and fault; docs/concepts/monitor.md gives the reason beside each, and says which attacks
show nothing at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SHARPNESS: Final = 4.0  # how much a misfit costs
KNEE_SIGMAS: Final = 4.0  # where a feature counts as half moved
BACKGROUND: Final = "background"  # Raman light or dark counts: with the detectors alone nobody can tell them apart
PRIOR_SUDDEN: Final = 0.2  # a jump fits a gradual cause a fifth as well, and the other way round


@dataclass(frozen=True, slots=True)
class Cause:
    """harmful: somebody means harm. gradual: comes by small steps, so that it shows in sums before it shows in a block."""

    name: str
    harmful: bool
    template: Mapping[str, float]
    gradual: bool = False


_STILL: Final = {"photocurrent": 0.0, "source": 0.0, "transmitter_light": 0.0}

_TURNED: Final = {"qber_test": 1.0, "qber_key": 1.0, "intrinsic_error": 1.0}  # clicks of signal photons are wrong

CAUSES: Final = (
    Cause(
        "intercept-resend",
        True,
        _TURNED | {"gain": 0, "decoy_ratio": 0, "vacuum": 0, "arrival_width": 0} | _STILL,
    ),
    Cause("pns", True, {"decoy_ratio": -1, "gain": 0, "qber_test": 0, "vacuum": 0, "arrival_width": 0} | _STILL),
    Cause("blinding", True, {"photocurrent": 1, "receiver_light": 1, "source": 0, "transmitter_light": 0}),
    Cause("trojan", True, {"transmitter_light": 1, "gain": 0, "qber_test": 0, "photocurrent": 0, "source": 0}),
    Cause("time-shift", True, {"arrival_width": 1, "gain": 0, "vacuum": 0, "qber_test": 0} | _STILL),
    Cause("source-tamper", True, {"source": 1, "arrival_width": 0, "photocurrent": 0, "transmitter_light": 0}),
    Cause(
        "source-tamper", True, {"gain": 1, "decoy_ratio": 0, "vacuum": 0, "qber_test": 0, "arrival_width": 0} | _STILL
    ),
    Cause("fibre-cut", False, {"gain": -1, "arrival_width": 1} | _STILL),
    Cause("loss-step", False, {"gain": -1, "decoy_ratio": 0, "vacuum": 0, "arrival_width": 0} | _STILL),
    Cause(
        "polarisation-drift",
        False,
        _TURNED | {"gain": 0, "decoy_ratio": 0, "vacuum": 0, "arrival_width": 0} | _STILL,
        gradual=True,
    ),
    Cause(BACKGROUND, False, {"qber_test": 1, "vacuum": 1, "arrival_width": 1, "intrinsic_error": 0} | _STILL),
    Cause(BACKGROUND, False, {"qber_test": 1, "decoy_ratio": 1, "arrival_width": 1, "intrinsic_error": 0} | _STILL),
    Cause(BACKGROUND, False, {"vacuum": 1, "gain": 0, "decoy_ratio": 0, "intrinsic_error": 0} | _STILL),
    Cause("sync-loss", False, _TURNED | {"vacuum": 1, "arrival_width": 1} | _STILL),
    Cause("sync-loss", False, _TURNED | {"decoy_ratio": 1, "arrival_width": 1} | _STILL),
)


def fit(moved: Mapping[str, float], *, sudden: bool) -> list[tuple[Cause, float]]:
    """The causes with their confidence (they add up to 1), best first. moved: features in sigmas from their usual.

    A cause with several templates counts by the one that fits best.
    """
    best: dict[str, tuple[Cause, float]] = {}
    for cause in CAUSES:
        weight = _weight(cause, moved, sudden)
        if cause.name not in best or weight > best[cause.name][1]:
            best[cause.name] = (cause, weight)
    total = sum(weight for _, weight in best.values())
    return sorted(((cause, weight / total) for cause, weight in best.values()), key=lambda pair: -pair[1])


def _weight(cause: Cause, moved: Mapping[str, float], sudden: bool) -> float:
    named = [(moved[name], aim) for name, aim in cause.template.items() if name in moved]
    misfit = sum((_squashed(sigmas) - aim) ** 2 for sigmas, aim in named)
    # what moved and is not named fits badly too, if less
    misfit += 0.25 * sum(_squashed(sigmas) ** 2 for name, sigmas in moved.items() if name not in cause.template)
    fits = 1.0 if cause.gradual != sudden else PRIOR_SUDDEN
    return fits * math.exp(-SHARPNESS * misfit)


def _squashed(sigmas: float) -> float:
    """-1 .. 1: what moved by chance alone is near 0, what surely moved near ±1."""
    square = sigmas * abs(sigmas)
    return square / (abs(square) + KNEE_SIGMAS**2)
