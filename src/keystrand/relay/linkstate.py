"""What every site knows of every hop: adverts that are signed, numbered, passed on to all, and forgotten when they are old.

A hop is there where both its ends say so. No agreement is sought: two sites may know different states for a while, and each
route that follows from an old one is safe, it only may fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import msgspec

from keystrand.core.clock import Clock
from keystrand.core.errors import PeerFault
from keystrand.relay.atlas import Atlas, RelayedLink, day_of
from keystrand.wire.relay import NEEDS_MAX, Advert, Need, SignedAdvert, Span, Want, Window, signed

NEWS_S: Final = 1.0  # between two adverts whose figures differ by a factor of two
SUSPECT_COST: Final = 16.0  # of a hop, for each share in a row that was lost over it; the others cost 1 to 4
SUSPECT_S_MAX: Final = 3600.0
BUSY_COST: Final = 0.5  # of a hop, for each need that keeps it busy: a way one hop longer is taken beside one of two
REFILL_S: Final = 10.0  # a hop that takes so long to make the pads of one block costs half more

Hop = frozenset[str]
NOTHING_BUSY: Final[Mapping[Hop, int]] = MappingProxyType({})
Sign = Callable[[bytes], bytes]
Verify = Callable[[str, bytes, bytes], None]  # site, message, signature; raises Tampered


@dataclass(frozen=True, slots=True)
class Closed:
    """Sites and hops that no route may use."""

    sites: frozenset[str] = frozenset()
    hops: frozenset[frozenset[str]] = frozenset()

    def __or__(self, other: Closed) -> Closed:
        return Closed(self.sites | other.sites, self.hops | other.hops)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Of a hop over which shares were lost in a row. It counts until until_s, and is remembered for twice as long."""

    lost: int
    since_s: float
    until_s: float
    forget_s: float


