"""Relayed links that begin at a site: how full they are, how full they should be, and what is under way for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from keystrand.core.secret import Secret
from keystrand.core.way import Way
from keystrand.relay.atlas import RelayedLink
from keystrand.relay.maintenance import NOTHING, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """How full a relayed link is kept: floor_bits always, ahead_s of demand where hops can spare it, most_bits at most."""

    floor_bits: int = 4_194_304
    ahead_s: float = 600.0
    most_bits: int = 67_108_864

    def target_bits(self, demand_bps: float, window_bits: int) -> int:
        """window_bits: for maintenance to come."""
        return min(self.most_bits, max(self.floor_bits, int(demand_bps * self.ahead_s), window_bits))


FILL: Final = Fill()
FALLEN: Final = 0.75  # of its target: below it a pool that was full counts as filling again


@dataclass(slots=True)
class Sending:
    """A block of ours under way."""

    block: Secret
    way: Way
    deadline_s: float
    lost: set[int] = field(default_factory=set)  # parts

    @property
    def is_hopeless(self) -> bool:
        return len(self.way.routes) - len(self.lost) < self.way.needed


@dataclass(slots=True)
class Supply:
    """A relayed link that begins here, as our KME sees it.

    wanted: a block fits in. is_filling: it does more than replace what is drawn, which is live_bps. is_ahead: it has its floor,
    so it takes only what hops can spare.
    """

    link: RelayedLink
    level: Level = NOTHING
    live_bps: float = 0.0
    wanted: bool = False
    is_filling: bool = False
    is_ahead: bool = False
    next_sequence: int = 0
    not_before_s: float = 0.0
    failures: int = 0
    sending: int | None = None  # sequence of the block under way: one at a time keeps them in order

    def hear(self, held_bits: int, live_bps: float, fill: Fill, window_bits: int, next_sequence: int) -> None:
        """What the KME holds now, how fast it is drawn from, and which block it expects next."""
        self.live_bps = live_bps
        self.level = level = Level(held_bits=held_bits, demand_bps=max(live_bps, self.link.expected_bps))
        target_bits = fill.target_bits(level.demand_bps, window_bits)
        self.wanted = held_bits < target_bits
        self.is_filling = self.wanted and (self.is_filling or held_bits < FALLEN * target_bits)
        self.is_ahead = held_bits >= max(fill.floor_bits, window_bits)
        self.next_sequence = max(self.next_sequence, next_sequence)
