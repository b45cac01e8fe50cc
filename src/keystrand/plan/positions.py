"""What agencies and laws ask, how bindingly and until when; where they contradict each other; what is late for a link.

The rows stand in `data/positions.toml`, each with document, binding class and the day on which it was last checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cache
from itertools import combinations
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from keystrand.plan.estate import Estate, Site
from keystrand.plan.fact import Answer, Figure
from keystrand.plan.finding import Finding, Severity
from keystrand.plan.shelf import shipped
from keystrand.plan.survey import YEAR_DAYS

STALE_DAYS: Final = 365  # a catalogue that nobody checked for so long is printed with a warning


class Binding(StrEnum):
    """How much a position obliges whom it speaks to; ordered from the strongest."""

    LAW = "law"
    MANDATE = "mandate"
    POLICY = "policy"
    GUIDELINE = "guideline"
    GUIDANCE = "guidance"
    RECOMMENDATION = "recommendation"
    PROGRAMME = "programme"
    DRAFT = "draft"

    @property
    def obliges(self) -> bool:
        return self in (Binding.LAW, Binding.MANDATE, Binding.POLICY)


class Position(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One statement of one body about one topic: a demand, a date, or both."""

    body: str
    document: str
    binding: Binding
    topic: str
    says: str
    seen: Annotated[str, Meta(pattern="^(quoted|reported)$")]
    last_verified: date
    demand: str = ""
    due: date | None = None
    regimes: tuple[str, ...] = msgspec.field(default=(), name="for")
    countries: tuple[str, ...] = msgspec.field(default=(), name="in")


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All positions that come with the program."""

    as_of: date
    regimes: dict[str, str]
    countries: dict[str, tuple[str, ...]]
    demands: dict[str, tuple[tuple[str, str], ...]]
    positions: tuple[Position, ...]

    def speaks_to(self, position: Position, site: Site) -> bool:
        """By a rule set that binds the site, or by the country whose law applies there."""
        members = {code for name in position.countries for code in self.countries.get(name, (name,))}
        return site.jurisdiction in members or bool(set(position.regimes) & set(site.regimes))


@cache
def catalogue() -> Catalogue:
    return shipped("positions", Catalogue)


def applying(estate: Estate, name: str) -> tuple[Position, ...]:
    """Every position that speaks to an end of the link `name`, in the order of the catalogue."""
    sites = [estate.sites[end] for end in estate.links[name].ends if end in estate.sites]
    known = catalogue()
    return tuple(p for p in known.positions if any(known.speaks_to(p, site) for site in sites))


def excludes_qkd(estate: Estate, name: str) -> tuple[Position, ...]:
    """The binding positions that rule QKD out for this link; empty: none does."""
    return tuple(p for p in applying(estate, name) if p.topic == "qkd" and p.demand == "excluded" and p.binding.obliges)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two positions that cannot both be met, or that pull in opposite directions."""

    topic: str
    one: Position
    other: Position

    def __str__(self) -> str:
        sides = (f"{p.body} ({p.binding}): {p.demand}" for p in (self.one, self.other))
        return f"{self.topic}: " + " against ".join(sides)


def conflicts(positions: Iterable[Position]) -> tuple[Conflict, ...]:
    """Every pair that the catalogue calls contradictory. Two dates are none: the earlier one governs."""
    demands = catalogue().demands
    found = []
    for one, other in combinations([p for p in positions if p.demand], 2):
        pair = {one.demand, other.demand}
        if one.topic == other.topic and any(pair == set(clash) for clash in demands.get(one.topic, ())):
            found.append(Conflict(one.topic, one, other))
    return tuple(found)


class Standing(StrEnum):
    """Where a link stands against a date."""

    MET = "met"
    IN_TIME = "in time"
    AT_RISK = "at risk"  # met only if the migration takes no longer than its likely or lower figure
    LATE = "late"
    PASSED = "passed"
    UNKNOWN = "unknown"  # a start, a plan or equipment: no migration time says anything about it


@dataclass(frozen=True, slots=True)
class Deadline:
    """A date that speaks to a link. left_years: from the plan's date on; negative once it has passed."""

    position: Position
    left_years: float
    standing: Standing


def deadlines(estate: Estate, name: str, migration: Figure, *, migrated: Answer) -> tuple[Deadline, ...]:
    """The dates that speak to a link, the nearest first.

    migration: years until this estate's migration of key establishment is done. migrated: whether this link's key establishment
    is post-quantum already.
    """
    found = []
    for position in applying(estate, name):
        if position.due is not None:
            left = (position.due - estate.planned).days / YEAR_DAYS
            found.append(Deadline(position, left, _standing(position.topic, left, migration, migrated)))
    return tuple(sorted(found, key=lambda d: (d.left_years, d.position.body, d.position.says)))


def _standing(topic: str, left: float, migration: Figure, migrated: Answer) -> Standing:
    if topic == "key-establishment" and migrated is Answer.YES:
        return Standing.MET
    if left < 0:
        return Standing.PASSED
    if topic not in ("key-establishment", "signatures"):
        return Standing.UNKNOWN
    if left < migration.span.low:
        return Standing.LATE
    return Standing.AT_RISK if left < migration.span.high else Standing.IN_TIME


def position_findings(estate: Estate) -> tuple[Finding, ...]:
    """Rule sets that nobody knows, positions at odds, and rows that were not checked for a year."""
    known = catalogue()
    found = [
        Finding(
            ("sites", name, "regimes"),
            f"{regime!r} is no rule set that the planner knows: nothing follows from it",
            "R147",
            hint=f"known: {', '.join(known.regimes)}",
        )
        for name, site in estate.sites.items()
        for regime in site.regimes
        if regime not in known.regimes
    ]
    for name in estate.links:
        found += [
            Finding(("links", name), f"positions at odds: {clash}", "R147", Severity.NOTE)
            for clash in conflicts(applying(estate, name))
        ]
    if (old := (estate.planned - known.as_of).days) > STALE_DAYS:
        found.append(Finding((), f"positions and dates of agencies were last checked {old} days ago", "R147"))
    return tuple(found)
