"""What risk is left under each pattern: the chance that traffic sent until the migration ends is read while it must be secret.

Every formula takes floats, or arrays with one draw in each place. Independence is assumed where two chances are multiplied, and
`common` takes back the share of failures that hit both at once (the beta-factor model of common causes).

No pattern touches what happens at the ends (`endpoint`): a plan that leaves it out promises too much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic

import msgspec

from keystrand.plan.assumptions import Assumptions
from keystrand.plan.estate import Estate, FailurePolicy, Link
from keystrand.plan.exposure import DAY_YEARS, C, Case
from keystrand.plan.fact import Basis, Figure, Span, Unknown, figure
from keystrand.plan.pattern import Interaction, Pattern
from keystrand.plan.survey import Curve, arrival

DRAWN: Final = tuple(
    field.name for field in msgspec.structs.fields(Assumptions) if field.name not in ("survey", "machine_years")
)
"""The assumptions that are ranges; all of them enter a world."""
ENDS: Final = ("low", "likely", "high")


@dataclass(frozen=True, slots=True)
class World(Generic[C]):
    """One value of each assumption, of one shape.

    exposed: share of classically protected traffic that a later machine reads (`exposure.share`). endpoint, pqc, device:
    chances of failure at the ends, of the post-quantum exchange, of a QKD device. relay_per_year: hazard of one relay. years:
    for how long the traffic in question is sent. common: share of failures that hit two layers at once. starved: share of time
    without QKD keys. in_operation: share of the horizon in which keys are exchanged.
    """

    exposed: C
    endpoint: C
    pqc: C
    device: C
    relay_per_year: C
    years: C
    common: C
    starved: C
    in_operation: C


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How a pattern stands on a link.

    relays: on each of its disjoint paths. hybrid: the classical exchange stays beside PQC. qkd_alone: without PQC, to compare.
    """

    pattern: Pattern
    interaction: Interaction = Interaction.COMBINED
    relays: tuple[int, ...] = (0,)
    on_exhaustion: FailurePolicy = FailurePolicy.CLOSED
    hybrid: bool = True
    qkd_alone: bool = False


def either(one: C, other: C) -> C:
    """At least one of two independent failures."""
    return 1 - (1 - one) * (1 - other)


def both(one: C, other: C, common: C) -> C:
    """Two layers broken: beta * min(a, b) + (1 - beta) * a * b, with the share `common` of causes that hit both."""
    smaller = (one + other - abs(one - other)) / 2
    return common * smaller + (1 - common) * one * other


def path(device: C, relay_per_year: C, years: C, relays: int) -> C:
    """One QKD path: 1 - (1 - d) * exp(-lambda * K * years). Forward only: keys erased before a break stay secret."""
    survives: C = math.e ** -(relay_per_year * relays * years)
    return 1 - (1 - device) * survives


def paths(world: World[C], relays: tuple[int, ...]) -> C:
    """Disjoint paths whose keys are added modulo two: all of them have to be broken."""
    assert relays, "a QKD pattern has a path"
    broken = path(world.device, world.relay_per_year, world.years, relays[0])
    for count in relays[1:]:
        broken = broken * path(world.device, world.relay_per_year, world.years, count)
    return broken


def pqc_layer(world: World[C], *, hybrid: bool) -> C:
    """Post-quantum exchange alone, or together with the classical one: then both have to be broken."""
    return both(world.pqc, world.exposed, world.common) if hybrid else world.pqc


def combined(world: World[C], qkd: C, pqc: C) -> C:
    """Both secrets go into one KDF, in one key manager: a cause may be common."""
    return both(qkd, pqc, world.common)


def separate(world: World[C], qkd: C, pqc: C) -> C:
    """One encryption inside the other, with key managers and boxes of their own: nothing in common but the ends."""
    return qkd * pqc


def pqc_authenticated(world: World[C], qkd: C, pqc: C) -> C:
    """QKD alone keeps the secret; PQC signatures have to hold only while keys are exchanged."""
    return either(qkd, world.pqc * world.in_operation)


def pqc_fallback(world: World[C], qkd: C, pqc: C) -> C:
    """One or the other: QKD keys while there are any, PQC for the share of time without."""
    return (1 - world.starved) * qkd + world.starved * pqc


_TOGETHER: dict[Interaction, Any] = {
    Interaction.COMBINED: combined,
    Interaction.SEPARATE: separate,
    Interaction.PQC_AUTHENTICATED: pqc_authenticated,
    Interaction.PQC_FALLBACK: pqc_fallback,
}


def broken(world: World[C], build: Build) -> C:
    """The layers of a pattern are broken; the ends are not looked at."""
    if build.pattern is Pattern.CLASSICAL:
        return world.exposed
    pqc = pqc_layer(world, hybrid=build.hybrid)
    if not build.pattern.has_qkd:
        return pqc
    qkd = paths(world, build.relays)
    if build.qkd_alone:
        return _opened(world, build, qkd, world.exposed)
    together: C = _TOGETHER[build.interaction](world, qkd, pqc)
    if build.interaction is Interaction.PQC_FALLBACK:
        return together
    left = world.exposed if build.interaction is Interaction.PQC_AUTHENTICATED else pqc
    return _opened(world, build, together, left)


