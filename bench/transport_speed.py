"""What rotation costs: the daemon's own minimum beside ours, and TCP through a tunnel with and without fresh keys."""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import time

from bench.load014 import percentile
from bench.report import Row
from bench.transport_ends import Ends, ends
from keystrand.lab.wires import LOAD_PORT

PAUSE_S = 0.2
GOAL_SHARE = 0.98
CONNECTION_S = 3.0


async def minimum(kind: str, rounds: int) -> list[Row]:
    """From a key that both ends have prepared to its use: the daemon alone, and our steps until both ends see it."""
    alone, ours = [], []
    async with ends(kind) as both:
        for _ in range(rounds):
            alone.append(await both.minimum_ms())
            await asyncio.sleep(PAUSE_S)
            await both.prepare()
            began_s = time.perf_counter()
            await both.use()
            ours.append(1e3 * (time.perf_counter() - began_s))
            await both.retire()
            await asyncio.sleep(PAUSE_S)
    name = f"{kind}: prepared to in use at both ends"
    return [
        Row(name=name, value=statistics.median(ours), unit="ms, median", better="lower",
            reference=("the daemon alone", round(statistics.median(alone), 2))),
        Row(name=name, value=percentile(sorted(ours), 0.99), unit="ms, p99", better="lower",
            reference=("the daemon alone", round(percentile(sorted(alone), 0.99), 2))),
    ]  # fmt: skip


async def throughput(kind: str, seconds: float, rotate_s: float, rounds: int) -> list[Row]:
    """Segments with and without rotation take turns, so that the noise of the machine falls on both."""
    if shutil.which("iperf3") is None:
        return []
    still: list[float] = []
    turning: list[float] = []
    bare: list[float] = []
    async with ends(kind) as both:
        for round_ in range(rounds):
            for rotating in ((True, False), (False, True))[round_ % 2]:
                rate = await _mbps(both, seconds, rotate_s if rotating else None)
                (turning if rotating else still).append(rate)
            bare.append(await asyncio.to_thread(_bare_mbps, both))
        note = both.stage.note
    limit = Row(name=f"{kind}: TCP without rotation", value=statistics.median(still), unit="Mbit/s",
                reference=("the same wire unprotected", round(statistics.median(bare), 1)), note=note)  # fmt: skip
    return [*compared(kind, turning, still, seconds=seconds, rotate_s=rotate_s), limit]


def _bare_mbps(both: Ends) -> float:
    """TCP beside the tunnel, between the addresses of the wire: more than this no tunnel can carry."""
    wires = both.wires
    server = wires.start("b", ["iperf3", "-s", "-1", "-B", wires.outer["b"], "-p", str(LOAD_PORT)])
    time.sleep(0.5)
    command = ["iperf3", "-J", "-c", wires.outer["b"], "-p", str(LOAD_PORT), "-t", f"{CONNECTION_S:g}"]
    rate = sent_mbps(wires.start("a", command).communicate(timeout=CONNECTION_S + 20.0)[0])
    server.wait(timeout=5.0)
    return rate


def compared(kind: str, turning: list[float], still: list[float], *, seconds: float, rotate_s: float) -> list[Row]:
    """What rotation costs, from the Mbit/s of segments with and without it."""
    with_, without = statistics.median(turning), statistics.median(still)
    spread = f"with {min(turning):.0f}-{max(turning):.0f}, without {min(still):.0f}-{max(still):.0f} Mbit/s"
    return [
        Row(name=f"{kind}: TCP, a key every {rotate_s:g} s", value=with_, unit="Mbit/s",
            reference=("without rotation", round(without, 1)), note=spread),
        Row(name=f"{kind}: share of it that stays", value=with_ / without, unit="", goal=GOAL_SHARE,
            note=f"medians of {len(turning)} segments of {seconds:g} s each"),
    ]  # fmt: skip


async def _mbps(both: Ends, seconds: float, rotate_s: float | None) -> float:
    """Through a proxy in connections that end before it would cut them, `drain_s` after their key was replaced."""
    wires, way = both.wires, both.stage.way
    host, _, port = way.rpartition(":") if way else (wires.inner["b"], "", str(LOAD_PORT))
    each_s = CONNECTION_S if way else seconds
    server = wires.start("b", ["iperf3", "-s", "-B", wires.inner["b"], "-p", str(LOAD_PORT)])
    await asyncio.sleep(0.5)
    command = ["iperf3", "-J", "-c", host, "-p", port, "-B", wires.inner["a"], "-t", f"{each_s:g}"]

    def send() -> list[float]:
        return [
            sent_mbps(wires.start("a", command).communicate(timeout=each_s + 20.0)[0])
            for _ in range(int(seconds / each_s))
        ]

    told = asyncio.create_task(asyncio.to_thread(send))
    while not told.done():
        await asyncio.wait([told], timeout=rotate_s)
        if rotate_s is not None and not told.done():
            await both.rotate()
    server.terminate()
    server.wait(timeout=5.0)
    return statistics.fmean(await told)


def sent_mbps(said: str) -> float:
    """Mbit/s at the receiver, of one connection."""
    report = json.loads(said)
    if "error" in report:
        raise RuntimeError(f"iperf3: {report['error']}")
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6
