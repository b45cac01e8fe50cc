"""Risk under all assumptions at once: seeded draws, two bounding curves, and what would turn the order of two patterns round.

Each assumption is drawn from a triangle over its range (low, likely, high); it is the same draw for every link, for it is the
same world. The survey is no distribution to draw from but two bounds: all is computed under the late and under the early curve,
and a band reaches from the 5 % point under the first to the 95 % point under the second (a p-box). No figure is added up to a
score. The one door of this room to numpy for drawing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from keystrand.plan.estate import Estate
from keystrand.plan.exposure import DAY_YEARS, share
from keystrand.plan.fact import Basis, Figure, Span
from keystrand.plan.residual import Build, World, inputs, residual, world_of
from keystrand.plan.survey import Curve, arrival

DRAWS: Final = 10_000
SEED: Final = 1
LOW, HIGH = 0.05, 0.95
KEPT: Final = 64  # results that are kept for the next link: 64 times two arrays of 10,000 draws are 10 MB
_EQUAL = 1e-12  # two formulas for one thing differ by rounding

Draws = NDArray[np.float64]


def quantiles(name: str, count: int, seed: int) -> Draws:
    """`count` numbers in (0, 1), one in each of as many equal slices, in an order of its own for each name."""
    random = np.random.default_rng([seed, crc32(name.encode())])
    mixed: Draws = (random.permutation(count) + random.random(count)) / count
    return mixed


def triangle(span: Span, at: Draws) -> Draws:
    """The values of a triangular distribution at the quantiles `at`; a point where low is high."""
    width, rise = span.high - span.low, span.likely - span.low
    if width <= 0:
        return np.full_like(at, span.likely)
    up = span.low + np.sqrt(at * width * rise)
    down = span.high - np.sqrt((1 - at) * width * (width - rise))
    return np.where(at * width < rise, up, down)


def area(curve: Curve) -> Callable[[Draws], Draws]:
    """`curve.area` for arrays."""
    starts, heights, slopes, areas, _ = (np.array(column) for column in zip(*curve.pieces, strict=True))

    def at(t: Draws) -> Draws:
        place = np.maximum(np.searchsorted(starts, t, side="right") - 1, 0)
        u = np.maximum(t, 0.0) - starts[place]
        found: Draws = areas[place] + (heights[place] + slopes[place] / 2 * u) * u
        return found

    return at


class Trial:
    """All draws of one estate; what is alike for neighbouring links is computed once. The same seed gives the same figures."""

    def __init__(self, estate: Estate, count: int = DRAWS, seed: int = SEED) -> None:
        self.count, self.seed = count, seed
        self._assumptions = estate.assumptions
        self._arrival = arrival(estate.assumptions, estate.planned)
        self._draw = lru_cache(KEPT)(self._drawn)
        self._world = lru_cache(KEPT)(self._worlds)
        self._risk = lru_cache(KEPT)(self._risks)

    def risks(self, horizon: Figure, starved: Figure | None, build: Build) -> tuple[Draws, Draws]:
        """Residual risk of each draw, shape (count,), with the machine late and with it early."""
        return self._risk(horizon, starved, build)

    def band(self, horizon: Figure, starved: Figure | None, build: Build) -> Span:
        """From the 5 % point with the machine late to the 95 % point with it early; likely: between the two medians."""
        late, early = (np.sort(risks) for risks in self.risks(horizon, starved, build))
        low, high = late[int(LOW * self.count)], early[min(self.count - 1, int(HIGH * self.count))]
        middle = (late[self.count // 2] + early[self.count // 2]) / 2
        return Span(float(low), float(min(max(low, middle), high)), float(high))

    def no_worse(self, horizon: Figure, starved: Figure | None, one: Build, other: Build) -> float:
        """The share of draws, under both curves, in which `one` leaves no more risk than `other`; 1: it dominates."""
        pairs = zip(self.risks(horizon, starved, one), self.risks(horizon, starved, other), strict=True)
        return float(np.mean([np.mean(a <= b + _EQUAL) for a, b in pairs]))

    def removed(self, horizon: Figure, starved: Figure | None, one: Build, other: Build) -> Span:
        """How much less risk `other` leaves than `one`, draw by draw: 5 % to 95 % points, the wider of both curves."""
        before, after = self.risks(horizon, starved, one), self.risks(horizon, starved, other)
        late, early = (np.sort(a - b) for a, b in zip(before, after, strict=True))
        at = [int(share * (self.count - 1)) for share in (LOW, 0.5, HIGH)]
        low, high = min(late[at[0]], early[at[0]]), max(late[at[2]], early[at[2]])
        return Span(float(low), float((late[at[1]] + early[at[1]]) / 2), float(high))

    def _risks(self, horizon: Figure, starved: Figure | None, build: Build) -> tuple[Draws, Draws]:
        late, early = (residual(world, build) for world in self._world(horizon, starved))
        return late, early

    def _worlds(self, horizon: Figure, starved: Figure | None) -> tuple[World[Draws], World[Draws]]:
        found = inputs(self._assumptions, horizon, starved)
        drawn = {name: self._draw(name, f.span) for name, f in found.items()}
        years = np.maximum(drawn["migration_years"], DAY_YEARS)
        lag = np.maximum(drawn["lag_years"], DAY_YEARS)
        late, early = (
            World(
                exposed=share(area(curve), drawn["horizon"], years, lag, drawn["recorded"]),
                endpoint=drawn["endpoint"],
                pqc=drawn["pqc_break"],
                device=drawn["qkd_failure"],
                relay_per_year=drawn["relay_per_year"],
                years=years,
                common=drawn["common_cause"],
                starved=drawn["starved"],
                in_operation=np.minimum(1.0, years / np.maximum(drawn["horizon"], DAY_YEARS)),
            )
            for curve in (self._arrival.late, self._arrival.early)
        )
        return late, early

    def _drawn(self, name: str, span: Span) -> Draws:
        return triangle(span, quantiles(name, self.count, self.seed))


@dataclass(frozen=True, slots=True)
class Swing:
    """How far one assumption alone moves the likely residual risk, from its lower to its upper end."""

    name: str
    low: float
    high: float
    basis: Basis

    @property
    def width(self) -> float:
        return abs(self.high - self.low)


def tornado(estate: Estate, horizon: Figure, starved: Figure | None, build: Build) -> tuple[Swing, ...]:
    """Every assumption by itself, all others at their likely value; the widest first. "survey": late and early curve."""
    when = arrival(estate.assumptions, estate.planned)
    both, found = (when.late, when.early), inputs(estate.assumptions, horizon, starved)
    likely = {name: f.span.likely for name, f in found.items()}

    def at(name: str, value: float) -> float:
        return residual(world_of(likely | {name: value}, both), build)

    swings = [Swing(name, at(name, f.span.low), at(name, f.span.high), f.basis) for name, f in found.items()]
    ends = [residual(world_of(likely, (curve,)), build) for curve in both]
    return tuple(sorted((*swings, Swing("survey", ends[0], ends[1], Basis.ASSUMED)), key=lambda s: (-s.width, s.name)))


REACH: Final = {"migration_years": 30.0, "lag_years": 30.0, "horizon": 60.0}
"""How far a flip point is looked for, in years; chances, and hazards per year: up to CHANCE_MAX."""
CHANCE_MAX: Final = 0.99  # at 1 all patterns are alike
STEPS: Final = 64


@dataclass(frozen=True, slots=True)
class Flip:
    """Where one assumption would turn an answer round. within: inside its stated range, so that the answer is not robust."""

    name: str
    at: float
    upwards: bool
    within: bool

    def __str__(self) -> str:
        return f"{self.name} {'>' if self.upwards else '<'} {self.at:.3g}"


def flips(
    estate: Estate, horizon: Figure, starved: Figure | None, holds: Callable[[World[float]], bool]
) -> tuple[Flip, ...]:
    """The nearest value of each assumption, up and down, at which `holds` is no longer what it is in the likely world."""
    when = arrival(estate.assumptions, estate.planned)
    found = inputs(estate.assumptions, horizon, starved)
    likely = {name: f.span.likely for name, f in found.items()}
    now = holds(world_of(likely, (when.late, when.early)))
    turned: list[Flip] = []
    for name, f in found.items():

        def turns(value: float, name: str = name) -> bool:
            return holds(world_of(likely | {name: value}, (when.late, when.early))) is not now

        for end in (0.0, REACH.get(name, CHANCE_MAX)):
            if (at := _nearest(turns, f.span.likely, end)) is not None:
                turned.append(Flip(name, at, end > f.span.likely, f.span.low <= at <= f.span.high))
    return tuple(turned)


def _nearest(turns: Callable[[float], bool], start: float, end: float) -> float | None:
    """The first of `STEPS` values from `start` to `end` at which it turns, narrowed down by halving."""
    last = start
    for n in range(1, STEPS + 1):
        value = start + (end - start) * n / STEPS
        if turns(value):
            for _ in range(40):
                middle = (last + value) / 2
                last, value = (last, middle) if turns(middle) else (middle, value)
            return value
        last = value
    return None
