"""Every long-running program of a site tells one collector of its machine: a real rsyslogd, on a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keystrand.config.founding import append
from keystrand.config.load import load_site
from keystrand.core.errors import Unavailable
from keystrand.lab.pair import SITES, Pair, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import Programs
from keystrand.testing.patience import wait_until
from keystrand.transport.tls.control import Order, tell

PROGRAM = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="the program rsyslogd is missing (apt-get install rsyslog)")
RSYSLOG = """
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{folder}/log" CreatePath="on")
template(name="line" type="string" string="%syslogseverity-text% %programname% %msg%\\n")
action(type="omfile" file="{folder}/collected" template="line")
"""
TUNNEL = """
[log]
collector = "{collector}"

[tunnel.east]
kind = "tls"
peer = "{peer}"
sae = "gateway-{site}"
peer_sae = "gateway-{peer}"
{verb} = "127.0.0.1:{port}"
rotate_s = 1.5
hold_s = 8.0
on_exhaustion = "fail-closed"
start = "apart"

[tunnel.east.tls]
listen = "127.0.0.1:{listen}"
connect = "127.0.0.1:{connect}"
"""


@dataclass
class Collected:
    """What rsyslogd has written down."""

    folder: Path

    @property
    def socket(self) -> Path:
        return self.folder / "log"

    def records(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Severity, program and record of each line."""
        file = self.folder / "collected"
        lines = file.read_text().splitlines() if file.exists() else []
        split = [line.split(maxsplit=2) for line in lines]
        return [(severity, program, json.loads(text)) for severity, program, text in split]

    def of(self, program: str) -> set[str]:
        return {record["event"] for _, who, record in self.records() if who == f"keystrand-{program}"}


@pytest.fixture
def collected() -> Iterator[Collected]:
    folder = Path(tempfile.mkdtemp(prefix="keystrand-log-"))
    (folder / "rsyslog.conf").write_text(RSYSLOG.format(folder=folder))
    assert PROGRAM is not None
    words = [PROGRAM, "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "pid")]
    daemon = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made = Collected(folder)
    try:
        wait_until(made.socket.exists)
        yield made
    finally:
        daemon.terminate()
        daemon.wait(120)
        shutil.rmtree(folder)


def pair_of(folder: Path, collector: Path) -> Pair:
    pair = found_pair(folder, length_km=5.0)
    base = free_base_port(4)
    channel, entry, between, service = range(base, base + 4)
    ways = {"alpha": ("connect", entry, between), "bravo": ("listen", between, service)}
    for site, peer in (SITES, SITES[::-1]):
        verb, listen, connect = ways[site]
        filled = TUNNEL.format(
            collector=collector, site=site, peer=peer, verb=verb, port=channel, listen=listen, connect=connect
        )
        append(pair.site_files[site], filled)
        module = pair.module_files[site]
        module.write_text(module.read_text() + f'\n[log]\ncollector = "{collector}"\n')
    return pair


@pytest.mark.proves("R091")
def test_each_program_of_a_site_reaches_the_collector(tmp_path: Path, collected: Collected) -> None:
    pair, programs = pair_of(tmp_path / "pair", collected.socket), Programs(tmp_path)
    folders = [load_site(file).site.state_dir / "tunnels" / "east" for file in pair.site_files.values()]
    try:
        for site, file in pair.site_files.items():
            programs.start(f"{site}-kme", "serve", str(file))
            programs.start(f"{site}-module", "module", str(pair.module_files[site]))
            programs.start(f"{site}-tunnel", "tunnel", "run", "east", "--config", str(file))
        wait_until(lambda: "tunnel.rotated" in collected.of("tunnel") and "proxy.step" in collected.of("proxy"))
        assert {"site.started", "peer.up", "block.ingested"} <= collected.of("serve")
        assert collected.of("module")
        programs.kill("alpha-tunnel")  # whoever steers is gone: its sentinel stops the traffic when keys are too old
        wait_until(lambda: "tunnel.blocked" in collected.of("sentinel"))
        assert {"proxy.up", "proxy.blocked"} <= collected.of("proxy"), "it went on without, and still tells"
    finally:
        programs.stop()
        for folder in folders:
            stop_proxy(folder / "proxy.sock")
    severities = {(record["event"], severity) for severity, _, record in collected.records()}
    assert {("site.started", "notice"), ("tunnel.blocked", "alert"), ("proxy.blocked", "warning")} <= severities
    lines = [json.loads(line) for folder in folders for line in (folder / "proxy.log").read_text().splitlines()[1:]]
    assert {line["event"] for line in lines} >= {"proxy.up", "proxy.step"}, "and on its own stderr"
    assert {line["tunnel"] for line in lines if line["event"].startswith("proxy.")} == {"east"}


def stop_proxy(socket: Path) -> None:
    with contextlib.suppress(Unavailable):
        asyncio.run(tell(socket, Order(verb="stop")))
