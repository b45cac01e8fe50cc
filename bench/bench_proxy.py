"""The TLS proxy beside stunnel and raw TCP: bytes through one and four connections, and connections a second, on loopback.

`python -m bench.bench_proxy --mib 512 --rounds 3`. Client, both proxies and service are processes of their own and share the
cores. The ways take turns, so that a busy moment of the machine hits all; ratios are of medians. The proxy has AES-256-GCM and
X25519MLKEM768, stunnel ChaCha20-Poly1305 and X25519: it takes no PSK with SHA-384, and no ML-KEM before OpenSSL 3.5.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from bench.report import Row, publish
from keystrand.core.errors import KeystrandError
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.lab.ports import free_base_port
from keystrand.transport.tls.control import Order, tell
from keystrand.transport.tunnel.contract import Connector, Generation, Place, Role
from keystrand.transport.tunnel.kinds import find

MIB = 1 << 20
HERE = "127.0.0.1"
ROLES: tuple[Role, Role] = ("responder", "initiator")
GOAL_STUNNEL = 0.5

SERVICE = """
import socket, sys, threading
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
def serve(wire):
    buffer = memoryview(bytearray(1 << 20))
    try:
        while wire.recv_into(buffer): pass
        wire.sendall(b"!")
    except OSError: pass
    wire.close()
print("ready", flush=True)
while True:
    wire, _ = server.accept()
    threading.Thread(target=serve, args=(wire,), daemon=True).start()
"""
CLIENT = """
import socket, sys, threading
port, size, connections = map(int, sys.argv[1:])
chunk = bytes(1 << 20)
def send():
    with socket.create_connection(("127.0.0.1", port)) as wire:
        for _ in range(size // connections // len(chunk)): wire.sendall(chunk)
        wire.shutdown(socket.SHUT_WR)
        assert wire.recv(1) == b"!"
jobs = [threading.Thread(target=send) for _ in range(connections)]
for job in jobs: job.start()
for job in jobs: job.join()
"""


class Way:
    """One kind of tunnel before the service. kind "": none."""

    def __init__(self, kind: str, folder: Path, service: int, port: int) -> None:
        self.kind, self._folder, self._service = kind, folder / (kind or "raw"), service
        self.port = port if kind else service
        self._ends: dict[Role, Connector] = {}

    async def start(self) -> None:
        if not self.kind:
            return
        kind = find(self.kind)
        ports = {"initiator": (self.port, self.port + 1), "responder": (self.port + 1, self._service)}
        for role in ROLES:
            listen, connect = ports[role]
            table: dict[str, Any] = {"listen": f"{HERE}:{listen}", "connect": f"{HERE}:{connect}"}
            self._ends[role] = kind.open(self._place(role), msgspec.convert(table, kind.settings))
        material = os.urandom(32)
        for role in ROLES:
            key = Generation(number=1, key_id="bench", material=Secret(material), protection=Protection.HYBRID)
            await self._ends[role].prepare(key)
        await self._ends["initiator"].activate(1)
        await self._ends["responder"].confirm(1)

    def _place(self, role: Role) -> Place:
        names = {"initiator": ("a", "b"), "responder": ("b", "a")}[role]
        return Place(tunnel="bench", role=role, sae=names[0], peer_sae=names[1], state_dir=self._folder / role)

    async def stop(self) -> None:
        for role, end in self._ends.items():
            with contextlib.suppress(KeystrandError):
                await end.block()
                if self.kind == "tls":
                    await tell(self._place(role).state_dir / "proxy.sock", Order(verb="stop"))

    def peak_mib(self) -> float:
        """Memory of the larger of both processes at its highest."""
        marks = [str(self._place(role).state_dir / end) for role in ROLES for end in ("proxy.sock", "stunnel.conf")]
        peaks = [0.0]
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(mark in words for mark in marks):
                    lines = (process / "status").read_text().splitlines()
                    peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
        return max(peaks)


@contextlib.asynccontextmanager
async def running(kinds: list[str]) -> AsyncIterator[dict[str, Way]]:
    """All ways before one service."""
    with tempfile.TemporaryDirectory(prefix="bench-proxy-") as folder:
        port = free_base_port(1 + 2 * len(kinds))
        service = subprocess.Popen([sys.executable, "-c", SERVICE, str(port)], stdout=subprocess.PIPE)
        assert service.stdout is not None
        service.stdout.readline()
        ways = {kind: Way(kind, Path(folder), port, port + 1 + 2 * at) for at, kind in enumerate(kinds)}
        try:
            for way in ways.values():
                await way.start()
            yield ways
        finally:
            for way in ways.values():
                await way.stop()
            service.kill()
            service.wait()


def through_mb_s(way: Way, size_bytes: int, connections: int) -> float:
    began_s = time.perf_counter()
    words = [sys.executable, "-c", CLIENT, *map(str, (way.port, size_bytes, connections))]
    subprocess.run(words, check=True, timeout=300)
    return size_bytes / (time.perf_counter() - began_s) / 1e6


def connections_per_s(way: Way, seconds: float) -> float:
    """One after the other: connect, send a byte, end, wait for the answer."""
    count, until_s = 0, time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        with socket.create_connection((HERE, way.port), timeout=10) as wire:
            wire.sendall(b"x")
            wire.shutdown(socket.SHUT_WR)
            assert wire.recv(1) == b"!"
        count += 1
    return count / seconds


async def measure(mib: int, rounds: int, seconds: float) -> list[Row]:
    kinds = ["", "tls"] + (["stunnel"] if shutil.which("stunnel") else [])
    figures: dict[tuple[str, str], list[float]] = {}
    async with running(kinds) as ways:
        for _ in range(rounds):
            for kind, way in ways.items():
                for connections in (1, 4):
                    took = await asyncio.to_thread(through_mb_s, way, mib * MIB, connections)
                    figures.setdefault((kind, f"{connections}"), []).append(took)
                figures.setdefault((kind, "new"), []).append(await asyncio.to_thread(connections_per_s, way, seconds))
        peaks = {kind: way.peak_mib() for kind, way in ways.items()}
    medians = {which: statistics.median(values) for which, values in figures.items()}
    return rows_of(medians, peaks, "stunnel" in ways)


def rows_of(medians: dict[tuple[str, str], float], peaks: dict[str, float], has_stunnel: bool) -> list[Row]:
    peer = "stunnel" if has_stunnel else ""
    rows = []
    for which, words, unit in (
        ("1", "one connection", "MB/s"),
        ("4", "four connections", "MB/s"),
        ("new", "new, in turn", "1/s"),
    ):
        ours = medians["tls", which]
        reference = medians[peer, which]
        rows.append(
            Row(
                name=f"proxy, {words}",
                value=round(ours, 1),
                unit=unit,
                reference=(peer or "raw TCP", round(reference, 1)),
            )
        )
        rows.append(Row(name=f"raw TCP, {words}", value=round(medians["", which], 1), unit=unit))
        if has_stunnel:
            rows.append(
                Row(name=f"proxy / stunnel, {words}", value=round(ours / reference, 3), unit="×", goal=GOAL_STUNNEL)
            )
    rows.append(Row(name="proxy, peak memory", value=round(peaks["tls"], 1), unit="MiB", goal=150.0, better="lower",
                    reference=(peer or "none", round(peaks.get("stunnel", 0.0), 1))))  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of new connections, each round")
    given = parser.parse_args()
    publish("proxy", asyncio.run(measure(given.mib, given.rounds, given.seconds)))


if __name__ == "__main__":
    main()
