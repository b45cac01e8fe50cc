"""Record now, decrypt later: how much of a link's traffic a later machine opens while it must still be secret.

Traffic sent at time s is recorded with chance h; a machine arrives at Z, and an adversary needs `lag` after both to read.
It is lost if max(s, Z) + lag < s + X. Averaged over what is sent until the migration ends at Y, and over Z with its chance F:

    share  E = h / Y * integral of F(s + X - lag) over s from 0 to Y                  (0 where X <= lag)
    years    = h / Y * integral over s of integral of F(u) over u from s to s + X - lag

Both are exact for a curve of straight pieces. A curve that is a step at Z0 gives Mosca's verdict: E > 0 where X + Y > Z0
(Mosca, IEEE Security & Privacy 16(5), 2018). A key that only one run of the machine opens costs its owner one run:
frequent fresh key establishment makes reading dearer and does not change E.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from keystrand.plan.estate import Estate, Link
from keystrand.plan.fact import Basis, Figure, Span, Unknown, figure
from keystrand.plan.survey import YEAR_DAYS, Curve, arrival

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    C = TypeVar("C", float, NDArray[np.float64])
else:
    C = TypeVar("C")

DAY_YEARS: Final = 1 / YEAR_DAYS
"""The shortest lag, and the shortest migration: the survey's machine takes up to 24 h for one key."""

Integral = Callable[[C], C]


def share(area: Integral[C], horizon: C, migration: C, lag: C, recorded: C) -> C:
    """E: the share of what is sent until the migration ends that is lost. Years in, a chance out.

    area: integral of F from 0. `migration` and `lag` at least DAY_YEARS. Floats, or arrays of one shape.
    """
    reach = horizon - lag
    return recorded * (reach > 0) * (area(migration + reach) - area(reach)) / migration


def exposed_years(volume: Integral[C], horizon: C, migration: C, lag: C, recorded: C) -> C:
    """For how many years, on average, what is sent lies open while it should be secret. volume: integral of area."""
    reach = horizon - lag
    over = volume(migration + reach) - volume(reach) - volume(migration)
    return recorded * (reach > 0) * over / migration


def backlog(area: Integral[C], horizon: C, lag: C, recorded: C) -> C:
    """The share of what was sent in the last `horizon` years that is lost: F(X - age - lag), averaged over the ages."""
    reach = horizon - lag
    return recorded * (reach > 0) * area(reach) / (horizon + (horizon <= 0))


class Case(NamedTuple):
    """One value for each figure that exposure rests on: years, and a chance."""

    horizon: float
    migration: float
    lag: float
    recorded: float

    @classmethod
    def of(cls, horizon: float, migration: float, lag: float, recorded: float) -> Case:
        return cls(horizon, max(migration, DAY_YEARS), max(lag, DAY_YEARS), recorded)

    def share(self, curve: Curve) -> float:
        return share(curve.area, *self)

    def years(self, curve: Curve) -> float:
        return exposed_years(curve.volume, *self)

    def backlog(self, curve: Curve) -> float:
        return backlog(curve.area, self.horizon, self.lag, self.recorded)


@dataclass(frozen=True, slots=True)
class Exposure:
    """Before any control. low: machine late and the mildest of all assumptions; high: machine early and the worst of all.

    share, backlog: chances. years: of open confidentiality. beyond_asked: the figures lean on years that the experts were not
    asked about, where the curve is held flat; the true figures may be higher.
    """

    share: Span
    years: Span
    backlog: Span
    basis: Basis
    beyond_asked: bool


def exposed(estate: Estate, horizon: Figure | None) -> Exposure | Unknown:
    """Exposure of traffic that must be secret for `horizon` years, by the estate's assumptions."""
    if horizon is None:
        return Unknown(("for how long the data must stay confidential",))
    a = estate.assumptions
    when = arrival(a, estate.planned)
    years, lag, recorded = (figure(stated) for stated in (a.migration_years, a.lag_years, a.recorded))
    mild = Case.of(horizon.span.low, years.span.low, lag.span.high, recorded.span.low)
    likely = Case.of(horizon.span.likely, years.span.likely, lag.span.likely, recorded.span.likely)
    worst = Case.of(horizon.span.high, years.span.high, lag.span.low, recorded.span.high)

    def band(measure: Callable[[Case, Curve], float]) -> Span:
        middle = (measure(likely, when.late) + measure(likely, when.early)) / 2
        return Span(measure(mild, when.late), middle, measure(worst, when.early))

    return Exposure(
        share=band(Case.share),
        years=band(Case.years),
        backlog=band(Case.backlog),
        basis=Basis.weakest(f.basis for f in (horizon, years, lag, recorded)),
        beyond_asked=worst.horizon + worst.migration > when.asked_years,
    )


@dataclass(frozen=True, slots=True)
class Effort:
    """What reading costs an adversary who has the machine: one run for each fresh key establishment, up to 24 h each."""

    runs_per_day: float
    bytes_per_run: float | None


def effort(link: Link) -> Effort | Unknown:
    """Runs needed for one day of this link's traffic, if every refresh is a fresh key establishment."""
    if link.rekey_s is None:
        return Unknown(("how often each tunnel's key is refreshed",))
    runs = link.tunnels * 86_400 / link.rekey_s
    if link.volume_bytes_per_day is None or not runs:
        return Effort(runs, None)
    return Effort(runs, figure(link.volume_bytes_per_day).span.likely / runs)
