"""IPsec under changing keys: how soon a key that both ends have is in use, what strongSwan alone needs, what rotation costs.

`python -m bench.bench_transport_ipsec` needs root and strongSwan; two namespaces, userspace ESP. Beside each other in one run:
our steps `activate` and `confirm`, and the daemon's own minimum: `initiate` over vici on a connection that is loaded already.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.load014 import percentile
from bench.report import Row, publish
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.lab import ipsec as lab
from keystrand.lab.wires import Wires
from keystrand.testing.tunnels import place_of
from keystrand.transport.ipsec.connector import KIND, Ipsec
from keystrand.transport.tunnel.contract import Generation, Role

SIDES: dict[Role, str] = {"responder": "b", "initiator": "a"}
PAUSE_S = 0.3


@dataclass(slots=True)
class Spans:
    """Milliseconds, one for each rotation."""

    initiate: list[float]
    activate: list[float]
    confirm: list[float]
    prepare: list[float]


class Ends:
    """Both connectors, and a count of generations."""

    def __init__(self, wires: Wires, folder: Path) -> None:
        staged = lab.stage(wires, folder)
        self.at = {role: Ipsec(place_of(folder, role), staged.settings(KIND, side)) for role, side in SIDES.items()}  # type: ignore[arg-type]
        self.number = 0

    async def prepare(self) -> float:
        """Both ends, one after the other as the agreement does it; in ms."""
        self.number += 1
        material, began_s = os.urandom(32), time.perf_counter()
        for end in self.at.values():
            key = Secret(material)
            await end.prepare(
                Generation(
                    number=self.number, key_id=f"bench-{self.number}", material=key, protection=Protection.HYBRID
                )
            )
        return 1e3 * (time.perf_counter() - began_s)

    async def retire(self) -> None:
        for end in self.at.values():
            await end.retire(self.number)

    async def rotate(self, spans: Spans | None = None) -> None:
        prepared_ms = await self.prepare()
        began_s = time.perf_counter()
        await self.at["initiator"].activate(self.number)
        active_s = time.perf_counter()
        await self.at["responder"].confirm(self.number)
        done_s = time.perf_counter()
        await self.retire()
        if spans is not None:
            spans.prepare.append(prepared_ms)
            spans.activate.append(1e3 * (active_s - began_s))
            spans.confirm.append(1e3 * (done_s - began_s))

    async def bare(self, spans: Spans) -> None:
        """What the daemon needs when all it is told is `initiate`."""
        await self.prepare()
        began_s = time.perf_counter()
        await self.at["initiator"]._charon.initiate(self.number)
        spans.initiate.append(1e3 * (time.perf_counter() - began_s))
        await self.at["initiator"].activate(self.number)
        await self.at["responder"].confirm(self.number)
        await self.retire()


async def latencies(ends: Ends, rounds: int) -> Spans:
    """Ours and the daemon's own in turns, so that the noise of this machine falls on both."""
    spans = Spans([], [], [], [])
    await ends.rotate()
    for _ in range(rounds):
        await ends.rotate(spans)
        await asyncio.sleep(PAUSE_S)
        await ends.bare(spans)
        await asyncio.sleep(PAUSE_S)
    return spans


async def throughput_mbps(wires: Wires, ends: Ends, seconds: float, rotate_s: float | None) -> float:
    """TCP by iperf3 between the protected hosts, in Mbit/s."""
    server = wires.start("b", ["iperf3", "-s", "-1", "-B", wires.inner["b"]])
    await asyncio.sleep(0.5)
    command = ["iperf3", "-J", "-c", wires.inner["b"], "-B", wires.inner["a"], "-t", str(seconds)]
    client = wires.start("a", command)
    told = asyncio.create_task(asyncio.to_thread(client.communicate, None, seconds + 20.0))
    while not told.done():
        await asyncio.wait([told], timeout=rotate_s)
        if rotate_s is not None and not told.done():
            await ends.rotate()
    server.wait(timeout=5.0)
    report = json.loads((await told)[0])
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6


def rows_of(spans: Spans) -> list[Row]:
    median, p99 = statistics.median(spans.initiate), percentile(sorted(spans.initiate), 0.99)
    beside = "charon alone"
    return [
        Row(name="key at both ends to traffic under it", value=statistics.median(spans.confirm), unit="ms, median",
            better="lower", reference=(beside, median), note="activate, then confirm at the other end"),
        Row(name="key at both ends to traffic under it", value=percentile(sorted(spans.confirm), 0.99), unit="ms, p99",
            better="lower", reference=(beside, p99)),
        Row(name="of it until the initiator sends", value=statistics.median(spans.activate), unit="ms, median",
            better="lower", reference=(beside, median)),
        Row(name="prepare at both ends", value=statistics.median(spans.prepare), unit="ms, median", better="lower",
            note="the old key carries traffic meanwhile"),
    ]  # fmt: skip


async def measure(rounds: int, seconds: float, rotate_s: float) -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="ksb"))
    try:
        with Wires() as wires:
            ends = Ends(wires, folder)
            rows = rows_of(await latencies(ends, rounds))
            if shutil.which("iperf3"):
                still = await throughput_mbps(wires, ends, seconds, None)
                turning = await throughput_mbps(wires, ends, seconds, rotate_s)
                rows.append(
                    Row(name=f"TCP, a fresh key every {rotate_s:g} s", value=turning, unit="Mbit/s",
                        reference=("without rotation", still))
                )  # fmt: skip
            for end in ends.at.values():
                await end.close()
            return rows
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=25.0, help="of each throughput run")
    parser.add_argument("--rotate-s", type=float, default=10.0)
    words = parser.parse_args()
    if reason := lab.why_not():
        print(reason, file=sys.stderr)
        return 1
    return 0 if publish("transport_ipsec", asyncio.run(measure(words.rounds, words.seconds, words.rotate_s))) else 1


if __name__ == "__main__":
    sys.exit(main())
