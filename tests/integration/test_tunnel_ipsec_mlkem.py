"""ML-KEM-768 beside the elliptic curve and the PPK (RFC 9370), where strongSwan has it: `make test-mlkem` brings one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from keystrand.core.errors import Unavailable
from keystrand.lab import ipsec as lab
from keystrand.lab.wires import SIDES, Side, Wires, why_not
from keystrand.testing.tunnels import SIDE, bring_up, place_of
from keystrand.transport.ipsec.connector import KIND, Ipsec
from keystrand.transport.ipsec.vici import Vici, section, texts

REASON = why_not() or lab.why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


async def has_ml_kem(wires: Wires, side: Side) -> bool:
    algorithms = await Vici(lab.socket_of(wires, side)).call("get-algorithms")
    return any("ML_KEM_768" in section(algorithms, kind) for kind in ("ke", "dh"))


async def test_a_daemon_with_ml_kem_uses_it_and_one_without_refuses_where_it_is_required(
    wires: Wires, tmp_path: Path
) -> None:
    staged = lab.stage(wires, tmp_path)
    required = {
        role: Ipsec(place_of(tmp_path, role), msgspec.structs.replace(staged.settings(KIND, side), ml_kem="required"))
        for role, side in SIDE.items()
    }
    if not await has_ml_kem(wires, "a"):
        with pytest.raises(Unavailable, match="does not have it"):
            await bring_up(required, 1)
        offered = {role: Ipsec(place_of(tmp_path, role), staged.settings(KIND, side)) for role, side in SIDE.items()}
        await bring_up(offered, 1)
        assert (await offered["initiator"].health()).facts["ml_kem"] == "no"
        return
    await bring_up(required, 1)
    for role, side in SIDE.items():
        health = await required[role].health()
        assert health.up
        assert health.facts["ml_kem"] == "yes"
        assert str(health.facts["suite"]).endswith("ML_KEM_768/PPK"), health.facts
        assert texts(await Vici(lab.socket_of(wires, side)).call("get-shared"), "keys") == [], "the PPK is wiped"
    assert await asyncio.to_thread(wires.reaches, "a")
    assert set(SIDES) == set(SIDE.values())
