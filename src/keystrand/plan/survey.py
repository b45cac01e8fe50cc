"""When a machine arrives that breaks classical key exchange: what experts answered, as a lower and an upper curve.

Source: Global Risk Institute and evolutionQ, Quantum Threat Timeline Report; figures and caveats in `data/survey.toml`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from itertools import pairwise
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from keystrand.plan.assumptions import Assumptions
from keystrand.plan.fact import figure
from keystrand.plan.shelf import shipped

YEAR_DAYS: Final = 365.25


class Piece(NamedTuple):
    """A straight stretch of a curve from `start` on: height and slope there, and the first two integrals from 0 up to there."""

    start: float
    height: float
    slope: float
    area: float
    volume: float


@dataclass(frozen=True)
class Curve:
    """F(t): the chance that the machine exists t years from the plan's date. Straight between its knots, flat after the last.

    years, chances: knots in order, from (0, 0); two knots at one year are a step, taken at that year.
    """

    years: tuple[float, ...]
    chances: tuple[float, ...]

    def __post_init__(self) -> None:
        knots = list(zip(self.years, self.chances, strict=True))
        if knots[0] != (0.0, 0.0) or knots != sorted(knots) or list(self.chances) != sorted(self.chances):
            raise ValueError(f"a curve starts at (0, 0) and never falls: {knots}")
        if self.chances[-1] > 1:
            raise ValueError(f"a chance of {self.chances[-1]} is more than 1")

    @classmethod
    def step(cls, year: float) -> Curve:
        """The machine arrives in this very year: what Mosca's inequality assumes."""
        return cls((0.0, year, year), (0.0, 0.0, 1.0))

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        found = []
        area = volume = 0.0
        for (t, height), (end, top) in pairwise(zip(self.years, self.chances, strict=True)):
            if width := end - t:
                slope = (top - height) / width
                found.append(Piece(t, height, slope, area, volume))
                volume += area * width + height * width**2 / 2 + slope * width**3 / 6
                area += height * width + slope * width**2 / 2
        return (*found, Piece(self.years[-1], self.chances[-1], 0.0, area, volume))

    def chance(self, t: float) -> float:
        """F(t); 0 before the plan's date."""
        piece, u = self._at(t)
        return piece.height + piece.slope * u

    def area(self, t: float) -> float:
        """Integral of F from 0 to t, exactly. Years."""
        piece, u = self._at(t)
        return piece.area + (piece.height + piece.slope * u / 2) * u

    def volume(self, t: float) -> float:
        """Integral of `area` from 0 to t, exactly. Years squared."""
        piece, u = self._at(t)
        return piece.volume + (piece.area + (piece.height / 2 + piece.slope * u / 6) * u) * u

    def _at(self, t: float) -> tuple[Piece, float]:
        if t < 0:
            return Piece(0.0, 0.0, 0.0, 0.0, 0.0), 0.0
        piece = self.pieces[bisect_right(self.pieces, t, key=lambda piece: piece.start) - 1]
        return piece, t - piece.start

    def given_not_before(self, age: float) -> Curve:
        """The same curve seen `age` years later, no machine having come: (F(t + age) - F(age)) / (1 - F(age))."""
        passed = self.chance(age)
        if passed >= 1:
            raise ValueError(f"the curve says that the machine came within {age:g} years")
        later = [
            (t - age, (p - passed) / (1 - passed)) for t, p in zip(self.years, self.chances, strict=True) if t > age
        ]
        years, chances = zip((0.0, 0.0), *later, strict=True)
        return Curve(years, chances)


@dataclass(frozen=True, slots=True)
class Arrival:
    """Two curves between which the answer lies (a p-box): machine rather late, machine rather early.

    told: whose word that is. asked_years: how far they were asked, from the plan's date; both curves are flat after that.
    """

    late: Curve
    early: Curve
    told: str
    asked_years: float


class Edition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One edition of the survey."""

    experts: int
    published: str
    counted_from: date
    counted_from_basis: str
    years: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    last_verified: date
    note: str

    def arrival(self, told: str, planned: date) -> Arrival:
        age = max(0.0, (planned - self.counted_from).days / YEAR_DAYS)
        late, early = (self._curve(chances).given_not_before(age) for chances in (self.low, self.high))
        return Arrival(late, early, told, self.years[-1] - age)

    def _curve(self, chances: Sequence[float]) -> Curve:
        return Curve((0.0, *self.years), (0.0, *chances))


class Survey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All editions, with whom to credit and what to bear in mind."""

    question: str
    credit: str
    caveats: tuple[str, ...]
    editions: Annotated[dict[str, Edition], Meta(min_length=1)]


@cache
def survey() -> Survey:
    """The editions that come with the program."""
    return shipped("survey", Survey)


def arrival(assumed: Assumptions, planned: date) -> Arrival:
    """The two curves of the edition that is assumed, from `planned` on and given that no machine is known by then.

    Where the estate states its own years instead, steps at both ends of that range: Mosca's inequality. Raises ValueError for
    an edition that there is not.
    """
    if assumed.machine_years is not None:
        span = figure(assumed.machine_years).span
        words = f"machine in {span.low:g} to {span.high:g} years, as the estate states"
        return Arrival(Curve.step(span.high), Curve.step(span.low), words, math.inf)
    editions = survey().editions
    if assumed.survey not in editions:
        raise ValueError(f"there is no edition {assumed.survey!r} of the survey; known: {', '.join(sorted(editions))}")
    return editions[assumed.survey].arrival(f"survey {assumed.survey}: {survey().credit}", planned)
