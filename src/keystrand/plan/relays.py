"""Trusted nodes on a path: how many hops it takes until each one gives enough key at its worst, and where they may stand.

Every hop of a relayed path spends the whole demand, and the path gives no more than its weakest hop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from keystrand.plan.equipment import DARK, Equipment, Light, rate_span
from keystrand.plan.estate import Estate, Site
from keystrand.plan.fact import Answer, Span
from keystrand.plan.loss import ENDS_DB, great_circle_km

HOPS_MAX: Final = 64
CHAINS_KEPT: Final = 4096
HOP_DB_MIN: Final = 4.0  # relays nearer to each other than that are no answer, whatever the figures say; assumed


@dataclass(frozen=True, slots=True)
class Path:
    """Light from end to end, as one loss; km where known, for the noise of classical channels beside it."""

    loss_db: Span
    light: Light = DARK
    km: Span | None = None

    def hop(self, hops: int) -> tuple[Span, Light]:
        """One of so many equal hops. A relay adds the panels of its site, which is known only roughly."""
        if hops == 1:
            return self.loss_db, self.light
        loss = self.loss_db.times(1 / hops) + Span(0.0, ENDS_DB / 2, ENDS_DB)
        return loss, Light(self.light.channels, self.light.launch_dbm, self.light.band, self.light.km / hops)


@dataclass(frozen=True, slots=True)
class Trade:
    """One row of reach against trust: what a path gives with so many relays. `more`: columns of others, such as residual risk
    and cost, by name."""

    relays: int
    hop_db: Span
    hop_km: float | None
    skr_bps: Span | None
    enough: Answer
    more: tuple[tuple[str, str], ...] = ()


Column = Callable[[int], str]


def hop_rate(choices: Sequence[Equipment], path: Path, hops: int) -> Span | None:
    """End to end over so many equal hops: the minimum over them, which is that of one."""
    loss, light = path.hop(hops)
    return rate_span(choices, loss, light)


def fewest_hops(choices: Sequence[Equipment], path: Path, wanted_bps: float) -> int | None:
    """The smallest number whose hops each give `wanted_bps` at least; None where no number does.

    By bisection above one hop: shorter hops never give less. One is apart, for its path has no panels of relays.
    """

    def gives(hops: int) -> bool:
        rate = hop_rate(choices, path, hops)
        return rate is not None and rate.low >= wanted_bps

    if gives(1):
        return 1
    tried = range(2, hops_max(path) + 1)
    at = bisect_left(tried, True, key=gives)
    return tried[at] if at < len(tried) else None


def hops_max(path: Path) -> int:
    """More are not looked at."""
    return min(HOPS_MAX, int(path.loss_db.likely / HOP_DB_MIN))


def enough(rate: Span | None, wanted_bps: float) -> Answer:
    """Whether a rate covers a demand: yes at its least, no at its most, and else it is not known."""
    if rate is None:
        return Answer.UNKNOWN
    return Answer.YES if rate.low >= wanted_bps else Answer.NO if rate.high < wanted_bps else Answer.UNKNOWN


def trades(
    choices: Sequence[Equipment],
    path: Path,
    wanted_bps: float,
    relays_max: int,
    columns: Sequence[tuple[str, Column]] = (),
) -> Iterator[Trade]:
    """The table of a path: none, one, two ... relays, with a column for each function of the number of relays."""
    for relays in range(relays_max + 1):
        rate = hop_rate(choices, path, relays + 1)
        km = None if path.km is None else path.km.likely / (relays + 1)
        more = tuple((name, column(relays)) for name, column in columns)
        yield Trade(relays, path.hop(relays + 1)[0], km, rate, enough(rate, wanted_bps), more)


def sites_between(estate: Estate, ends: tuple[str, str], relays: int) -> tuple[str, ...] | None:
    """Sites that may hold a trusted node, one near each place where a relay is needed; None where there are too few.

    The chain is the one whose longest hop is shortest (a bottleneck path over great circles, with at most so many relays).
    """
    if relays == 0:
        return ()
    allowed = sorted(n for n, s in estate.sites.items() if s.may_relay is Answer.YES and n not in ends)
    sites = [(name, estate.sites.get(name, Site())) for name in dict.fromkeys((*ends, *allowed))]
    if len(allowed) < relays or any(great_circle_km(site, site) is None for _, site in sites):
        return None
    return _bottleneck(tuple((name, Site(lat=site.lat, lon=site.lon)) for name, site in sites), ends, relays + 1)


@lru_cache(CHAINS_KEPT)
def _bottleneck(sites: tuple[tuple[str, Site], ...], ends: tuple[str, str], hops: int) -> tuple[str, ...] | None:
    """Dynamic programming over the number of hops: best[name] = (longest hop so far, chain).

    Kept, as the flip points of a link ask for the same chain dozens of times.
    """
    places = dict(sites)
    best: dict[str, tuple[float, tuple[str, ...]]] = {ends[0]: (0.0, (ends[0],))}
    for _ in range(hops):
        reached: dict[str, tuple[float, tuple[str, ...]]] = {}
        for name, (longest, chain) in best.items():
            for other, site in places.items():
                km = great_circle_km(places[name], site)
                if km is None or other in chain:
                    continue
                hop, known = max(longest, km), reached.get(other)
                if known is None or hop <= known[0]:  # chains are put together only where they may win
                    found = (hop, (*chain, other))
                    reached[other] = found if known is None else min(found, known)
        best = reached
    return best[ends[1]][1][1:-1] if ends[1] in best else None
