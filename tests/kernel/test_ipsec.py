"""The kernel's ESP under strongSwan: a fresh IKE_SA for each key under a load, and the kernel's own barrier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.kernel.planes import Rig, pair_of, took_ms, under_load

from keystrand.lab.ipsec import stage
from keystrand.lab.wires import Wires
from keystrand.testing.connector_conformance import CHECKS, Check
from keystrand.transport.ipsec.connector import KIND


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, wires: Wires, tmp_path: Path) -> None:
    await check(Rig(KIND, wires, stage(wires, tmp_path, plane="kernel"), tmp_path))


async def test_keys_change_under_a_thousand_packets_a_second(
    wires: Wires, tmp_path: Path, figure: Callable[..., None]
) -> None:
    pair = pair_of(KIND, stage(wires, tmp_path, plane="kernel"), tmp_path, rotate_s=2.0)
    async with pair.running():
        seen = await under_load(pair, wires, rotations=15)
        seen.tell(figure, "IPsec (strongSwan, ESP of the kernel), initiator to responder", took_ms(pair))
        assert "ESP" in wires.run("a", "ip", "-s", "xfrm", "state").upper()
    assert (seen.report.lost, seen.missed, seen.frames_in_clear) == (0, 0, 0)
