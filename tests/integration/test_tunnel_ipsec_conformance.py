"""The IPsec connector against what every connector must do, over real strongSwan."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from keystrand.lab import ipsec as lab
from keystrand.lab.stage import Stage
from keystrand.lab.wires import Wires, why_not
from keystrand.testing.connector_conformance import CHECKS, Check
from keystrand.testing.tunnels import place_of
from keystrand.transport.ipsec.connector import KIND
from keystrand.transport.tunnel.contract import Connector, Role

REASON = why_not() or lab.why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@dataclass
class StrongSwanRig:
    """Two daemons, and a fresh connector for each call of open. There is no way around the tunnel."""

    wires: Wires
    staged: Stage
    folder: Path

    def open(self, role: Role) -> Connector:
        side = "a" if role == "initiator" else "b"
        return KIND.open(place_of(self.folder, role), self.staged.settings(KIND, side))  # type: ignore[arg-type]

    async def passes(self) -> bool:
        return await asyncio.to_thread(self.wires.reaches, "a", wait_s=1.0)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_strongswan_is_driven_as_every_daemon_must_be(check: Check, tmp_path: Path) -> None:
    with Wires() as wires:
        await check(StrongSwanRig(wires, lab.stage(wires, tmp_path), tmp_path))
