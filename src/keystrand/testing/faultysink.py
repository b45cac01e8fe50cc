"""A required audit sink that fails at random instants while keys are drawn, and what must hold all the same.

`python -m keystrand.testing.faultysink --instants 10000` runs two real sites in this process and prints what it measured.
Nothing may be handed out whose record the sink does not hold durably; whoever is refused hears it within 250 ms; and keys
flow again within a second after the sink works.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from keystrand.config.audit import Audit
from keystrand.config.load import load_module, load_site
from keystrand.lab.gateway import gateway_client
from keystrand.lab.pair import LINK, Pair, found_pair
from keystrand.net.http_client import HttpClient
from keystrand.node.site import SiteNode
from keystrand.observe.logs import configure_logs
from keystrand.observe.sinks_ways import FileWay
from keystrand.testing.feeder import Feeder
from keystrand.wire import etsi014 as wire

SINK_TOML: Final = '\n[[audit.sink]]\nname = "copy"\nkind = "file"\npath = "copy.jsonl"\nrequired = true\n'
FAULTS: Final = ("ENOSPC", "EIO", "EACCES", "EIO on sync", "half a line", "hangs", "hangs on sync", "slow")
SLOW_S: Final = 10.0
BLOCK_BITS: Final = 262_144


class FaultyFile(FileWay):
    """Appends to a file as the product does, or fails as told. `kept`: IDs of delivered keys that are synced."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.fault = ""
        self.kept: set[str] = set()
        self.cleared = threading.Event()

    def break_it(self, fault: str) -> None:
        self.cleared.clear()
        self.fault = fault

    def mend(self) -> None:
        self.fault = ""
        self.cleared.set()

    def open(self) -> tuple[int, str] | None:
        self._fail_if("EACCES", errno.EACCES)
        return super().open()

    def write(self, lines: list[bytes], last: int) -> None:
        super().write(lines, last)
        self._fail_if("EIO on sync", errno.EIO)
        if self.fault in ("hangs on sync", "slow"):
            self.cleared.wait(SLOW_S)
        records = [json.loads(line)["record"] for line in lines]
        self.kept.update(key_id for r in records if r["kind"] == "key.delivered" for key_id in r["key_ids"])

    def _write(self, data: bytes) -> None:
        if self.fault == "half a line":
            super()._write(data[: len(data) - 7])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.fault == "hangs":
            self.cleared.wait(SLOW_S)
        for word, number in (("ENOSPC", errno.ENOSPC), ("EIO", errno.EIO), ("EACCES", errno.EACCES)):
            self._fail_if(word, number)
        super()._write(data)

    def _fail_if(self, fault: str, number: int) -> None:
        if self.fault == fault:
            raise OSError(number, os.strerror(number))


@dataclass
class Seen:
    """What was measured. Times in milliseconds."""

    instants: int = 0
    released: int = 0
    unlogged: list[str] = field(default_factory=list)
    refused: int = 0
    refusal_ms: list[float] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)  # how late this process was run while each refusal was under way
    resume_ms: list[float] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)

    @property
    def own_ms(self) -> list[float]:
        """Of each refusal, what the machine was not late by meanwhile."""
        return [took - late for took, late in zip(self.refusal_ms, self.lag_ms, strict=True)]

    def report(self) -> dict[str, Any]:
        return {
            "instants": self.instants,
            "keys_released": self.released,
            "keys_released_unlogged": len(self.unlogged),
            "refusals": self.refused,
            "refusal_p50_ms": _quantile(self.refusal_ms, 0.5),
            "refusal_p999_ms": _quantile(self.refusal_ms, 0.999),
            "machine_late_p999_ms": _quantile(self.lag_ms, 0.999),
            "refusal_own_p999_ms": _quantile(self.own_ms, 0.999),
            "resume_p50_ms": _quantile(self.resume_ms, 0.5),
            "resume_max_ms": _quantile(self.resume_ms, 1.0),
            "other_answers": len(self.strange),
        }


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


