"""How much a ranking of products hangs on weights and on what is not known (SMAA: Lahdelma, Hokkanen and Salminen, 1998).

Weights are drawn from a Dirichlet distribution around the stated ones, unknown points from their intervals. What comes out is a
share of draws for each rank, the smallest change of one weight that turns rank 1 round, and what evidence would do so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from keystrand.plan.answers import SCORE_MAX
from keystrand.plan.vendors import Assessment

DRAWS: Final = 10_000
SEED: Final = 1


def acceptability(
    assessments: Sequence[Assessment], weights: Mapping[str, float], *, draws: int = DRAWS, seed: int = SEED
) -> dict[str, tuple[float, ...]]:
    """By product: the share of draws at rank 1, 2, ... Products that tie share the better rank."""
    import numpy as np

    if not assessments:
        return {}
    alpha = np.array([weights[mark.criterion.name] for mark in assessments[0].marks])
    used = alpha > 0
    alpha = alpha[used] * used.sum() / alpha.sum()  # mean as stated, spread of no preference
    drawn = np.random.default_rng(seed).dirichlet(alpha, draws)
    totals = []
    for each in assessments:
        points = np.array([(m.points.low, m.points.high) for m in each.marks])[used]
        random = np.random.default_rng([seed, crc32(points.tobytes())])  # of its answers, not of its name
        values = points[:, 0] + random.random((draws, len(points))) * (points[:, 1] - points[:, 0])
        totals.append((values * drawn).sum(axis=1))
    table = np.array(totals)
    ranks = (table[None, :, :] > table[:, None, :] + 1e-12).sum(axis=1)
    shares = [[float(np.mean(ranks[at] == rank)) for rank in range(len(assessments))] for at in range(len(assessments))]
    return {each.product: tuple(row) for each, row in zip(assessments, shares, strict=True)}


def ranked(assessments: Sequence[Assessment], weights: Mapping[str, float]) -> list[Assessment]:
    """The eligible ones, the best likely score first; equal ones in the order of their lower ends, then as given."""
    eligible = [each for each in assessments if each.is_eligible]
    return sorted(eligible, key=lambda a: (-a.score(weights).likely, -a.score(weights).low))


@dataclass(frozen=True, slots=True)
class Reversal:
    """One weight that, changed so, puts another product first."""

    criterion: str
    winner: str
    weight: float
    becomes: float

    @property
    def change(self) -> float:
        """Relative to the weight; infinite for a weight of 0."""
        return abs(self.becomes - self.weight) / self.weight if self.weight else float("inf")


def reversals(assessments: Sequence[Assessment], weights: Mapping[str, float]) -> tuple[Reversal, ...]:
    """Each weight by itself: where the likely scores of the first and of another one meet. The smallest change first."""
    order = ranked(assessments, weights)
    found = []
    for other in order[1:]:
        gaps = {
            a.criterion.name: a.points.likely - b.points.likely
            for a, b in zip(order[0].marks, other.marks, strict=True)
        }
        ahead = sum(weights[name] * gap for name, gap in gaps.items())
        for name, gap in gaps.items():
            becomes = weights[name] - ahead / gap if gap else -1.0
            if becomes >= 0:
                found.append(Reversal(name, other.product, weights[name], becomes))
    return tuple(sorted(found, key=lambda r: (r.change, r.criterion, r.winner)))


@dataclass(frozen=True, slots=True)
class Missing:
    """Evidence that could put another product first. gain: how far beyond the tie it could go, in points of the score."""

    product: str
    criterion: str
    asks: str
    gain: float


def missing_evidence(assessments: Sequence[Assessment], weights: Mapping[str, float]) -> tuple[Missing, ...]:
    """What is unknown, or stands on less than proof, and could change who is first if it were shown; most informative first."""
    order = ranked(assessments, weights)
    if len(order) < 2:
        return ()
    total = sum(weights.values())
    first, second = (each.score(weights).likely for each in order[:2])
    found = []
    for each in order:
        now = each.score(weights).likely
        for mark in each.marks:
            if mark.weight_of_evidence < 1:
                best = SCORE_MAX if mark.score is None else mark.score.high
                share = weights[mark.criterion.name] / total
                likely = mark.points.likely
                could_fall, could_rise = now - share * likely, now + share * (best - likely)
                gain = second - could_fall if each is order[0] else could_rise - first
                if gain > 0:
                    found.append(Missing(each.product, mark.criterion.name, mark.criterion.asks, gain))
    return tuple(sorted(found, key=lambda m: (-m.gain, m.product, m.criterion)))
