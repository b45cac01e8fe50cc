"""How much light a path loses, in dB, by the best that is known of it: measured, or from the route, or from the map.

The formula for fibre was fitted to published links (median of what deployed fibre loses, and how far it strays); 0.20 dB/km,
the figure of textbooks, understates nearly all of them. It is never used for air or space, and a packet service of a carrier
has no path for single photons at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from keystrand.plan.estate import Estate, Link, Medium, Segment, Site
from keystrand.plan.fact import NOBODY, Answer, Basis, Figure, Span, figure

DB_PER_KM: Final = 0.27  # deployed fibre at 1550 nm with its splices; best fit to 23 published links below 100 km
DB_PER_KM_O: Final = 0.36  # the same at 1310 nm: 0.09 dB/km more in G.652 fibre
ENDS_DB: Final = 2.25  # patch panels and connectors of one path; the other figure of that fit
CONNECTOR_DB: Final = 0.3  # of a connector that is stated; as in the link engine
STRAY_DB: Final = 3.0  # standard deviation of published links around the fit
STRAYS: Final = 1.645  # deviations to either side: 90 % of a normal distribution
DB_PER_KM_LEAST: Final = 0.19  # good fibre without a panel: what long, new routes come down to
DETOUR: Final = Span(1.2, 1.35, 1.5)  # route over great circle; assumed
EARTH_KM: Final = 6371.0

FIBRE: Final = (Medium.DARK_FIBRE, Medium.LIT_FIBRE, Medium.UNKNOWN)


class Rung(StrEnum):
    """How a loss came to be known, the best first."""

    MEASURED = "measured or agreed dB"
    ROUTE = "km of the route x coefficient"
    MAP = "great circle x detour x coefficient"
    NONE = "unknown"


@dataclass(frozen=True, slots=True)
class PathLoss:
    """Of one path. loss_db, km: None where unknown, and `reasons` say why; `rung`: the worst way any part of it was found."""

    loss_db: Figure | None
    km: Span | None
    rung: Rung
    quantum_path: Answer
    reasons: tuple[str, ...] = ()


def path_loss(estate: Estate, name: str) -> PathLoss:
    """Of the link `name`, by the ladder measured, route, map."""
    link = estate.links[name]
    carries, why = quantum_path(link)
    if carries is Answer.NO:
        return PathLoss(None, _length(link), Rung.NONE, carries, why)
    if not link.segments:
        return _by_map(estate, link, why)
    parts = _segments(link.segments)
    if isinstance(parts, str):
        return PathLoss(None, _length(link), Rung.NONE, carries, (*why, parts))
    return PathLoss(parts[0], _length(link), parts[1], carries, why)


def quantum_path(link: Link) -> tuple[Answer, tuple[str, ...]]:
    """Whether single photons can go from end to end at all, and why not or why that is unknown."""
    if not link.segments:
        return Answer.UNKNOWN, ("no segment of the path is stated",)
    media = [segment.medium for segment in link.segments]
    if Medium.SERVICE in media:
        return Answer.NO, ("a carrier's packet or wavelength service has no path for single photons",)
    if Medium.UNKNOWN in media:
        return Answer.UNKNOWN, ("the medium of a segment is not stated",)
    return Answer.YES, ()


def fibre_db(km: Span, *, connectors: int = 0, band: str = "") -> Span:
    """Loss of so many km of deployed fibre, with its ends. The range holds 90 % of the published links it was fitted to."""
    per_km = DB_PER_KM_O if band.upper().startswith("O") else DB_PER_KM
    fixed, stray = max(ENDS_DB, connectors * CONNECTOR_DB), STRAYS * STRAY_DB
    low = min(per_km * km.low + fixed - stray, (per_km + DB_PER_KM_LEAST - DB_PER_KM) * km.low)
    return Span(max(0.0, low), per_km * km.likely + fixed, per_km * km.high + fixed + stray)


def great_circle_km(one: Site, other: Site) -> float | None:
    """Between two sites; None where a coordinate is missing. Haversine, on a sphere: right to 0.5 %."""
    if one.lat is None or one.lon is None or other.lat is None or other.lon is None:
        return None
    return _arc_km(one.lat, one.lon, other.lat, other.lon)


@lru_cache(1 << 17)  # all pairs of some 350 sites: a large estate asks for the same ones link after link
def _arc_km(lat: float, lon: float, lat_there: float, lon_there: float) -> float:
    north, south = math.radians(lat), math.radians(lat_there)
    across = math.radians(lon_there - lon)
    half = math.sin((south - north) / 2) ** 2 + math.cos(north) * math.cos(south) * math.sin(across / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, half)))


def route_km(one: Site, other: Site) -> Span | None:
    """Length of fibre between two sites that nobody measured: the great circle with a detour."""
    straight = great_circle_km(one, other)
    return None if straight is None else DETOUR.times(straight)


def _by_map(estate: Estate, link: Link, why: tuple[str, ...]) -> PathLoss:
    ends = [estate.sites.get(end, Site()) for end in link.ends]
    km = route_km(ends[0], ends[1])
    if km is None:
        reason = "neither loss nor length is stated, and the sites have no coordinates"
        return PathLoss(None, None, Rung.NONE, Answer.UNKNOWN, (*why, reason))
    return PathLoss(Figure(fibre_db(km)), km, Rung.MAP, Answer.UNKNOWN, why)


def _segments(segments: Iterable[Segment]) -> tuple[Figure, Rung] | str:
    """Loss of all segments together, or why it is unknown. What is not measured is one run of fibre with two ends."""
    total, basis, source, fibre = Span.point(0.0), [], NOBODY, []
    for segment in segments:
        if segment.loss_db is not None:
            stated = figure(segment.loss_db)
            total, source = total + stated.span, stated.source
            basis.append(stated.basis)
        elif segment.medium not in FIBRE:
            return f"a {segment.medium} segment needs its loss in dB: no formula of fibre holds there"
        elif segment.length_km is None:
            return "a segment states neither its loss in dB nor its length in km"
        else:
            fibre.append(segment)
    if not fibre:
        return Figure(total, Basis.weakest(basis), source), Rung.MEASURED
    return Figure(total + _unmeasured(fibre), Basis.ASSUMED), Rung.ROUTE


def _unmeasured(fibre: list[Segment]) -> Span:
    bands = sorted({segment.band.upper()[:1] for segment in fibre})
    lengths = [figure(segment.length_km).span for segment in fibre if segment.length_km is not None]
    km = Span(sum(s.low for s in lengths), sum(s.likely for s in lengths), sum(s.high for s in lengths))
    return fibre_db(km, connectors=sum(s.connectors for s in fibre), band="O" if "O" in bands else "")


def _length(link: Link) -> Span | None:
    known = [figure(segment.length_km).span for segment in link.segments if segment.length_km is not None]
    if not known or len(known) < len(link.segments):
        return None
    return Span(sum(s.low for s in known), sum(s.likely for s in known), sum(s.high for s in known))