class Trial:
    """Two sites, the sink of alpha faulty, and SAEs that draw and fetch without pause."""

    def __init__(self, pair: Pair, seed: int = 1) -> None:
        self.configs = {name: load_site(file) for name, file in pair.site_files.items()}
        # a sink of the peer would hold up what alpha waits for, and that is another wait than the one that is measured
        self.configs["bravo"] = msgspec.structs.replace(self.configs["bravo"], audit=Audit())
        self.nodes = {name: SiteNode(config) for name, config in self.configs.items()}
        self.feeder = Feeder([load_module(file) for file in pair.module_files.values()])
        self.seen = Seen()
        self._random = random.Random(seed)  # noqa: S311  chooses faults
        self._lags: deque[tuple[float, float]] = deque(maxlen=2000)  # when, how late
        sinks = self.nodes["alpha"].audit_sinks
        assert sinks is not None
        self._sink = sinks.sinks[0]
        path = self.configs["alpha"].audit.sink[0].path
        assert path is not None
        self.way = self._sink._way = FaultyFile(path)

    async def run(self, instants: int) -> Seen:
        stop = asyncio.Event()
        sites = [asyncio.create_task(node.run(stop)) for node in self.nodes.values()]
        try:
            await self._settled()
            users = [asyncio.create_task(self._use(place)) for place in range(4)]
            users += [asyncio.create_task(self._feed()), asyncio.create_task(self._watch_loop())]
            try:
                for _ in range(instants):
                    await self._break_once(users)
            finally:
                self.way.mend()
                for user in users:
                    user.cancel()
                await asyncio.gather(*users, return_exceptions=True)
        finally:
            await self.feeder.close()
            stop.set()
            await asyncio.gather(*sites)
        return self.seen

    async def _settled(self) -> None:
        async with asyncio.timeout(20):
            while not all(
                n.engine.kme.strands.age_s(p) is not None for n in self.nodes.values() for p in n.config.peers
            ):
                await asyncio.sleep(0.05)
            await self.feeder.connect()
            await self.feeder.feed(BLOCK_BITS, blocks=4)
            while not all(n.engine.kme.pool.owned_bits(LINK) for n in self.nodes.values()):
                await asyncio.sleep(0.02)

    async def _break_once(self, users: list[asyncio.Task[None]]) -> None:
        for user in users:
            if user.done():
                user.result()
        await asyncio.sleep(self._random.uniform(0, 0.03))
        self.way.break_it(self._random.choice(FAULTS))
        await asyncio.sleep(self._random.choice((0.002, 0.01, 0.02, 0.04, 0.2)))
        self.way.mend()
        mended_s, before = time.monotonic(), self.seen.released
        async with asyncio.timeout(30):
            while self.seen.released == before:
                await asyncio.sleep(0.002)
        self.seen.resume_ms.append(1000 * (time.monotonic() - mended_s))
        self.seen.instants += 1

    async def _use(self, place: int) -> None:
        """Draw at one site, fetch at the other; what alpha hands out is judged."""
        clients = {name: gateway_client(config) for name, config in self.configs.items()}
        here, there = (("alpha", "bravo"), ("bravo", "alpha"))[place % 2]
        draw, fetch = f"/api/v1/keys/gateway-{there}/enc_keys", f"/api/v1/keys/gateway-{here}/dec_keys"
        try:
            while True:
                keys = await self._ask(clients[here], here, draw, b'{"number": 2, "size": 256}')
                if keys:
                    await self._ask(clients[there], there, fetch, wire.print_key_ids(keys))
                else:
                    await asyncio.sleep(0.01)
        finally:
            for client in clients.values():
                await client.close()

    async def _ask(self, client: HttpClient, site: str, path: str, body: bytes) -> list[str]:
        began_s = time.monotonic()
        answer = await client.request("POST", path, body)
        took_ms = 1000 * (time.monotonic() - began_s)
        if answer.status == 200:
            keys = [key.key_id for key in wire.parse_container(answer.body)]
            if site == "alpha":
                self.seen.released += len(keys)
                self.seen.unlogged += [key for key in keys if key not in self.way.kept]
            return keys
        self._refused(site, answer.status, answer.body, dict(answer.headers), took_ms, began_s)
        return []

    def _refused(
        self, site: str, status: int, body: bytes, headers: dict[str, str], took_ms: float, began_s: float
    ) -> None:
        lost = status == 400 and b"not found" in body  # burnt at the other end with the refused batch
        if b"audit sink" in body and status == 503 and "retry-after" in headers:
            self.seen.refused += 1
            self.seen.refusal_ms.append(took_ms)
            self.seen.lag_ms.append(1000 * sum(late for at, late in self._lags if at >= began_s))
        elif not lost and status != 503:
            self.seen.strange.append(f"{site}: {status} {body[:200]!r}")

    async def _feed(self) -> None:
        from keystrand.core.errors import KeystrandError

        while True:
            with contextlib.suppress(KeystrandError, OSError, AssertionError):
                if min(n.engine.kme.pool.owned_bits(LINK) for n in self.nodes.values()) < BLOCK_BITS:
                    await self.feeder.feed(BLOCK_BITS)
            await asyncio.sleep(0.05)

    async def _watch_loop(self) -> None:
        """How long this process was not run, or was busy: no product's fault is measured by a machine's."""
        while True:
            due_s = time.monotonic() + 0.005
            await asyncio.sleep(0.005)
            self._lags.append((time.monotonic(), time.monotonic() - due_s))


@click.command()
@click.option("--instants", default=1000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(instants: int, seed: int) -> None:
    """Break the sink so often; status 1 where anything that must hold did not."""
    configure_logs(level="fatal", form="json")
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(found_pair(Path(folder) / "pair", extra=SINK_TOML), seed)
        report = asyncio.run(trial.run(instants)).report()
    click.echo(json.dumps(report))
    within = report["refusal_own_p999_ms"] <= 250 and report["resume_max_ms"] <= 1000
    sys.exit(0 if within and not report["keys_released_unlogged"] and not report["other_answers"] else 1)


if __name__ == "__main__":
    main()
