"""What a link carries and what it is: confidentiality horizon, business impact, path type, ownership and stability.

Nothing is ever lowered: a link is worth at least the most valuable class that it carries, and has to keep secret for at least
as long as the longest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keystrand.plan.estate import Control, Estate, Family, Impact, Link, Medium, PathType
from keystrand.plan.fact import Basis, Figure, Span, figure
from keystrand.plan.finding import Finding, Severity
from keystrand.plan.pattern import Pattern
from keystrand.plan.templates import horizon_of, impact_of

DAY_YEARS: Final = 1 / 365.25
YEAR_YEARS: Final = 1.0
REROUTES_STATIC_MAX: Final = 4.0  # a year; assumed: planned work, once a quarter. Above it a path is called dynamic.


class Lifetime(StrEnum):
    """The scale of a horizon, by the most that it may be."""

    HOURS = "hours"  # stale within a day: before the first machine, which takes a day for one key, has read anything
    MONTHS = "months"
    YEARS = "years"
    UNKNOWN = "unknown"


class Stability(StrEnum):
    STATIC = "static"
    DYNAMIC = "dynamic"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Default:
    """Where a path of some type starts from, before any figure is looked at: a pattern, and the transports it fits."""

    pattern: Pattern
    transports: tuple[Family, ...]
    why: str


DEFAULTS: Final = {
    PathType.DC_DC: Default(
        Pattern.PQC_QKD, (Family.MACSEC, Family.IPSEC), "few links, often own fibre, much data in one place"
    ),
    PathType.BACKBONE: Default(
        Pattern.PQC_QKD_MULTI, (Family.MACSEC, Family.IPSEC), "long reach needs relays, so one source is not enough"
    ),
    PathType.BRANCH_CORE: Default(Pattern.PQC, (Family.IPSEC,), "many sites over services of carriers"),
    PathType.DEVICE_CLOUD: Default(Pattern.PQC, (Family.TLS, Family.QUIC), "no path that light could take end to end"),
    PathType.FIELD: Default(Pattern.PQC, (Family.TLS, Family.WIREGUARD), "devices that are weak, and hard to visit"),
    PathType.UNKNOWN: Default(Pattern.PQC, (), "nothing is known of the path"),
}


@dataclass(frozen=True, slots=True)
class Classified:
    """A link with its worth and its nature.

    impact, horizon_years: None where nothing is known; `partial` where something is not, so that both are floors.
    provenance: what each of the two rests on, in words.
    """

    link: str
    impact: Impact | None
    horizon_years: Figure | None
    carries: tuple[str, ...]
    path: PathType
    lifetime: Lifetime
    control: Control
    stability: Stability
    default: Default
    partial: bool
    provenance: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def no_quantum_treatment(self) -> bool:
        """All that the link carries is stale within a day. False while any of it is unknown."""
        return self.lifetime is Lifetime.HOURS and not self.partial


def classify(estate: Estate, name: str) -> Classified:
    """What link `name` carries and is. Raises KeyError for a link that the estate has not."""
    link = estate.links[name]
    horizons = {each: horizon_of(estate.classes[each]) for each in link.carries}
    known = {each: figure for each, figure in horizons.items() if figure is not None}
    horizon = _longest(known)
    partial = not link.carries or len(known) < len(horizons)
    impact, why = _impact(estate, link)
    return Classified(
        link=name,
        impact=impact,
        horizon_years=horizon,
        carries=link.carries,
        path=link.path,
        lifetime=lifetime(horizon),
        control=weakest_control(link),
        stability=stability(link),
        default=DEFAULTS[link.path],
        partial=partial,
        provenance=(why, *(f"{each}: {_years(figure)}" for each, figure in known.items())),
        findings=tuple(_findings(estate, name, link)),
    )


def _longest(horizons: dict[str, Figure]) -> Figure | None:
    """The range within which the longest of them lies, with the source of the one that may last longest."""
    if not horizons:
        return None
    figures = list(horizons.values())
    spans = [each.span for each in figures]
    longest = max(figures, key=lambda each: (each.span.high, each.span.likely))
    span = Span(max(s.low for s in spans), max(s.likely for s in spans), max(s.high for s in spans))
    return Figure(span, Basis.weakest(each.basis for each in figures), longest.source)


def lifetime(horizon: Figure | None) -> Lifetime:
    if horizon is None:
        return Lifetime.UNKNOWN
    if horizon.span.high <= DAY_YEARS:
        return Lifetime.HOURS
    return Lifetime.MONTHS if horizon.span.high < YEAR_YEARS else Lifetime.YEARS


def _impact(estate: Estate, link: Link) -> tuple[Impact | None, str]:
    """The highest of what is stated for the link and for its classes, and who says so."""
    told = {f"class {each}": impact_of(estate.classes[each]) for each in link.carries} | {"the link": link.impact}
    known = {who: impact for who, impact in told.items() if impact is not None}
    if not known:
        return None, "impact: nobody has stated it"
    ranks = list(Impact)
    who = max(known, key=lambda each: ranks.index(known[each]))
    return known[who], f"impact {known[who]}: {who}"


def weakest_control(link: Link) -> Control:
    """Who decides over the segment that we decide least over; unknown counts as the least."""
    ranks = list(Control)
    return max((segment.control for segment in link.segments), key=ranks.index, default=Control.UNKNOWN)


def stability(link: Link) -> Stability:
    """By re-routes a year, as stated; a path over a carrier's service is dynamic, whatever it is called."""
    if any(segment.medium is Medium.SERVICE for segment in link.segments):
        return Stability.DYNAMIC
    if link.reroutes_per_year is None:
        return Stability.UNKNOWN
    static = figure(link.reroutes_per_year).span.high <= REROUTES_STATIC_MAX
    return Stability.STATIC if static else Stability.DYNAMIC


