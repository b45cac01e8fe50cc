"""Two served sites that start their own tunnels: up, watched, restarted, and left standing when the sites stop."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keystrand.config.founding import append
from keystrand.config.load import load_module, load_site
from keystrand.lab.pair import SITES, Pair, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import Programs, read_status
from keystrand.lab.wireguard import stage
from keystrand.lab.wires import Side, Wires, why_not
from keystrand.testing.feeder import Feeder
from keystrand.testing.patience import PATIENCE_S, until

REASON = why_not() or ("" if shutil.which("wireguard-go") else "the program wireguard-go is missing")
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

SIDE: dict[str, Side] = {"alpha": "a", "bravo": "b"}
TABLE = """
[tunnel.west]
kind = "wireguard"
peer = "{peer}"
sae = "gateway-{site}"
peer_sae = "gateway-{peer}"
{verb} = "127.0.0.1:{port}"
rotate_s = 1.5
hold_s = 60.0
on_exhaustion = "fail-closed"

[tunnel.west.wireguard]
{settings}
"""


ESTATE = """
name = "pair"
planned = 2026-11-28
[sites.alpha]
[sites.bravo]
[links.west]
ends = ["alpha", "bravo"]
protocols = [{ name = "wireguard", cipher = "ChaCha20-Poly1305" }]
"""


@pytest.fixture
def pair(tmp_path: Path, wires: Wires) -> Pair:
    founded = found_pair(tmp_path / "pair")
    (tmp_path / "stage").mkdir()
    staged, port = stage(wires, tmp_path / "stage"), free_base_port(1)
    for site, peer in (SITES, SITES[::-1]):
        verb = "connect" if site < peer else "listen"
        settings = staged.tables[SIDE[site]]
        append(founded.site_files[site], TABLE.format(site=site, peer=peer, verb=verb, port=port, settings=settings))
    return founded


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.stop()


def listed(pair: Pair, site: str) -> dict[str, Any]:
    """What `keystrand tunnel list --json` says."""
    words = [sys.executable, "-m", "keystrand", "tunnel", "list", "--json", "--config", str(pair.site_files[site])]
    said: dict[str, Any] = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=120).stdout)
    return said


async def feed(pair: Pair) -> Feeder:
    """As soon as both sites take blocks."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            feeder = Feeder([load_module(file) for file in pair.module_files.values()])
            try:
                await feeder.connect()
                await feeder.feed(131_072)
            except Exception:
                await feeder.close()
                await asyncio.sleep(0.3)
            else:
                return feeder


async def until_listed(pair: Pair, site: str, programs: Programs, *, rotations: int) -> dict[str, Any]:
    status: dict[str, Any] = {}

    async def holds() -> bool:
        status.update(await asyncio.to_thread(listed, pair, site))
        return status.get("state") == "up" and status["rotations_total"] >= rotations

    await until(holds, pause_s=0.5, told=lambda: f"{status}\n{programs.tail(f'{site}-kme', 20)}")
    return status


def processes_of(pair: Pair, site: str) -> list[int]:
    """Of `keystrand tunnel run` for this site."""
    wanted = f"tunnel\0run\0west\0--config\0{pair.site_files[site]}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


async def test_serve_runs_its_tunnels_and_leaves_them_standing(
    pair: Pair, programs: Programs, wires: Wires, tmp_path: Path
) -> None:
    estate = tmp_path / "estate.toml"
    estate.write_text(ESTATE)
    for site in SITES:
        programs.start(f"{site}-kme", "serve", str(pair.site_files[site]))
    feeder = await feed(pair)
    try:
        status = await until_listed(pair, "alpha", programs, rotations=2)
        assert status["protection"] == "hybrid"
        assert (status["role"], status["peer_sae"], status["blocked"]) == ("initiator", "gateway-bravo", False)
        assert await asyncio.to_thread(wires.reaches, "a")

        shown = read_status(load_site(pair.site_files["alpha"]).status.listen)  # type: ignore[union-attr]
        assert shown is not None
        (seen,) = shown["tunnels"]
        assert (seen["tunnel"], seen["sae"], seen["state"]) == ("west", "gateway-alpha", "up"), "its KME was told"

        words = ["plan", "verify", str(estate), "--site", str(pair.site_files["alpha"]), "--json"]
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", "keystrand", *words], capture_output=True, text=True, timeout=120
        )
        told = {line["figure"]: line for line in map(json.loads, done.stdout.splitlines())}
        assert (told["tunnels"]["measured"], told["tunnels"]["verdict"]) == ("hybrid", "as planned"), done.stderr
        assert told["suites"]["verdict"] == "as planned"
        assert "ChaCha20-Poly1305" in told["suites"]["measured"]

        (process,) = processes_of(pair, "bravo")
        again = [sys.executable, "-m", "keystrand", "tunnel", "run", "west", "--config", str(pair.site_files["bravo"])]
        second = await asyncio.to_thread(subprocess.run, again, capture_output=True, text=True, timeout=120)
        assert second.returncode == 3, "a second process for one end"
        assert f"runs already, as process {process}" in second.stderr

        os.kill(process, signal.SIGKILL)
        assert await asyncio.to_thread(wires.reaches, "a"), "the tunnel outlives the process that steers it"
        status = await until_listed(pair, "bravo", programs, rotations=1)
        assert processes_of(pair, "bravo") != [process]
    finally:
        await feeder.close()
    await asyncio.to_thread(programs.stop)
    assert processes_of(pair, "alpha") == processes_of(pair, "bravo") == []
    assert await asyncio.to_thread(wires.reaches, "a"), "the tunnel outlives its site"
    assert listed(pair, "alpha")["state"] in ("stopped", "not running")
