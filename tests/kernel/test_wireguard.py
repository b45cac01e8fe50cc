"""The kernel's WireGuard: dual lanes under a load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.kernel.planes import Rig, pair_of, took_ms, under_load

from keystrand.lab.wireguard import stage
from keystrand.lab.wires import Wires
from keystrand.testing.connector_conformance import (
    block_stops_traffic_and_a_fresh_key_lets_it_pass_again,
    the_tunnel_outlives_its_connectors,
)
from keystrand.transport.wireguard.connector import KIND
from keystrand.transport.wireguard.lane import plane_of


async def test_keys_change_over_dual_lanes(wires: Wires, tmp_path: Path, figure: Callable[..., None]) -> None:
    staged = stage(wires, tmp_path)
    assert await plane_of(staged.settings(KIND, "a")) == "kernel"
    pair = pair_of(KIND, staged, tmp_path, rotate_s=30.0)  # a rotation takes some seconds here, 20 on a busy machine
    async with pair.running():
        seen = await under_load(pair, wires, rotations=4, packets_per_s=100, seconds_max=600.0)
        seen.tell(figure, "WireGuard dual lanes, kernel", took_ms(pair))
    assert (seen.report.lost, seen.missed, seen.frames_in_clear) == (0, 0, 0)


async def test_conformance(wires: Wires, tmp_path: Path) -> None:
    """Two of the checks: each instruction is translated here, and the others run with wireguard-go in `make test`."""
    await the_tunnel_outlives_its_connectors(Rig(KIND, wires, stage(wires, tmp_path), tmp_path))


async def test_blocking(wires: Wires, tmp_path: Path) -> None:
    await block_stops_traffic_and_a_fresh_key_lets_it_pass_again(Rig(KIND, wires, stage(wires, tmp_path), tmp_path))
