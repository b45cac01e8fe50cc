"""What is known, how well, and from where: four-valued answers, ranges instead of points, and the source of each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta


class Answer(StrEnum):
    """Never two values only: not to have looked is not to have found nothing."""

    YES = "yes"
    NO = "no"
    NOT_APPLICABLE = "not-applicable"
    UNKNOWN = "unknown"


class Basis(StrEnum):
    """Where a figure comes from; every figure that is printed says it."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    ASSUMED = "assumed"

    @staticmethod
    def weakest(bases: Iterable[Basis]) -> Basis:
        """Of a figure that was computed from others: no better than the least of them."""
        return max(bases, key=list(Basis).index, default=Basis.ASSUMED)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What a fact was taken from. `dated` is the day of the finding, not of its reading."""

    what: Annotated[str, Meta(description="file, document or person")] = ""
    tool: Annotated[str, Meta(description="program that found it")] = ""
    version: Annotated[str, Meta(description="of the program")] = ""
    dated: Annotated[date | None, Meta(description="day of the finding")] = None

    @property
    def words(self) -> str:
        """`scan.json, sslyze 6.3.1, 2026-11-01`; empty where nothing is known."""
        return ", ".join(str(part) for part in (self.what, f"{self.tool} {self.version}".strip(), self.dated) if part)


@dataclass(frozen=True, slots=True)
class Span:
    """A figure as a range: what it may be at least, what it is likely to be, what it may be at most."""

    low: float
    likely: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.likely <= self.high or math.isnan(self.low + self.high):
            raise ValueError(f"{self.low:g} <= {self.likely:g} <= {self.high:g} does not hold")

    @classmethod
    def point(cls, value: float) -> Span:
        return cls(value, value, value)

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, other: Span) -> Span:
        """Of two that are not negative."""
        return Span(self.low * other.low, self.likely * other.likely, self.high * other.high)

    def times(self, factor: float) -> Span:
        """Scaled by a factor that is not negative."""
        return Span(self.low * factor, self.likely * factor, self.high * factor)


class Stated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure with all that belongs to it. `likely` alone is a point; a range may leave `likely` out."""

    likely: Annotated[float | None, Meta(description="most likely value")] = None
    low: Annotated[float | None, Meta(description="at least")] = None
    high: Annotated[float | None, Meta(description="at most")] = None
    basis: Annotated[Basis, Meta(description="measured, simulated or assumed")] = Basis.ASSUMED
    source: Annotated[str, Meta(description="file, document, person or instrument")] = ""
    tool: Annotated[str, Meta(description="program that found it")] = ""
    version: Annotated[str, Meta(description="of the program")] = ""
    dated: Annotated[date | None, Meta(description="day of the finding")] = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """No figure, and why: what would have to be stated first."""

    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "unknown: " + "; ".join(self.reasons)


Quantity = float | tuple[float, float] | Stated
"""How a file states a figure: `42.0`, `[40.0, 45.0]`, or a table with its basis and source. The first two count as assumed."""


NOBODY: Final = Source()


@dataclass(frozen=True, slots=True)
class Figure:
    """A range with its basis and source, ready to be computed with and printed."""

    span: Span
    basis: Basis = Basis.ASSUMED
    source: Source = NOBODY


def figure(stated: Quantity) -> Figure:
    """The figure that a file states. Raises ValueError for a range upside down, or a table without any value."""
    if isinstance(stated, Stated):
        return Figure(_span(stated), stated.basis, _source(stated))
    if isinstance(stated, tuple):
        low, high = stated
        return Figure(Span(low, (low + high) / 2, high))
    return Figure(Span.point(float(stated)))


def _span(stated: Stated) -> Span:
    given = [value for value in (stated.low, stated.likely, stated.high) if value is not None]
    if not given:
        raise ValueError("states no value: give likely, or low and high")
    low = given[0] if stated.low is None else stated.low
    high = given[-1] if stated.high is None else stated.high
    return Span(low, (low + high) / 2 if stated.likely is None else stated.likely, high)


def _source(stated: Stated) -> Source:
    return Source(what=stated.source, tool=stated.tool, version=stated.version, dated=stated.dated)


def scaled(value: float, digits: int = 3) -> str:
    """`7.4k`, `2.58M`, `0.3`"""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}"