def _years(horizon: Figure) -> str:
    low, high = horizon.span.low, horizon.span.high
    source = f" ({horizon.source.what})" if horizon.source.what else ""
    return f"{low:g} years{source}" if low == high else f"{low:g} to {high:g} years{source}"


def _findings(estate: Estate, name: str, link: Link) -> Iterator[Finding]:
    where = ("links", name)
    if not link.carries:
        yield Finding((*where, "carries"), "names no data class, so nothing is known of what it is worth", "R116")
    for each in link.carries:
        if horizon_of(estate.classes[each]) is None:
            says = f"class {each} has no horizon: what the link needs is at least what the others say"
            yield Finding((*where, "carries"), says, "R116", hint=f"state horizon_years in [classes.{each}]")
        if impact_of(estate.classes[each]) is None:
            says = f"class {each} has no impact: the link's may be higher than shown"
            yield Finding((*where, "carries"), says, "R117", hint=f"state impact in [classes.{each}]")
    if link.path is PathType.UNKNOWN:
        yield Finding((*where, "path"), "does not say what it joins", "R120", hint=f"one of {', '.join(PathType)}")
    yield from _of_path(link, where)


def _of_path(link: Link, where: tuple[str | int, ...]) -> Iterator[Finding]:
    if not link.segments:
        yield Finding((*where, "segments"), "states no segment: its path and owner are unknown", "R121")
    for place, segment in enumerate(link.segments):
        at = (*where, "segments", place)
        who = segment.owner or "whoever runs it"
        if segment.control is Control.THIRD_PARTY:
            hint = f"ask {who} for route, splices, access rights and repair times in writing"
            yield Finding(at, "is in the hands of a third party: feasibility counts for less", "R121", hint=hint)
        elif segment.control is Control.UNKNOWN:
            yield Finding((*at, "control"), "does not say who decides over it", "R121")
        if segment.medium in (Medium.FREE_SPACE, Medium.SATELLITE) and segment.availability is None:
            says = f"is {segment.medium} without its availability: no rate can be computed"
            hint = "state the share of time that light passes, with weather and pointing"
            yield Finding((*at, "availability"), says, "R124", Severity.BLOCKING, hint)
    steady = stability(link)
    if steady is Stability.DYNAMIC:
        says = "has a path that changes: PQC on classical transport first"
        yield Finding((*where, "reroutes_per_year"), says, "R122", Severity.NOTE)
    elif steady is Stability.UNKNOWN and link.segments:
        says = "does not say how often its path changes"
        yield Finding(
            (*where, "reroutes_per_year"), says, "R122", hint="state reroutes_per_year, as declared or counted"
        )
