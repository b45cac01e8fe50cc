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
JOINTS_MAX: Final = 16  # blocks of one link that wait for one with a lower number
FALLEN: Final = 0.75  # of its target: below it a pool that was full counts as filling again


@dataclass(slots=True)
class Sending:
    """A block of ours under way."""

    block: Secret
    way: Way
    began_s: float
    deadline_s: float
    lost: set[int] = field(default_factory=set)  # parts

    @property
    def is_hopeless(self) -> bool:
        return len(self.way.routes) - len(self.lost) < self.way.needed


@dataclass(slots=True)
class Joint:
    """A block of ours that its target has under this number, until it is our KME's turn to take it."""

    number: int
    sending: Sending
    until_s: float


@dataclass(slots=True)
class Supply:
    """A relayed link that begins here, as our KME sees it, and its blocks under way.

    missing_bits: until it is as full as it should be. is_filling: it does more than replace what is drawn, which is live_bps.
    is_ahead: it has its floor, so it takes only what hops can spare. following: the number that our KME takes next.
    """

    link: RelayedLink
    level: Level = NOTHING
    live_bps: float = 0.0
    missing_bits: int = 0
    is_filling: bool = False
    is_ahead: bool = False
    following: int = 0
    not_before_s: float = 0.0
    failed_s: float = float("-inf")
    failures: int = 0
    sendings: dict[int, Sending] = field(default_factory=dict)  # by sequence, oldest first
    joints: list[Joint] = field(default_factory=list)
    _sequence: int = -1

    @property
    def is_wanted(self) -> bool:
        """Whether a block fits in."""
        return self.missing_bits > 0

    def hear(self, held_bits: int, live_bps: float, fill: Fill, window_bits: int, following: int) -> None:
        """What the KME holds now, how fast it is drawn from, and which block it expects next."""
        self.live_bps = live_bps
        self.level = level = Level(held_bits=held_bits, demand_bps=max(live_bps, self.link.expected_bps))
        target_bits = fill.target_bits(level.demand_bps, window_bits)
        self.missing_bits = max(0, target_bits - held_bits)
        self.is_filling = self.is_wanted and (self.is_filling or held_bits < FALLEN * target_bits)
        self.is_ahead = held_bits >= max(fill.floor_bits, window_bits)
        self.following = max(self.following, following)

    def begin(self, sending: Sending, skip: int) -> int:
        """The sequence by which relays call it: no other block of ours had it, and our KME would take it as a number.

        skip: blocks that may be under way still from before a restart.
        """
        self._sequence = max(self._sequence + 1, self.following) if self._sequence >= 0 else self.following + skip
        self.sendings[self._sequence] = sending
        return self._sequence

    def due(self, now_s: float) -> list[Joint]:
        """Those whose turn it is, in the order of their numbers: our KME takes none below the last.

        A target gives no block a number below its sequence, so a gap in the numbers is waited for while an older block is under
        way, but not for long: the target may have given it to nobody.
        """
        self.joints.sort(key=lambda joint: joint.number)
        due = list[Joint]()
        while self.joints:
            first = self.joints[0]
            may_come = any(sequence < first.number for sequence in self.sendings) and now_s < first.until_s
            if first.number > self.following and may_come and len(self.joints) <= JOINTS_MAX:
                break
            due.append(self.joints.pop(0))
            self.following = max(self.following, first.number + 1)
        return due
