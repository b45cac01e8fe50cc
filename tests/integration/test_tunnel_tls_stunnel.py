"""A TCP service behind two real stunnels, under keys that change."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tcp_rig import HERE, ROLES, Rig, serving

from keystrand.core.protection import Protection
from keystrand.testing.connector_conformance import CHECKS, Check
from keystrand.testing.patience import PATIENCE_S
from keystrand.testing.tunnels import TunnelPair, place_of
from keystrand.transport.tls.stunnel import KIND
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.contract import Role
from keystrand.transport.tunnel.runner import Terms

pytestmark = pytest.mark.skipif(shutil.which("stunnel") is None, reason="the program stunnel is missing")
PACE = Pace(rotate_s=1.5, hold_s=PATIENCE_S, repeat_s=0.3, give_up_s=PATIENCE_S, retry_s=0.3)
TERMS = Terms(require=Protection.HYBRID, pace=PACE)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(KIND, tmp_path) as made:
        yield made


def process(rig: Rig, role: Role) -> int:
    return int((place_of(rig.folder, role).state_dir / "stunnel.pid").read_text())


@pytest.mark.proves("R082")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_stunnel_is_a_connector_as_every_other(check: Check, rig: Rig) -> None:
    await check(rig)


@pytest.mark.proves("R082")
async def test_rotations_of_stunnel_cost_no_open_connection_and_no_byte(rig: Rig) -> None:
    """A new one may be reset in the instant of a reload, as stunnel closes and opens its port then."""
    async with TunnelPair(rig.folder, TERMS, rig.at, kind="stunnel").running() as pair:
        await pair.rotated(1)
        first = process(rig, "initiator"), process(rig, "responder")
        reader, writer = await asyncio.open_connection(HERE, rig.base)
        begun, failed = 0, 0
        while pair.heard["responder"].count("tunnel.rotated") < 4:
            begun += 1
            failed += not await rig.passes()
            writer.write(b"x" * 1000)
            assert await reader.readexactly(1000) == b"x" * 1000
        writer.close()
        assert begun > 30
        reloads = 3 * 4  # each rotation: fresh key at the responder, change at the initiator, old key gone
        assert failed <= reloads, f"{failed} of {begun}"
        assert all(heard.count("tunnel.missed") == 0 for heard in pair.heard.values())
        assert first == (process(rig, "initiator"), process(rig, "responder")), "the same two processes"
    files = [place_of(rig.folder, role).state_dir / f"t.{role}.psk" for role in ROLES]
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    assert all(file.read_text().count("\n") == 1 for file in files), "no key stays that was replaced"


async def test_a_stunnel_that_is_killed_comes_back_with_a_fresh_key(rig: Rig) -> None:
    terms = replace(TERMS, pace=replace(PACE, rotate_s=60.0, give_up_s=5.0))
    async with TunnelPair(rig.folder, terms, rig.at, kind="stunnel").running() as pair:
        await pair.rotated(1)
        os.kill(process(rig, "responder"), signal.SIGKILL)
        assert not await rig.passes()
        await pair.rotated(2)
        assert await rig.passes()
