"""MACsec between two namespaces: real frames, by the kernel where it has MACsec, else by the userspace plane."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from keystrand.core.errors import Unavailable
from keystrand.core.protection import Protection
from keystrand.lab.load import MARK
from keystrand.lab.macsec import stage
from keystrand.lab.stage import Stage
from keystrand.lab.wires import Wires, why_not
from keystrand.testing.connector_conformance import CHECKS, Check
from keystrand.testing.patience import PATIENCE_S
from keystrand.testing.tunnels import SIDE, TunnelPair, generation, place_of, prepare
from keystrand.transport.macsec import proof
from keystrand.transport.macsec.connector import KIND
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.contract import Connector, Place, Role
from keystrand.transport.tunnel.runner import Terms

REASON = why_not() or ("" if Path("/dev/net/tun").exists() else "there is no /dev/net/tun")
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

PACE = Pace(rotate_s=0.5, hold_s=6.0, repeat_s=0.3, give_up_s=5.0, retry_s=0.3)
TERMS = Terms(require=Protection.HYBRID, pace=PACE)
PATIENT = replace(TERMS, pace=replace(PACE, hold_s=PATIENCE_S, give_up_s=PATIENCE_S))  # nothing may be missed


def opening(staged: Stage, place: Place) -> Connector:
    return KIND.open(place, staged.settings(KIND, SIDE[place.role]))


async def reaches(wires: Wires, wait_s: float = 10.0) -> bool:
    return await asyncio.to_thread(wires.reaches, "a", wait_s=wait_s)


@dataclass
class MacsecRig:
    """A fresh connector for each call of open. Between the hosts there is no way around the tunnel."""

    wires: Wires
    staged: Stage
    folder: Path

    def open(self, role: Role) -> Connector:
        return opening(self.staged, place_of(self.folder, role))

    async def passes(self) -> bool:
        return await reaches(self.wires, 1.0)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, wires: Wires, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "PROOF_S", 1.0)
    await check(MacsecRig(wires, stage(wires, tmp_path), tmp_path))


@pytest.mark.proves("R017", "R028", "R083")
@pytest.mark.parametrize("cipher", ["gcm-aes-256", "gcm-aes-xpn-128"])
async def test_rotations_under_a_thousand_packets_a_second_lose_none(wires: Wires, tmp_path: Path, cipher: str) -> None:
    staged = stage(wires, tmp_path, cipher=cipher)
    pair = TunnelPair(tmp_path, PATIENT, lambda place: opening(staged, place))
    async with pair.running():
        await pair.rotated(1)
        assert await reaches(wires)
        load = wires.load(packets_per_s=1000, seconds=PATIENCE_S)
        clear = await asyncio.to_thread(wires.capture, "b", 2.0, MARK)
        await pair.rotated(1 + 5)  # all four association numbers
        report = await asyncio.to_thread(load.stop)
        assert report.sent >= 2000
        assert report.lost == 0, report
        assert clear == 0, "packets in clear on the wire"
        assert all(heard.count("tunnel.missed") == 0 for heard in pair.heard.values())


async def test_a_number_whose_association_carries_traffic_is_refused(wires: Wires, tmp_path: Path) -> None:
    staged = stage(wires, tmp_path)
    ends = {role: opening(staged, place_of(tmp_path, role)) for role in SIDE}
    await prepare(ends, 4)  # association 0, where an interface sends at first: it must not, before the proof
    assert not await reaches(wires, 0.3)
    await ends["initiator"].activate(4)
    await ends["responder"].confirm(4)
    assert await reaches(wires)
    with pytest.raises(Unavailable, match="still carries traffic"):
        await ends["responder"].prepare(generation(8))
    assert await reaches(wires)
    for end in ends.values():
        await end.close()


async def test_a_pulled_wire_is_seen_and_the_tunnel_is_back_with_it(wires: Wires, tmp_path: Path) -> None:
    staged = stage(wires, tmp_path)
    pair = TunnelPair(tmp_path, TERMS, lambda place: opening(staged, place))
    async with pair.running():
        await pair.rotated(1)
        await pair.until(lambda p: p.runners["responder"].status()["state"] == "up")
        wires.cut()
        await pair.until(lambda p: p.runners["responder"].status()["state"] == "down")
        assert not await reaches(wires, 0.3)
        wires.cut(cut=False)
        await pair.until(lambda p: p.runners["responder"].status()["state"] == "up")
        seen = pair.heard["responder"].count("tunnel.rotated")
        await pair.until(lambda p: p.heard["responder"].count("tunnel.rotated") > seen)
        assert await reaches(wires)
