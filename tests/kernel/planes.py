"""What the tests of all kinds share: a pair of ends over one stage, and a load while keys change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from keystrand.core.protection import Protection
from keystrand.lab.load import MARK
from keystrand.lab.stage import Stage
from keystrand.lab.wires import LoadReport, Wires
from keystrand.testing.tunnels import SIDE, TunnelPair, place_of
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.contract import Connector, Place, Role
from keystrand.transport.tunnel.kinds import Kind
from keystrand.transport.tunnel.runner import Terms

FIRST_S = 120.0  # a translated processor is slow


def terms(rotate_s: float) -> Terms:
    pace = Pace(rotate_s=rotate_s, hold_s=10 * rotate_s + 10, repeat_s=0.5, give_up_s=60.0, retry_s=0.5)
    return Terms(require=Protection.HYBRID, pace=pace)


def pair_of(kind: Kind, staged: Stage, folder: Path, rotate_s: float) -> TunnelPair:
    def opening(place: Place) -> Connector:
        return kind.open(place, staged.settings(kind, SIDE[place.role]))

    return TunnelPair(folder, terms(rotate_s), opening)


@dataclass
class Rig:
    """For the checks that every connector must pass."""

    kind: Kind
    wires: Wires
    staged: Stage
    folder: Path

    def open(self, role: Role) -> Connector:
        return self.kind.open(place_of(self.folder, role), self.staged.settings(self.kind, SIDE[role]))

    async def passes(self) -> bool:
        return await asyncio.to_thread(self.wires.reaches, "a", wait_s=0.5)


@dataclass(frozen=True)
class Seen:
    """While a load ran."""

    report: LoadReport
    rotations: int
    missed: int
    frames_in_clear: int

    def tell(self, figure: Callable[..., None], what: str, took_ms: list[float]) -> None:
        figure(
            what,
            rotations=self.rotations,
            missed=self.missed,
            sent=self.report.sent,
            lost=self.report.lost,
            longest_gap_ms=self.report.longest_gap_ms,
            one_way_ms_p50=self.report.latency_p50_ms,
            one_way_ms_p99=self.report.latency_p99_ms,
            rotation_ms_p50=sorted(took_ms)[len(took_ms) // 2],
            frames_in_clear=self.frames_in_clear,
        )


def took_ms(pair: TunnelPair) -> list[float]:
    return [
        float(event.fields["took_ms"]) for event in pair.heard["initiator"].events if event.kind == "tunnel.rotated"
    ]


async def under_load(
    pair: TunnelPair, wires: Wires, *, rotations: int, packets_per_s: int = 1000, seconds_max: float = 180.0
) -> Seen:
    """From the first key on, until so many more have come into use; two seconds of what leaves the port are looked at."""
    seen = pair.heard["responder"]
    await pair.until(lambda p: seen.count("tunnel.rotated") > 0, timeout_s=FIRST_S)
    load = wires.load(packets_per_s=packets_per_s, seconds=seconds_max)
    clear = await asyncio.to_thread(wires.capture, "a", 2.0, MARK)
    await pair.until(lambda p: seen.count("tunnel.rotated") > rotations, timeout_s=seconds_max)
    report = await asyncio.to_thread(load.stop)
    missed = sum(heard.count("tunnel.missed") for heard in pair.heard.values())
    return Seen(report, seen.count("tunnel.rotated") - 1, missed, clear)
