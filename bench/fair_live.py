"""One greedy SAE beside those that keep to what is reserved for them, on two real sites over mutual TLS.

The well-behaved alone, then the same load while the greedy one asks for a hundred times its quota, and again so, in turns: what
the machine does besides falls on both alike, so that the latencies compare.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.bench_main_job import processor_s, running
from bench.bench_scale import caller
from bench.crowd import certify
from bench.load014 import percentile
from bench.report import Row
from keystrand.config.founding import append
from keystrand.config.load import load_site
from keystrand.lab.pair import Pair, found_pair
from keystrand.net.http_client import HttpClient
from keystrand.wire import etsi014 as wire

KEY_BITS = 256
STEADY = 16
KEYS_PER_S = 5.0  # reserved for each, and asked for
GREED = 100.0  # times its quota, which is as much
GREEDY_LINES = 8
ROUNDS = 4
VAULT = "vault"  # the SAE at bravo that all draw keys with
BODY = wire.print_key_request(wire.KeyRequest(number=1, size_bits=KEY_BITS))
PATH = f"/api/v1/keys/{VAULT}/enc_keys"


@dataclass(slots=True)
class Served:
    """What became of requests that were sent at a pace."""

    asked: int = 0
    served: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    took_s: list[float] = field(default_factory=list)

    def add(self, other: Served) -> None:
        self.asked, self.served = self.asked + other.asked, self.served + other.served
        self.took_s += other.took_s
        for status, count in other.refused.items():
            self.refused[status] = self.refused.get(status, 0) + count

    @property
    def ratio(self) -> float:
        return self.served / self.asked if self.asked else 0.0


def names() -> list[str]:
    return [*(f"steady-{n}" for n in range(STEADY)), "greedy"]


def populate(pair: Pair) -> None:
    """The SAEs, and a floor and a quota of the same size for each."""
    text = f'\n[saes."{VAULT}"]\nsite = "bravo"\n'
    for name in names():
        text += (
            f'\n[saes."{name}"]\nsite = "alpha"\n\n[[policy]]\nfrom = "{name}"\nto = "{VAULT}"\nrequire = "hybrid"\n'
        )
        text += f'on_exhaustion = "closed"\nfloor_bps = {KEYS_PER_S * KEY_BITS}\n'
        if name == "greedy":
            text += f"quota_keys_per_s = {KEYS_PER_S}\nquota_burst_keys = {int(KEYS_PER_S)}\n"
    for file in pair.site_files.values():
        append(file, text)


async def ask(client: HttpClient, seen: Served) -> None:
    began_s = time.perf_counter()
    answer = await client.request("POST", PATH, BODY)
    seen.took_s.append(time.perf_counter() - began_s)
    seen.asked += 1
    if answer.status == 200:
        seen.served += 1
    else:
        seen.refused[answer.status] = seen.refused.get(answer.status, 0) + 1


async def keep_asking(client: HttpClient, seen: Served, per_s: float, seconds: float, offset_s: float = 0.0) -> None:
    """One line: at a pace, or as fast as it is answered where that is slower."""
    begin_s = time.perf_counter() + offset_s
    for number in range(int(seconds * per_s)):
        await asyncio.sleep(begin_s + number / per_s - time.perf_counter())
        await ask(client, seen)
        if time.perf_counter() - begin_s > seconds:
            return


async def stretch(clients: dict[str, list[HttpClient]], seconds: float, *, greedy: bool) -> dict[str, Served]:
    seen = {name: Served() for name in clients}
    lines = [
        keep_asking(clients[name][0], seen[name], KEYS_PER_S, seconds, place / STEADY / KEYS_PER_S)
        for place, name in enumerate(names()[:-1])
    ]
    if greedy:
        pace = GREED * KEYS_PER_S / GREEDY_LINES
        lines += [keep_asking(client, seen["greedy"], pace, seconds) for client in clients["greedy"]]
    await asyncio.gather(*lines)
    return seen


def rows_of(alone: dict[str, Served], beside: dict[str, Served], alpha_ms: float, seconds: float) -> list[Row]:
    steady = names()[:-1]
    before, after = (sorted(t for name in steady for t in part[name].took_s) for part in (alone, beside))
    greedy = beside["greedy"]
    p99_ms, base_ms = 1e3 * percentile(after, 0.99), 1e3 * percentile(before, 0.99)
    wanted = seconds * KEYS_PER_S
    return [
        Row(
            name=f"live: served of reserved, worst of {STEADY}",
            value=min(beside[name].served / wanted for name in steady),
            unit="",
            goal=0.99,
            reference=("alone", min(alone[name].served / wanted for name in steady)),
        ),
        Row(
            name="live: enc_keys p99 of the others",
            value=p99_ms,
            unit="ms",
            goal=2 * base_ms,
            better="lower",
            reference=("alone", base_ms),
            note="twice that of the same load alone",
        ),
        Row(
            name="live: enc_keys p50 of the others",
            value=1e3 * percentile(after, 0.5),
            unit="ms",
            reference=("alone", 1e3 * percentile(before, 0.5)),
        ),
        Row(name="live: greedy, asked of its quota", value=greedy.asked / wanted, unit="times"),
        Row(name="live: greedy, served of its quota", value=greedy.served / wanted, unit="times"),
        Row(name="live: processor of alpha per request refused", value=alpha_ms, unit="ms"),
    ]


async def measure(seconds: float) -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="keystrand-bench-"))
    try:
        pair = found_pair(folder / "pair")
        populate(pair)
        configs = {name: load_site(file) for name, file in pair.site_files.items()}
        papers = certify(pair.site_files["alpha"].parent, iter(names()))
        lines = {name: GREEDY_LINES if name == "greedy" else 1 for name in names()}
        clients = {name: [caller(configs["alpha"], papers[name]) for _ in range(lines[name])] for name in names()}
        # a minute of every floor, and what both stretches draw
        bits = int((60 + 4 * seconds) * (STEADY + 1) * KEYS_PER_S * KEY_BITS)
        async with running(pair, configs, bits):
            await stretch(clients, 2.0, greedy=False)
            alone, beside = ({name: Served() for name in clients} for _ in range(2))
            spent_s = [0.0, 0.0]
            for place in range(2 * ROUNDS):
                greedy = place % 2
                mark_s = processor_s(pair.folder)["alpha"]
                seen = await stretch(clients, seconds / ROUNDS, greedy=bool(greedy))
                spent_s[greedy] += processor_s(pair.folder)["alpha"] - mark_s
                for name, served in seen.items():
                    (beside if greedy else alone)[name].add(served)
            for part in clients.values():
                for client in part:
                    await client.close()
        refused = sum(beside["greedy"].refused.values())
        extra_s = spent_s[1] - spent_s[0]
        return rows_of(alone, beside, 1e3 * extra_s / max(1, refused), seconds)
    finally:
        shutil.rmtree(folder)
