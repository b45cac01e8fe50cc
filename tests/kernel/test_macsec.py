"""The kernel's MACsec: our frames against its own, every check of a connector, and rotation without loss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.kernel.planes import Rig, pair_of, terms, took_ms, under_load

from keystrand.lab.macsec import plane_here, stage
from keystrand.lab.wires import Wires
from keystrand.testing.connector_conformance import CHECKS, Check
from keystrand.testing.tunnels import SIDE, TunnelPair
from keystrand.transport.macsec.connector import KIND
from keystrand.transport.tunnel.contract import Connector, Place


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, wires: Wires, tmp_path: Path) -> None:
    assert plane_here(wires) == "kernel"
    await check(Rig(KIND, wires, stage(wires, tmp_path, plane="kernel"), tmp_path))


@pytest.mark.proves("R083")
@pytest.mark.parametrize("cipher", ["gcm-aes-256", "gcm-aes-xpn-256"])
async def test_keys_change_under_a_thousand_packets_a_second(
    wires: Wires, tmp_path: Path, cipher: str, figure: Callable[..., None]
) -> None:
    pair = pair_of(KIND, stage(wires, tmp_path, cipher=cipher, plane="kernel"), tmp_path, rotate_s=0.8)
    async with pair.running():
        seen = await under_load(pair, wires, rotations=20)
        seen.tell(figure, f"MACsec {cipher}, kernel", took_ms(pair))
    assert seen.report.sent >= 2200
    assert (seen.report.lost, seen.missed, seen.frames_in_clear) == (0, 0, 0)


async def test_the_userspace_plane_and_the_kernel_understand_each_other(wires: Wires, tmp_path: Path) -> None:
    """Neither end can tell what the other one is: the frames are MACsec's."""
    staged = {
        "initiator": stage(wires, tmp_path, plane="kernel"),
        "responder": stage(wires, tmp_path, plane="userspace"),
    }

    def opening(place: Place) -> Connector:
        return KIND.open(place, staged[place.role].settings(KIND, SIDE[place.role]))

    async with TunnelPair(tmp_path, terms(1.0), opening).running() as pair:
        await pair.rotated(5)
        assert await asyncio.to_thread(wires.reaches, "a", wait_s=1.0)
        assert await asyncio.to_thread(wires.reaches, "b", wait_s=1.0)


async def test_packet_numbers_that_run_out_bring_a_fresh_key_at_once(wires: Wires, tmp_path: Path) -> None:
    async with pair_of(KIND, stage(wires, tmp_path, plane="kernel"), tmp_path, rotate_s=600.0).running() as pair:
        await pair.rotated(1)
        wires.run("a", "ip", "macsec", "set", "ms0", "tx", "sa", "1", "pn", str(0xC000_0001))
        await pair.rotated(2)
        assert await asyncio.to_thread(wires.reaches, "a", wait_s=1.0)
