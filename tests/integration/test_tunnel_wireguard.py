"""Real WireGuard between two namespaces, under keys that change: what is lost, what is refused, what stops."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from keystrand.core.errors import Unavailable
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.lab.load import MARK
from keystrand.lab.stage import Stage
from keystrand.lab.wireguard import stage
from keystrand.lab.wires import SIDES, Side, Wires, why_not
from keystrand.testing.connector_conformance import CHECKS, Check
from keystrand.testing.daemon_conformance import DAEMON_CHECKS, DaemonCheck, DaemonRig
from keystrand.testing.patience import PATIENCE_S
from keystrand.testing.tunnels import SIDE, TunnelPair, bring_up, generation, place_of, prepare
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.contract import Connector, Place, Role
from keystrand.transport.tunnel.runner import Terms
from keystrand.transport.wireguard import connector
from keystrand.transport.wireguard.connector import KIND, DualLanes
from keystrand.transport.wireguard.door import Peer, ToolDoor, UapiDoor, key_of

REASON = why_not() or ("" if shutil.which("wireguard-go") else "the program wireguard-go is missing")
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

PACE = Pace(rotate_s=1.0, hold_s=6.0, repeat_s=0.3, give_up_s=5.0, retry_s=0.3)
TERMS = Terms(require=Protection.HYBRID, pace=PACE)
PATIENT = replace(TERMS, pace=replace(PACE, hold_s=PATIENCE_S, give_up_s=PATIENCE_S))  # nothing may be missed


def opening(staged: Stage, place: Place) -> Connector:
    return KIND.open(place, staged.settings(KIND, SIDE[place.role]))


def pair_of(folder: Path, wires: Wires, terms: Terms = TERMS, lanes: str = "dual") -> TunnelPair:
    staged = stage(wires, folder, lanes)
    return TunnelPair(folder, terms, lambda place: opening(staged, place))


def daemons(wires: Wires, side: Side) -> list[int]:
    """Process IDs of wireguard-go at one side; commands come and go beside them."""
    pids = wires.host("ip", "netns", "pids", wires.names[side]).split()
    names = {int(pid): Path(f"/proc/{pid}/comm") for pid in pids}
    return [pid for pid, name in names.items() if name.exists() and name.read_text().strip() == "wireguard-go"]


async def reaches(wires: Wires, wait_s: float = 10.0) -> bool:
    return await asyncio.to_thread(wires.reaches, "a", wait_s=wait_s)


async def test_rotations_under_a_thousand_packets_a_second_lose_none(wires: Wires, tmp_path: Path) -> None:
    for side in SIDES:  # the host's own check of where packets come from, at its strictest
        wires.run(side, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    async with pair_of(tmp_path, wires, PATIENT).running() as pair:
        await pair.rotated(1)
        assert await reaches(wires)
        load = wires.load(packets_per_s=1000, seconds=PATIENCE_S)
        clear = await asyncio.to_thread(wires.capture, "b", 2.0, MARK)
        await pair.rotated(1 + 4)
        report = await asyncio.to_thread(load.stop)
        assert report.sent >= 2000
        assert report.lost == 0, report
        assert clear == 0, "packets in clear on the wire"
        assert all(heard.count("tunnel.missed") == 0 for heard in pair.heard.values())


async def test_a_wrong_key_at_one_end_never_comes_into_use(
    wires: Wires, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "HANDSHAKE_S", 1.5)
    staged = stage(wires, tmp_path)
    ends = {role: opening(staged, place_of(tmp_path, role)) for role in SIDE}
    await bring_up(ends, 1)
    assert await reaches(wires)
    await ends["responder"].prepare(generation(2, b"a" * 32))
    await ends["initiator"].prepare(generation(2, b"b" * 32))
    assert await reaches(wires), "prepared is not in use"
    with pytest.raises(Unavailable, match="no handshake"):
        await ends["initiator"].activate(2)
    for end in ends.values():
        await end.drop(2)
    assert await reaches(wires)
    fifth = generation(5)  # its turn is on the lane that carries traffic
    with pytest.raises(Unavailable, match="still carries traffic"):
        await ends["responder"].prepare(fifth)
    assert await reaches(wires)


async def test_while_the_ends_send_over_different_lanes_neither_lane_is_taken(wires: Wires, tmp_path: Path) -> None:
    """The initiator has changed over and its process has died; its word for that was lost."""
    staged = stage(wires, tmp_path)
    ends = {role: opening(staged, place_of(tmp_path, role)) for role in SIDE}
    for number in (1, 2):
        await prepare(ends, number)
        await ends["initiator"].activate(number)
        if number == 1:
            await ends["responder"].confirm(1)
    ends["initiator"] = opening(staged, place_of(tmp_path, "initiator"))
    assert await reaches(wires)
    for number in (5, 6):
        with pytest.raises(Unavailable, match="still carries traffic"):
            await ends["responder"].prepare(generation(number))
    assert await reaches(wires)
    await bring_up(ends, 7)
    for end in ends.values():
        await end.retire(7)
    assert await reaches(wires)
    assert (await ends["responder"].health()).number == 7


async def test_one_interface_comes_up_at_once_and_a_key_that_waits_disturbs_nothing(
    wires: Wires, tmp_path: Path
) -> None:
    staged = stage(wires, tmp_path, "natural")
    ends = {role: opening(staged, place_of(tmp_path, role)) for role in SIDE}
    await bring_up(ends, 1)
    assert await reaches(wires)
    load = wires.load(seconds=3.0)
    await prepare(ends, 2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):  # the session lives on: its next handshake is up to two minutes away
            await ends["initiator"].activate(2)
    for end in ends.values():
        await end.drop(2)
    assert (await asyncio.to_thread(load.wait, PATIENCE_S)).lost == 0
    health = await ends["initiator"].health()
    assert (health.up, health.number) == (True, 1)
    assert (health.bytes_used or 0) > 600_000
    await ends["initiator"].block()
    assert not await reaches(wires, 0.5)


async def test_the_tool_and_the_socket_are_two_doors_to_the_same_interface(wires: Wires, tmp_path: Path) -> None:
    """`wg`, which drives WireGuard of the kernel, drives the userspace program here."""
    staged = stage(wires, tmp_path)
    lanes = KIND.open(place_of(tmp_path, "initiator"), staged.settings(KIND, "a"))
    assert isinstance(lanes, DualLanes)
    await lanes.prepare(generation(1))
    name = f"{staged.settings(KIND, 'a').interface}1"
    socket, tool = UapiDoor(name), ToolDoor(name, wires.names["a"])
    other, psk = key_of(staged.settings(KIND, "a").peer_public_key), Secret(os.urandom(32))
    peer = Peer(public_key=other, psk=psk, endpoint="10.99.0.2:4000", allowed_ips=("10.2.0.1/32",))
    await tool.set_peer(peer, anew=True)
    assert await tool.state() == await socket.state()
    assert (await socket.state()).endpoint == "10.99.0.2:4000"  # type: ignore[union-attr]
    shown = wires.run("a", "wg", "show", name, "preshared-keys")
    assert psk.reveal() == key_of(shown.split()[1])
    await tool.remove_peers()
    assert await socket.state() is None
    with pytest.raises(Unavailable):
        await tool.set_peer(replace(peer, endpoint="nonsense"), anew=True)


class WireGuardRig:
    def __init__(self, wires: Wires, folder: Path) -> None:
        self._wires, self._folder = wires, folder
        self._stage = stage(wires, folder)

    def open(self, role: Role) -> Connector:
        return opening(self._stage, place_of(self._folder, role))

    async def passes(self) -> bool:
        return await reaches(self._wires, 1.0)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, wires: Wires, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "HANDSHAKE_S", 1.0)
    await check(WireGuardRig(wires, tmp_path))


@pytest.mark.proves("R021")
@pytest.mark.parametrize("check", DAEMON_CHECKS, ids=lambda check: check.__name__)
async def test_whatever_happens(check: DaemonCheck, wires: Wires, tmp_path: Path) -> None:
    staged = stage(wires, tmp_path)

    def kill(side: Side) -> Callable[[], object]:
        for pid in daemons(wires, side):
            os.kill(pid, signal.SIGKILL)
        return lambda: None  # the connector starts a fresh one

    await check(DaemonRig(wires, tmp_path, partial(opening, staged), kill))
