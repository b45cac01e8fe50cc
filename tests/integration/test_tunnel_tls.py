"""A TCP service behind two `keystrand proxy` processes, under keys that change: what is lost, refused, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tcp_rig import HERE, ROLES, Rig, serving, socket_of

from keystrand.core.protection import Protection
from keystrand.testing.patience import PATIENCE_S, until
from keystrand.testing.tunnels import TunnelPair, bring_up
from keystrand.transport.tls.connector import KIND
from keystrand.transport.tls.control import Order, tell
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.contract import Role
from keystrand.transport.tunnel.runner import Terms

PACE = Pace(rotate_s=1.0, hold_s=6.0, repeat_s=0.3, give_up_s=5.0, retry_s=0.3)
TERMS = Terms(require=Protection.HYBRID, pace=PACE)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(KIND, tmp_path) as made:
        yield made


def pair_of(rig: Rig, terms: Terms = TERMS) -> TunnelPair:
    return TunnelPair(rig.folder, terms, rig.at, kind="tls")


@pytest.mark.proves("R017", "R082")
async def test_rotations_cost_no_connection_and_no_byte(rig: Rig) -> None:
    """New connections all the time, and one that lives through all rotations with its first key."""
    patient = replace(PACE, hold_s=PATIENCE_S, give_up_s=PATIENCE_S)
    async with pair_of(rig, replace(TERMS, pace=patient)).running() as pair:
        await pair.rotated(1)
        reader, writer = await asyncio.open_connection(HERE, rig.base)
        begun, failed, seen = 0, 0, hashlib.sha256()
        while pair.heard["responder"].count("tunnel.rotated") < 5:
            begun += 1
            failed += not await rig.passes()
            writer.write(b"x" * 1000)
            seen.update(await reader.readexactly(1000))
        writer.write_eof()
        assert await reader.read() == f" {begun * 1000}".encode(), "half-closed, and the answer still came"
        assert begun > 50
        assert failed == 0, f"{failed} of {begun}"
        assert seen.digest() == hashlib.sha256(b"x" * 1000 * begun).digest()
        assert all(heard.count("tunnel.missed") == 0 for heard in pair.heard.values())


async def test_without_keys_connections_end_and_none_begins_until_there_are_keys(rig: Rig) -> None:
    pair = pair_of(rig, replace(TERMS, pace=replace(PACE, hold_s=2.5)))
    async with pair.running():
        await pair.rotated(1)
        reader, writer = await asyncio.open_connection(HERE, rig.base)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        source = pair.sources["initiator"]
        source.left = 0  # type: ignore[attr-defined]
        await pair.until(lambda p: all(runner.end.blocked for runner in p.runners.values()))
        with pytest.raises(ConnectionError):  # a reset: what was cut does not look like a whole answer
            await asyncio.wait_for(reader.readexactly(1), PATIENCE_S)
        assert not await rig.passes()
        source.left = None  # type: ignore[attr-defined]
        await pair.until(lambda p: not any(runner.end.blocked for runner in p.runners.values()))
        assert await rig.passes()


async def test_a_proxy_that_is_killed_comes_back_with_a_fresh_key(rig: Rig) -> None:
    terms = replace(TERMS, pace=replace(PACE, rotate_s=60.0, hold_s=120.0))
    async with pair_of(rig, terms).running() as pair:
        await pair.rotated(1)
        await tell(socket_of(rig, "responder"), Order(verb="stop"))
        assert not await rig.passes()
        await pair.rotated(2)
        assert await rig.passes()


async def test_connections_under_a_replaced_key_are_closed_after_drain_s(rig: Rig) -> None:
    rig.settings["drain_s"] = 3.0
    ends = {role: rig.open(role) for role in ROLES}
    held = []
    for number in (1, 2):
        await bring_up(ends, number)
        held.append(await asyncio.open_connection(HERE, rig.base))
        held[-1][1].write(b"a")
        assert await held[-1][0].readexactly(1) == b"a"
        facts = (await ends["initiator"].health()).facts
        assert facts["connections"] == number
        assert facts["draining"] == number - 1
        for end in ends.values():
            await end.retire(number)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(held[0][0].readexactly(1), PATIENCE_S)
    held[1][1].write(b"b")
    assert await held[1][0].readexactly(1) == b"b"
    health = await ends["responder"].health()
    assert health.number == 2
    assert health.bytes_used == 4, "two bytes, each there and back"


async def test_others_are_refused(rig: Rig) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the openssl program")
    ends = {role: rig.open(role) for role in ROLES}
    await bring_up(ends, 1)
    words = ["s_client", "-connect", f"{HERE}:{rig.base + 1}", "-tls1_3"]
    for more in ([], ["-psk_identity", "nobody", "-psk", "00" * 32]):
        run = [program, *words, *more]
        done = await asyncio.to_thread(subprocess.run, run, input=b"", capture_output=True, timeout=PATIENCE_S)
        assert done.returncode != 0
        assert b"alert" in done.stderr
    assert await rig.passes()

    async def refused() -> object:
        return (await ends["responder"].health()).facts["refused_total"] == 2

    await until(refused)


async def test_more_connections_than_allowed_are_refused_and_the_others_go_on(rig: Rig) -> None:
    rig.settings["connections_max"] = 50
    ends = {role: rig.open(role) for role in ROLES}
    await bring_up(ends, 1)
    held = []
    for _ in range(50):
        held.append(await asyncio.open_connection(HERE, rig.base))
        held[-1][1].write(b"a")
        assert await held[-1][0].readexactly(1) == b"a"
    assert not await rig.passes()
    await bring_up(ends, 2)
    for reader, writer in held:
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        writer.close()


async def pour(port: int) -> int:
    """Write until nothing is taken for a while; how many bytes were."""
    _, writer = await asyncio.open_connection(HERE, port)
    sent, chunk = 0, bytes(1 << 20)
    with contextlib.suppress(TimeoutError):
        while sent < 1 << 28:
            writer.write(chunk)
            async with asyncio.timeout(1.5):
                await writer.drain()
            sent += len(chunk)
    writer.transport.abort()
    return sent


def rss_mib(rig: Rig, role: Role) -> float:
    """Of the proxy, at its highest."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(socket_of(rig, role)) in (process / "cmdline").read_text().split("\0"):
                lines = (process / "status").read_text().splitlines()
                return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    raise AssertionError(f"no proxy of the {role}")


async def test_a_reader_that_does_not_read_stops_the_writer_not_the_memory(rig: Rig) -> None:
    async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await asyncio.sleep(PATIENCE_S)
        writer.close()

    async with await asyncio.start_server(deaf, HERE, 0, limit=1) as service:
        rig.service = service.sockets[0].getsockname()[1]
        ends = {role: rig.open(role) for role in ROLES}
        await bring_up(ends, 1)
        sent = await asyncio.gather(*(pour(rig.base) for _ in range(8)))
        assert max(sent) < 1 << 26, "buffers of the system, and ours, but not 64 MiB"
        assert all(rss_mib(rig, role) < 120 for role in ROLES)