@dataclass(slots=True)
class LinkState:
    """The adverts that one site holds.

    advert_s: our own is said at least so often, sooner where figures double or halve, and at once where a hop comes or goes: so
    it only mends what was lost on the way.
    forget_s: what nobody has repeated for so long is gone; suspect_s: a hop over which a share was lost is avoided for so long.
    """

    site: str
    atlas: Atlas
    clock: Clock
    sign: Sign
    verify: Verify
    advert_s: float = 60.0
    forget_s: float = 200.0
    suspect_s: float = 30.0
    adverts: dict[str, Advert] = field(default_factory=dict)
    posted: dict[str, SignedAdvert] = field(
        default_factory=dict
    )  # those of them that are not forgotten, to be passed on
    heard_s: dict[str, float] = field(default_factory=dict)
    suspects: dict[Hop, Doubt] = field(default_factory=dict)
    barred: frozenset[str] = frozenset()  # sites that ours was told are broken into
    _number: int = 0
    _said_s: float = float("-inf")

    def own(
        self,
        spans: Mapping[str, Span],
        windows: tuple[Window, ...] = (),
        needs: tuple[Need, ...] = (),
        wants: tuple[Want, ...] = (),
    ) -> SignedAdvert | None:
        """Our advert, where it is time for one: spans by neighbour, those that are up."""
        now_s, last = self.clock.monotonic_s(), self.adverts.get(self.site)
        said = {span.neighbour: span for span in last.spans} if last is not None else {}
        quiet_s = now_s - self._said_s
        if last is not None and said.keys() == spans.keys() and last.windows == windows:
            moved = [_size(said[name]) for name in spans] != [_size(span) for span in spans.values()]
            moved = moved or [*map(_gist, last.needs)] != [*map(_gist, needs[:NEEDS_MAX])]
            moved = moved or [*map(_drift, last.wants)] != [*map(_drift, wants[:NEEDS_MAX])]
            if quiet_s < (NEWS_S if moved else self.advert_s):
                return None
        # the clock's seconds, so that a site that starts anew goes on above what the others know of it
        self._number = max(self._number + 1, int(self.clock.now_s()))
        advert = Advert(
            site=self.site,
            number=self._number,
            spans=tuple(spans[name] for name in sorted(spans)),
            windows=windows,
            needs=needs[:NEEDS_MAX],
            wants=wants[:NEEDS_MAX],
        )
        said_now = signed(advert, self.sign)
        self._keep(said_now)
        self._said_s = now_s
        return said_now

    def hear(self, said: SignedAdvert) -> bool:
        """Whether it was news, which is to be passed on. Raises PeerFault or Tampered for what its site did not say."""
        advert = said.advert
        if advert.site == self.site:
            if advert.number > self._number:  # of ours before a restart, or with a clock that went wrong: go above it
                self.verify(self.site, said.signed, advert.signature)  # nobody else may push our numbers up
                self._number, self._said_s = advert.number, float("-inf")
            return False
        known = self.adverts.get(advert.site)
        if known is not None and advert.number <= known.number:
            return False
        around = self.atlas.neighbours(advert.site)
        named = {span.neighbour for span in advert.spans} | {window.neighbour for window in advert.windows} - {""}
        if advert.site not in self.atlas.sites or not named <= around:
            raise PeerFault(f"an advert of {advert.site} names hops that the network does not have")
        self.verify(advert.site, said.signed, advert.signature)
        self._keep(said)
        return True

    def _keep(self, said: SignedAdvert) -> None:
        site = said.advert.site
        self.adverts[site], self.posted[site], self.heard_s[site] = said.advert, said, self.clock.monotonic_s()

    def suspect(self, one: str, other: str, began_s: float) -> None:
        """A share was lost here: go another way for a while, where there is one; for twice as long after each in a row.

        began_s: when it set out. One that was under way when another was lost tells nothing new.
        """
        hop, now_s = frozenset((one, other)), self.clock.monotonic_s()
        before = self.suspects.get(hop)
        if before is not None and began_s <= before.since_s:
            return
        lost = before.lost + 1 if before is not None else 1
        for_s = min(self.suspect_s * 2.0 ** min(lost - 1, 16), SUSPECT_S_MAX)
        self.suspects[hop] = Doubt(lost, now_s, now_s + for_s, now_s + 2 * for_s)

    def trust(self, one: str, other: str) -> None:
        """A share came through."""
        self.suspects.pop(frozenset((one, other)), None)

    def doubts(self, one: str, other: str) -> int:
        """Shares lost in a row over this hop, while that counts."""
        doubt = self.suspects.get(frozenset((one, other)))
        return doubt.lost if doubt is not None and self.clock.monotonic_s() < doubt.until_s else 0

    def forget(self) -> None:
        """Drop what nobody has said for long."""
        now_s = self.clock.monotonic_s()
        for site in [s for s, at_s in self.heard_s.items() if now_s - at_s > self.forget_s and s != self.site]:
            # the advert stays as a number, so that an old one that comes late is no news
            self.adverts[site] = msgspec.structs.replace(self.adverts[site], spans=(), windows=(), needs=(), wants=())
            del self.heard_s[site], self.posted[site]
        self.suspects = {hop: doubt for hop, doubt in self.suspects.items() if doubt.forget_s > now_s}

    def closed(self) -> Closed:
        """What is drained for maintenance now, and what is barred here."""
        now_s, sites, hops = self.clock.now_s(), set(self.barred), set()
        for name, advert in self.adverts.items():
            for window in advert.windows:
                if window.draining and now_s < window.until_s:
                    if window.neighbour:
                        hops.add(frozenset((name, window.neighbour)))
                    else:
                        sites.add(name)
        return Closed(frozenset(sites), frozenset(hops))

    def rates(self, link: RelayedLink) -> dict[str, dict[str, float]]:
        """How many bits per second the hops make that the link's routes may use now."""
        graph = self.graph(link, 0)
        spans = {(name, span.neighbour): span for name, advert in self.adverts.items() for span in advert.spans}
        return {one: {other: float(spans[one, other].rate_bps) for other in graph[one]} for one in sorted(graph)}

    def graph(
        self, link: RelayedLink, need_bits: int, *, closed: Closed | None = None, busy: Mapping[Hop, int] = NOTHING_BUSY
    ) -> dict[str, dict[str, float]]:
        """Hops that the link's routes may use and that have bits for them, with their costs. busy: bits that others take.

        A hop costs 1, up to 1 more the scarcer its bits are, up to 1 more the slower they come, half for each need of others
        that keeps it busy, 1 more where it leads to a site that is not documented, and 16 for each share lost over it while
        that counts, so that it is better than none.
        """
        today = day_of(self.clock.now_s())
        closed = self.closed() if closed is None else closed
        inner = (self.atlas.permitted(link, today) | {*link.ends}) - closed.sites
        bare = {site for site in inner if site not in link.ends and self.atlas.sites[site].missing(today)}
        graph: dict[str, dict[str, float]] = {}
        for site in inner:
            advert = self.adverts.get(site)
            if advert is None:
                continue
            graph[site] = {
                span.neighbour: self._cost(site, span, need_bits, taken) + (span.neighbour in bare)
                for span in advert.spans
                if span.neighbour in inner and self._says(span.neighbour, site)
                if (hop := frozenset((site, span.neighbour))) not in closed.hops
                if span.bits >= need_bits + (taken := busy.get(hop, 0))
            }
        return graph

    def stands(self, one: str, other: str) -> bool:
        """Whether both ends of this hop say that it is there."""
        return self._says(one, other) and self._says(other, one)

    def holds(self, routes: Iterable[tuple[str, ...]], bits: int) -> bool:
        """Whether the sites of these routes say that every hop has so many."""
        spans = {(name, span.neighbour): span.bits for name, advert in self.adverts.items() for span in advert.spans}
        return all(spans.get(hop, 0) >= bits for route in routes for hop in pairwise(route))

    def _says(self, site: str, neighbour: str) -> bool:
        advert = self.adverts.get(site)
        return advert is not None and any(span.neighbour == neighbour for span in advert.spans)

    def _cost(self, site: str, span: Span, need_bits: int, busy_bits: int) -> float:
        scarcity = need_bits / max(span.bits, need_bits, 1)
        suspect = SUSPECT_COST * self.doubts(site, span.neighbour)
        refill_s = need_bits / max(span.rate_bps, 1)
        busy = BUSY_COST * busy_bits / max(need_bits, 1)
        return 1.0 + scarcity + refill_s / (refill_s + REFILL_S) + busy + suspect


def _size(span: Span) -> tuple[int, int]:
    """What of a hop is worth telling soon: its figures to a factor of two."""
    return span.bits.bit_length(), span.rate_bps.bit_length()


def _drift(want: Want) -> tuple[str, int, bool]:
    return want.link, want.live_bps.bit_length(), want.is_filling


def _gist(need: Need) -> tuple[str, str, str, bool, int, int]:
    """What of an answer is worth telling at once: whether it suffices, and its figures to a factor of two."""
    suffices = need.held_bits >= need.needed_bits
    return need.site, need.window_id, need.link, suffices, need.held_bits.bit_length(), need.needed_bits.bit_length()
