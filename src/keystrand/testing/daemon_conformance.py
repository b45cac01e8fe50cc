"""What a tunnel must do whatever happens to its keys, its daemon or who steers it: as checks on packets between two hosts.

Beside connector_conformance, which takes a connector through its steps: here both ends run by themselves, with real daemons in
two network namespaces that also have a way around the tunnel, which nothing may ever take.

    @pytest.mark.parametrize("check", DAEMON_CHECKS, ids=lambda check: check.__name__)
    async def test_mine(check, wires, tmp_path):
        await check(DaemonRig(wires, tmp_path, opening, kill))
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from keystrand.core.protection import Protection
from keystrand.lab.load import MARK
from keystrand.lab.wires import SIDES, Side, Wires
from keystrand.testing.keyfolder import KeyFolder
from keystrand.testing.patience import PATIENCE_S
from keystrand.testing.tunnels import ROLES, TunnelPair
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.contract import Connector, Place
from keystrand.transport.tunnel.runner import Terms

PACE: Final = Pace(rotate_s=1.0, hold_s=8.0, repeat_s=0.3, give_up_s=5.0, retry_s=0.3)
TERMS: Final = Terms(require=Protection.HYBRID, pace=PACE)
OTHERS: Final[dict[Side, Side]] = {"a": "b", "b": "a"}


@dataclass
class DaemonRig:
    """kill: ends the daemon of a side at once; returns what brings it back (nothing, where the connector itself does that)."""

    wires: Wires
    folder: Path
    opening: Callable[[Place], Connector]
    kill: Callable[[Side], Callable[[], object]]

    def pair(self, **pace: float) -> TunnelPair:
        return TunnelPair(self.folder, replace(TERMS, pace=replace(PACE, **pace)), self.opening)

    def open_a_way_around(self) -> None:
        for side, other in OTHERS.items():
            self.wires.run(side, "ip", "route", "add", "default", "via", self.wires.outer[other])
        assert self.wires.reaches("a"), "in clear, before there is a tunnel"

    async def reaches(self) -> bool:
        return await asyncio.to_thread(self.wires.reaches, "a")

    async def nothing_leaves(self, side: Side) -> None:
        load = self.wires.load(seconds=1.0, to=OTHERS[side])
        assert await asyncio.to_thread(self.wires.capture, side, 1.2, MARK) == 0, "a packet found a way around"
        await asyncio.to_thread(load.wait, PATIENCE_S)


async def without_keys_not_a_packet_leaves_in_any_form_until_there_are_keys(rig: DaemonRig) -> None:
    rig.open_a_way_around()
    async with rig.pair(hold_s=2.5).running() as pair:
        await pair.rotated(1)
        source = pair.sources["initiator"]
        assert isinstance(source, KeyFolder)
        source.left = 0
        await pair.until(lambda p: all(runner.end.blocked for runner in p.runners.values()))
        load = rig.wires.load(seconds=1.0)
        assert await asyncio.to_thread(rig.wires.capture, "a", 1.5, MARK) == 0
        assert (await asyncio.to_thread(load.wait, PATIENCE_S)).received == 0
        source.left = None
        await pair.until(lambda p: not any(runner.end.blocked for runner in p.runners.values()))
        assert await rig.reaches()


async def a_daemon_that_is_killed_lets_nothing_around_the_tunnel_and_gets_a_fresh_key(rig: DaemonRig) -> None:
    rig.open_a_way_around()
    async with rig.pair(rotate_s=60.0, hold_s=120.0).running() as pair:
        await pair.rotated(1)
        for rotation, side in enumerate(SIDES, start=2):
            revive = rig.kill(side)
            await rig.nothing_leaves(side)
            await asyncio.to_thread(revive)
            await pair.rotated(rotation)
            assert await rig.reaches()


async def the_process_that_steers_is_restarted_and_traffic_goes_on(rig: DaemonRig) -> None:
    async with rig.pair().running() as pair:
        await pair.rotated(2)
        load = rig.wires.load(seconds=5.0)
        for role in ROLES:
            await pair.stop(role)
            await asyncio.sleep(0.3)
            await pair.start(role)
            seen = pair.heard[role].count("tunnel.rotated")
            await pair.until(lambda p, role=role, seen=seen: p.heard[role].count("tunnel.rotated") > seen)  # type: ignore[misc]
        report = await asyncio.to_thread(load.wait, PATIENCE_S)
        assert report.lost == 0, report


async def a_pulled_wire_costs_only_what_was_sent_meanwhile(rig: DaemonRig) -> None:
    """The peer is not to be reached: traffic under the key in use goes on as soon as it is, and a fresh key comes."""
    async with rig.pair(hold_s=60.0).running() as pair:
        await pair.rotated(1)
        await asyncio.to_thread(rig.wires.cut)
        assert not await asyncio.to_thread(rig.wires.reaches, "a", wait_s=0.3)
        await asyncio.to_thread(rig.wires.cut, cut=False)
        seen = max(heard.count("tunnel.rotated") for heard in pair.heard.values())
        await pair.rotated(seen + 1)
        assert await rig.reaches()


DaemonCheck = Callable[[DaemonRig], Awaitable[None]]
DAEMON_CHECKS: Final[tuple[DaemonCheck, ...]] = (
    without_keys_not_a_packet_leaves_in_any_form_until_there_are_keys,
    a_daemon_that_is_killed_lets_nothing_around_the_tunnel_and_gets_a_fresh_key,
    the_process_that_steers_is_restarted_and_traffic_goes_on,
    a_pulled_wire_costs_only_what_was_sent_meanwhile,
)
