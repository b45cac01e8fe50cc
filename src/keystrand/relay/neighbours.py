"""The neighbours of a relay: which of them answer, and what their hops offer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from keystrand.relay.damping import Damper
from keystrand.relay.maintenance import Level
from keystrand.wire.relay import Span

KEPT_S: Final = 60.0  # for so long, what the two neighbours' own applications draw stays theirs in a hop's pool


class Neighbours:
    """spans: what is offered of the hops that stand, as adverts say it; levels: what they hold."""

    def __init__(self, names: Iterable[str]) -> None:
        self.spans: dict[str, Span] = {}
        self.levels: dict[str, Level] = {}
        self._dampers = {name: Damper() for name in names}
        self._answering: set[str] = set()  # steady or not

    def up(self, name: str, *, bits: int, rate_bps: int, demand_bps: float, now_s: float) -> bool:
        """It answers. Whether that is news: one that comes and goes counts as gone until it has been steady."""
        self._answering.add(name)
        comes = name not in self.spans
        if comes and self._dampers[name].is_held(now_s):
            return False
        spare_bits, spare_bps = bits - int(KEPT_S * demand_bps), rate_bps - int(demand_bps)
        self.spans[name] = Span(name, max(0, spare_bits), max(0, spare_bps))
        self.levels[name] = Level(held_bits=bits, demand_bps=demand_bps)
        return comes

    def down(self, name: str, *, now_s: float) -> Iterator[str]:
        """It is gone, at once. What there is to tell."""
        if name in self._answering:
            self._answering.discard(name)
            was_held = self._dampers[name].is_held(now_s)
            if self._dampers[name].change(now_s) and not was_held:
                yield "relay.unsteady"
        if self.spans.pop(name, None) is not None:
            yield "relay.down"