def _opened(world: World[C], build: Build, closed: C, left: C) -> C:
    """Fail-open: for the share of time without QKD keys traffic goes on under what is left. Unanswered: the worse of both."""
    if build.on_exhaustion is FailurePolicy.CLOSED:
        return closed
    opened = (1 - world.starved) * closed + world.starved * left
    if build.on_exhaustion is FailurePolicy.OPEN:
        return opened
    return (opened + closed + abs(opened - closed)) / 2


def residual(world: World[C], build: Build) -> C:
    """Residual risk: the layers are broken, or an end fails."""
    return either(world.endpoint, broken(world, build))


def budget(device: float, pqc: float, relay_per_year: float, years: float) -> float:
    """K*: QKD alone beats PQC alone only with fewer relays than this. 0: not even without any. Infinite: relays never fail."""
    margin = math.log1p(-device) - math.log1p(-pqc)
    if margin <= 0:
        return 0.0
    hazard = relay_per_year * years
    return margin / hazard if hazard else math.inf


def relay_budget(a: Assumptions) -> Span:
    """K* over the ranges of the assumptions. As soon as PQC keys are combined with those of QKD, no budget is needed."""
    d, q, hazard, years = (figure(s).span for s in (a.qkd_failure, a.pqc_break, a.relay_per_year, a.migration_years))
    return Span(
        budget(d.high, q.low, hazard.high, years.high),
        budget(d.likely, q.likely, hazard.likely, years.likely),
        budget(d.low, q.high, hazard.low, years.low),
    )


@dataclass(frozen=True, slots=True)
class Corners:
    """The mildest, the likely and the worst world for data of one horizon: every draw of the assumptions lies between."""

    mild: World[float]
    likely: World[float]
    worst: World[float]
    basis: Basis

    def residual(self, build: Build) -> Span:
        """What is left under a pattern. Time without QKD keys is not always worse, so both ends of its range are tried."""
        hours = (self.mild.starved, self.worst.starved)
        low = min(residual(replace(self.mild, starved=starved), build) for starved in hours)
        high = max(residual(replace(self.worst, starved=starved), build) for starved in hours)
        return Span(low, min(max(low, residual(self.likely, build)), high), high)


def inputs(a: Assumptions, horizon: Figure, starved: Figure | None) -> dict[str, Figure]:
    """Every figure that a world is made of, by its name: the assumptions, "horizon" and "starved".

    starved: share of time without QKD keys; unknown: QKD gets no credit wherever traffic goes on without its keys.
    """
    stated = {field: figure(getattr(a, field)) for field in DRAWN}
    return stated | {"horizon": horizon, "starved": figure(1.0) if starved is None else starved}


def world_of(values: Mapping[str, float], curves: Sequence[Curve]) -> World[float]:
    """The world with one value for each of `inputs`; the machine's arrival is the mean over `curves`."""
    case = Case.of(values["horizon"], values["migration_years"], values["lag_years"], values["recorded"])
    return World(
        exposed=sum(case.share(curve) for curve in curves) / len(curves),
        endpoint=values["endpoint"],
        pqc=values["pqc_break"],
        device=values["qkd_failure"],
        relay_per_year=values["relay_per_year"],
        years=case.migration,
        common=values["common_cause"],
        starved=values["starved"],
        in_operation=min(1.0, case.migration / max(case.horizon, DAY_YEARS)),
    )


def corners(estate: Estate, horizon: Figure | None, starved: Figure | None) -> Corners | Unknown:
    """The worlds of an estate for data that must be secret for `horizon` years; `starved` as in `inputs`."""
    if horizon is None:
        return Unknown(("for how long the data must stay confidential",))
    when = arrival(estate.assumptions, estate.planned)
    found = inputs(estate.assumptions, horizon, starved)
    mild, likely, worst = ({name: getattr(f.span, end) for name, f in found.items()} for end in ENDS)
    mild["lag_years"], worst["lag_years"] = (
        worst["lag_years"],
        mild["lag_years"],
    )  # the slower the adversary, the milder
    short, long = world_of(mild, (when.late,)), world_of(worst, (when.early,))
    return Corners(
        replace(short, in_operation=min(1.0, short.years / max(worst["horizon"], DAY_YEARS))),
        world_of(likely, (when.late, when.early)),
        replace(long, in_operation=min(1.0, long.years / max(mild["horizon"], DAY_YEARS))),
        Basis.weakest(f.basis for f in found.values()),
    )


@dataclass(frozen=True, slots=True)
class Blast:
    """What one compromised relay costs on one link. read_bytes_per_day: None: the link's volume is unknown."""

    relays: int
    overlay: bool
    residual: Span
    read_bytes_per_day: float | None


def blast(link: Link, worlds: Corners, relays: int, paths_count: int = 1) -> tuple[Blast, ...]:
    """Without a relay and with `relays` on each of the disjoint paths, QKD alone and with PQC on top.

    A relay that is broken reads what passes in its keys alone. It reads nothing where a second path, or PQC end to end, holds.
    """
    volume = None if link.volume_bytes_per_day is None else figure(link.volume_bytes_per_day).span.likely
    rows = []
    for count in dict.fromkeys((0, relays)):
        for overlay in (False, True):
            build = Build(pattern=Pattern.PQC_QKD, relays=(count,) * paths_count, qkd_alone=not overlay)
            safe = count == 0 or overlay or paths_count > 1
            rows.append(Blast(count, overlay, worlds.residual(build), 0.0 if safe else volume))
    return tuple(rows)
