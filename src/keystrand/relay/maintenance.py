"""Planned maintenance of a site or of one of its hops: pools are filled for the window, routes go around, and come back.

    planned   ──begin──▶ draining ──nothing under way──▶ drained ──end, or the window is over──▶ in use
    pools fill           no route begins here any more   it may be switched off

The site says its windows in its adverts, and every site answers in its own what each of its links holds and needs for them: so
sufficiency is known beforehand, at the site that asks. Who does not answer counts as short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from keystrand.relay.atlas import Atlas, RelayedLink
from keystrand.relay.flow import fill_bps
from keystrand.relay.linkstate import Closed, LinkState
from keystrand.relay.routes import disjoint_routes
from keystrand.wire.relay import Need, Window

MARGIN: Final = 1.25  # on what is expected to be drawn
SETTLE_S: Final = 5.0  # after the last share: those who have not heard yet may still send some
WINDOW_S_MAX: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What a link holds, and how fast it is drawn from."""

    held_bits: int
    demand_bps: float


NOTHING: Final = Level(held_bits=0, demand_bps=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one link says of a window. site: that said it; "" where nobody has. fill_s: until it is filled, at best, or -1."""

    link: str
    site: str
    held_bits: int = 0
    needed_bits: int = 0
    fill_s: float = 0.0

    @property
    def short_bits(self) -> int:
        return max(0, self.needed_bits - self.held_bits)

    @property
    def is_ready(self) -> bool:
        return bool(self.site) and not self.short_bits

    def words(self) -> str:
        if not self.site:
            return "nobody answers for it"
        return (
            f"holds {self.held_bits} of {self.needed_bits} bits, {self.short_bits} short"
            if self.short_bits
            else "ready"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowStand:
    """A window of ours for people. stand: planned, draining or drained; under_way: shares in hand; cut: pairs that wait."""

    window: Window
    stand: str
    under_way: int
    checks: tuple[Check, ...]
    cut: tuple[str, ...]
    actor: str
    reason: str


def hop_link(site: str, neighbour: str) -> str:
    """How the pool of a hop is called in checks."""
    return f"hop {min(site, neighbour)} – {max(site, neighbour)}"


def closed_by(site: str, window: Window) -> Closed:
    if window.neighbour:
        return Closed(hops=frozenset({frozenset((site, window.neighbour))}))
    return Closed(sites=frozenset({site}))


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayedStand:
    """A relayed link that begins here, for people; see Maintenance.reach_bps. share_bps: of its fill, where hops are scarce.
    routes: that a block would take now."""

    link: str
    target: str
    held_bits: int
    wanted_bits: int
    demand_bps: float
    reach_bps: float
    share_bps: float
    routes: tuple[tuple[str, ...], ...]


class Maintenance:
    """What one site plans, and what it answers to the plans of others."""

    def __init__(self, site: str, atlas: Atlas, state: LinkState) -> None:
        self.site, self.atlas, self.state = site, atlas, state
        self.windows: tuple[Window, ...] = ()
        self._busy_s: dict[str, float] = {}  # draining window -> when a share was last in hand
        self._drained: set[str] = set()

    # draining ------------------------------------------------------------------------------------------------------

    def watch(self, under_way: Callable[[str], int]) -> Iterator[Window]:
        """Windows that are drained since the last look. under_way: shares in hand, of a hop or ("") of all."""
        now_s = self.state.clock.monotonic_s()
        draining = [window for window in self.windows if window.draining]
        for window in draining:
            if under_way(window.neighbour):
                self._busy_s[window.window_id] = now_s
                continue
            calm_s = now_s - self._busy_s.setdefault(window.window_id, now_s)
            if calm_s >= SETTLE_S and window.window_id not in self._drained:
                self._drained.add(window.window_id)
                yield window
        present = {window.window_id for window in draining}
        self._drained &= present
        self._busy_s = {window_id: at_s for window_id, at_s in self._busy_s.items() if window_id in present}

    def stand(self, window: Window) -> str:
        if not window.draining:
            return "planned"
        return "drained" if window.window_id in self._drained else "draining"

    # windows -------------------------------------------------------------------------------------------------------

    def known(self) -> Iterator[tuple[str, Window]]:
        """Windows that are not over, ours among them, by the site that said them."""
        yield from ((self.site, window) for window in self._current(self.windows))
        for name, advert in self.state.adverts.items():
            if name != self.site:
                yield from ((name, window) for window in self._current(advert.windows))

    def _current(self, windows: Iterable[Window]) -> Iterator[Window]:
        now_s = self.state.clock.now_s()
        for window in windows:
            if now_s < window.until_s <= now_s + 2 * WINDOW_S_MAX:
                yield window

    # what is needed ------------------------------------------------------------------------------------------------

    def needs(self, links: Mapping[str, Level], hops: Mapping[str, Level], need_bits: int) -> tuple[Need, ...]:
        """Our answers. links: those that begin here; hops: by neighbour; need_bits: that a route takes of each hop."""
        told = []
        for site, window in self.known():
            closed = closed_by(site, window)
            for name, level in links.items():
                link = self.atlas.links[name]
                if site not in link.ends or window.neighbour:
                    bits = 0 if self._goes_around(link, closed, need_bits) else self._bits(window, level)
                    told.append(self._need(site, window, name, level, bits, link))
            neighbour = window.neighbour if site == self.site else site
            if window.neighbour and self.site in (site, window.neighbour) and neighbour in hops:
                level = hops[neighbour]
                told.append(
                    self._need(site, window, hop_link(site, window.neighbour), level, self._bits(window, level))
                )
        return tuple(told)

    def _need(
        self, site: str, window: Window, name: str, level: Level, bits: int, link: RelayedLink | None = None
    ) -> Need:
        short, fill_s = bits - level.held_bits, 0
        if short > 0:
            rate = self.reach_bps(link) if link is not None else 0.0
            fill_s = min(int(short / rate) + 1, 2**31) if rate > 0 else -1
        return Need(site, window.window_id, name, level.held_bits, bits, fill_s)

    def _goes_around(self, link: RelayedLink, closed: Closed, need_bits: int) -> bool:
        graph = self.state.graph(link, need_bits, closed=self.state.closed() | closed)
        return len(disjoint_routes(graph, link.origin, link.target, link.terms.paths)) == link.terms.paths

    def _bits(self, window: Window, level: Level) -> int:
        lasts_s = window.until_s - max(window.from_s, int(self.state.clock.now_s()))
        return int(MARGIN * level.demand_bps * max(0, lasts_s))

    def reach_bps(self, link: RelayedLink) -> float:
        """How fast the link can fill at most, from what hops make now and nothing else takes."""
        return fill_bps(self.state.rates(link), link.origin, link.target, link.terms.paths)

    def wanted_bits(self, link: str) -> int:
        """What a link of ours should hold for windows to come, by our last answers."""
        own = self.state.adverts.get(self.site)
        return max((need.needed_bits for need in (own.needs if own else ()) if need.link == link), default=0)

    # what others say -----------------------------------------------------------------------------------------------

    def checks(self, window: Window) -> list[Check]:
        """Of one of our windows: every link that may go over what it closes."""
        said = {
            (need.link, name): need
            for name, advert in self.state.adverts.items()
            for need in advert.needs
            if (need.site, need.window_id) == (self.site, window.window_id)
        }
        checks = []
        for link, site in self._asked(window):
            need = said.get((link, site))
            if need is None:
                checks.append(Check(link=link, site=""))
            else:
                bits = {"held_bits": need.held_bits, "needed_bits": need.needed_bits}
                checks.append(Check(link=link, site=site, fill_s=need.fill_s, **bits))
        return checks

    def _asked(self, window: Window) -> Iterator[tuple[str, str]]:
        """Links, and the sites that answer for them."""
        for name, link in self.atlas.links.items():
            if self.site not in link.ends or window.neighbour:
                yield name, link.origin
        if window.neighbour:
            for end in (self.site, window.neighbour):
                yield hop_link(self.site, window.neighbour), end

    def cut(self, window: Window) -> list[str]:
        """Pairs that share no new keys meanwhile, as one of them is switched off: nothing can be filled ahead for these."""
        if window.neighbour:
            return []
        direct = [hop_link(self.site, neighbour) for neighbour in self.atlas.neighbours(self.site)]
        return direct + [name for name, link in self.atlas.links.items() if self.site in link.ends]
