"""A large site beside a small one: what ten thousand SAEs, a thousand links, two thousand sessions and millions of keys cost.

alpha is large (bench/crowd.py); both sites are real programs, durable and audited, over mutual TLS. The same load is then
laid on a small pair in the same run, so that what grows with the size shows apart from what this machine does. Processor
time and memory are the figures to trust where other programs share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import crowd
from bench.bench_main_job import processor_s, wait_ready
from bench.load014 import percentile
from bench.report import Row, publish
from keystrand.config.load import load_module, load_site
from keystrand.config.schema import SiteConfig
from keystrand.lab.pair import Pair, found_pair
from keystrand.lab.processes import Programs, read_status
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.feeder import Feeder
from keystrand.wire import etsi014 as wire

IDLE_S = 8.0
GREETING_AT_ONCE = 32
MEMORY_GOAL = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large alpha is."""

    keys: int
    saes: int
    links: int
    sessions: int


@dataclass(slots=True)
class Seen:
    """Figures of one site. Times in seconds; spent: processor time of each program per key pair."""

    start_s: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)
    memory_before: dict[str, int] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    live: float = 0.0
    live_bytes: float = 0.0
    greeting_s: float = 0.0
    pages: dict[str, tuple[float, int]] = field(default_factory=dict)
    enc_s: list[float] = field(default_factory=list)
    dec_s: list[float] = field(default_factory=list)
    stored_s: list[float] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)  # what the KME said, or "unlike"
    standing: int = 0

    def fault(self, words: str) -> None:
        self.faults[words] = self.faults.get(words, 0) + 1


def caller(config: SiteConfig, files: tuple[Path, Path]) -> HttpClient:
    """One SAE with one connection."""
    contexts = TlsContexts(TlsFiles(*files, config.tls.trust, config.tls.revoked), TlsPolicy())
    port = config.etsi014.listen.port
    return HttpClient("127.0.0.1", port, contexts, expect=("kme", config.site.kme_id), connections_max=1)


def pids_of(pair: Pair) -> dict[str, int]:
    pids: dict[str, int] = json.loads((pair.folder / "pids.json").read_text())
    return pids


async def page(config: SiteConfig, path: str) -> tuple[float, int]:
    """Median seconds of five answers, and their bytes."""
    assert config.status is not None
    took_s, size = [], 0
    for _ in range(5):
        began_s = time.perf_counter()
        url = f"http://{config.status.listen}{path}"
        size = len(await asyncio.to_thread(lambda url=url: urllib.request.urlopen(url, timeout=30).read()))  # type: ignore[misc]
        took_s.append(time.perf_counter() - began_s)
    return statistics.median(took_s), size


async def watch(config: SiteConfig, seconds: float) -> int:
    """Read the live stream of the status page; its bytes."""
    assert config.status is not None
    listen = config.status.listen
    reader, writer = await asyncio.open_connection(listen.host, listen.port)
    writer.write(f"GET /api/v1/events HTTP/1.1\r\nHost: {listen}\r\n\r\n".encode())
    size, until_s = 0, time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        try:
            size += len(await asyncio.wait_for(reader.read(1 << 20), left_s))
        except TimeoutError:
            break
    writer.close()
    return size


class Sessions:
    """The SAEs of alpha with a session each, and those of bravo that pick up."""

    def __init__(self, pair: Pair, configs: dict[str, SiteConfig], size: Size) -> None:
        self.config = configs["alpha"]
        clients = (crowd.client(n) for n in range(size.sessions))
        services = (crowd.service(n) for n in range(crowd.SERVICES))
        papers = crowd.certify(pair.site_files["alpha"].parent, clients)
        self.names = list(papers)
        self.clients = {name: caller(configs["alpha"], files) for name, files in papers.items()}
        papers = crowd.certify(pair.site_files["bravo"].parent, services)
        self.services = {name: caller(configs["bravo"], files) for name, files in papers.items()}

    async def greet(self) -> None:
        """A handshake and a status call for everyone."""
        gate = asyncio.Semaphore(GREETING_AT_ONCE)

        async def one(client: HttpClient, path: str) -> None:
            async with gate:
                await client.request("GET", path)

        calls = [one(c, f"/api/v1/keys/{crowd.service(n)}/status") for n, c in enumerate(self.clients.values())]
        calls += [one(c, f"/api/v1/keys/{crowd.client(n)}/status") for n, c in enumerate(self.services.values())]
        await asyncio.gather(*calls)

    def standing(self) -> int:
        """Connections that the kernel knows at alpha's API (proc(5): state 01 is established)."""
        local = f":{self.config.etsi014.listen.port:04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(line[1].endswith(local) and line[3] == "01" for line in lines)

    async def close(self) -> None:
        for client in (*self.clients.values(), *self.services.values()):
            await client.close()


async def draw(sessions: Sessions, seen: Seen, pairs: int, pairs_per_s: float) -> None:
    """Each session draws in turn, at a pace; the service fetches the same key, and the two are compared."""
    body = wire.print_key_request(wire.KeyRequest(number=1, size_bits=crowd.KEY_BITS))
    began_s = time.perf_counter()

    async def one(number: int) -> None:
        await asyncio.sleep(began_s + number / pairs_per_s - time.perf_counter())
        name = sessions.names[number % len(sessions.names)]
        service = crowd.service(number % len(sessions.names))
        sent_s = time.perf_counter()
        drawn = await sessions.clients[name].request("POST", f"/api/v1/keys/{service}/enc_keys", body)
        seen.enc_s.append(time.perf_counter() - sent_s)
        if drawn.status != 200:
            seen.fault(f"enc_keys {drawn.status} {drawn.body[:90]!r}")
            return
        (ours,) = wire.parse_container(drawn.body)
        sent_s = time.perf_counter()
        asked = wire.print_key_ids([ours.key_id])
        picked = await sessions.services[service].request("POST", f"/api/v1/keys/{name}/dec_keys", asked)
        seen.dec_s.append(time.perf_counter() - sent_s)
        if picked.status != 200:
            seen.fault(f"dec_keys {picked.status} {picked.body[:90]!r}")
        elif not ours.material.matches(wire.parse_container(picked.body)[0].material):
            seen.fault("unlike")

    await asyncio.gather(*(one(number) for number in range(pairs)))


def some_stored(config: SiteConfig, wanted: dict[str, str], number: int) -> list[tuple[str, str, str]]:
    """(key ID, recipient, initiator) of keys that wait, from all over the table. wanted: recipient -> initiator."""
    found: dict[str, tuple[str, str, str]] = {}
    chance = random.Random(7)
    with sqlite3.connect(f"{config.store_file.as_uri()}?mode=ro", uri=True) as connection:
        sql = (
            "SELECT key_id, recipient, initiator FROM copies WHERE key_id > ? AND +living = 1 ORDER BY key_id LIMIT 64"
        )
        for _ in range(40 * number):
            rows = connection.execute(sql, (f"{chance.randrange(1 << 32):08x}",)).fetchall()
            found |= {row[0]: row for row in [r for r in rows if wanted.get(r[1]) == r[2]][:1]}
            if len(found) >= number:
                break
    return list(found.values())


async def fetch_stored(sessions: Sessions, seen: Seen, keys: list[tuple[str, str, str]], per_s: float) -> None:
    """Keys that have waited in the file since before the start."""
    for key_id, recipient, initiator in keys:
        sent_s = time.perf_counter()
        path = f"/api/v1/keys/{initiator}/dec_keys"
        got = await sessions.clients[recipient].request("POST", path, wire.print_key_ids([key_id]))
        seen.stored_s.append(time.perf_counter() - sent_s)
        if got.status != 200:
            seen.fault(f"dec_keys of a stored key {got.status} {got.body[:90]!r}")
        await asyncio.sleep(1 / per_s)


@asynccontextmanager
async def running(pair: Pair, configs: dict[str, SiteConfig], seen: Seen, bits: int) -> AsyncIterator[Programs]:
    programs = Programs(pair.folder)
    began_s = time.perf_counter()
    for name, file in pair.site_files.items():
        programs.start(name, "serve", str(file))
    feeder = Feeder([load_module(file) for file in pair.module_files.values()])
    try:
        await wait_started(configs["alpha"], programs)
        seen.start_s = time.perf_counter() - began_s
        await wait_bravo(configs, programs)
        await feeder.connect()
        await feeder.feed(1_048_576, blocks=2 * bits // 1_048_576 + 2)
        yield programs
    finally:
        await feeder.close()
        programs.stop()


async def wait_started(config: SiteConfig, programs: Programs) -> None:
    """Until the status page is well."""
    assert config.status is not None
    for _ in range(6000):
        programs.check()
        try:
            await asyncio.to_thread(urllib.request.urlopen, f"http://{config.status.listen}/healthz", None, 5)
            return
        except OSError:
            await asyncio.sleep(0.05)
    raise SystemExit("alpha did not start")


async def wait_bravo(configs: dict[str, SiteConfig], programs: Programs) -> None:
    """Until both ends have met and share a strand; the neighbours that never answer are left out."""
    await wait_ready({"bravo": configs["bravo"]}, programs, 0)
    for _ in range(600):
        if await asyncio.to_thread(_strand_age_s, configs["alpha"]) is not None:
            return
        await asyncio.sleep(0.1)
    raise SystemExit("the sites did not meet")


def _strand_age_s(config: SiteConfig) -> float | None:
    assert config.status is not None
    status = read_status(config.status.listen) or {"peers": []}
    return next((peer["strand_age_s"] for peer in status["peers"] if peer["peer"] == "bravo"), None)


async def rest(pair: Pair, seconds: float = IDLE_S) -> dict[str, float]:
    """Processor seconds per second of each program while nobody asks for anything."""
    before_s = processor_s(pair.folder)
    await asyncio.sleep(seconds)
    after_s = processor_s(pair.folder)
    return {name: (after_s[name] - before_s[name]) / seconds for name in after_s}


async def measure(pair: Pair, size: Size, pairs: int, pairs_per_s: float) -> Seen:
    configs = {name: load_site(file) for name, file in pair.site_files.items()}
    seen, sessions = Seen(), Sessions(pair, configs, size)
    wanted = {name: crowd.service(number) for number, name in enumerate(sessions.names)}
    stored = some_stored(configs["alpha"], wanted, 200) if size.keys else []
    async with running(pair, configs, seen, pairs * crowd.KEY_BITS):
        await asyncio.sleep(2.0)
        seen.idle = await rest(pair)
        for path in ("/api/v1/status", "/metrics"):
            seen.pages[path] = await page(configs["alpha"], path)
        before_s = processor_s(pair.folder)["alpha"]
        seen.live_bytes = await watch(configs["alpha"], IDLE_S) / IDLE_S
        seen.live = (processor_s(pair.folder)["alpha"] - before_s) / IDLE_S - seen.idle["alpha"]
        seen.memory_before = crowd.memory_bytes(pids_of(pair))
        before_s = processor_s(pair.folder)["alpha"]
        await sessions.greet()
        seen.greeting_s = (processor_s(pair.folder)["alpha"] - before_s) / size.sessions
        before = processor_s(pair.folder)
        await draw(sessions, seen, pairs, pairs_per_s)
        after = processor_s(pair.folder)
        idle = {name: spent * pairs / pairs_per_s for name, spent in seen.idle.items()}
        seen.spent = {name: (after[name] - before[name] - idle[name]) / pairs for name in after}
        await fetch_stored(sessions, seen, stored, pairs_per_s)
        seen.standing = sessions.standing()
        seen.memory = crowd.memory_bytes(pids_of(pair))
        await sessions.close()
    return seen


def rows_of(size: Size, seen: Seen, small: Seen) -> list[Row]:
    def beside(value: float) -> tuple[str, float]:
        return ("small site", value)

    def late(name: str, ours: list[float], theirs: list[float]) -> list[Row]:
        return [
            Row(
                name=f"{name} p{share}",
                value=1e3 * percentile(sorted(ours), share / 100),
                unit="ms",
                reference=beside(1e3 * percentile(sorted(theirs), share / 100)),
            )
            for share in (50, 99)
        ]

    per_session = (seen.memory["alpha"] - seen.memory_before["alpha"]) / size.sessions
    return [
        *(
            Row(
                name=f"memory of {name}",
                value=seen.memory[name] / 1e6,
                unit="MB",
                goal=MEMORY_GOAL / 1e6,
                better="lower",
                reference=beside(small.memory[name] / 1e6),
            )
            for name in seen.memory
        ),
        Row(name="memory per session, alpha", value=per_session / 1e3, unit="kB"),
        Row(name="sessions that stand at the end", value=seen.standing, unit="count", goal=size.sessions),
        Row(
            name="keys refused, lost or unlike",
            value=sum(seen.faults.values()) + sum(small.faults.values()),
            unit="count",
            goal=0,
            better="lower",
        ),
        Row(name="start until the page is well", value=seen.start_s, unit="s", reference=beside(small.start_s)),
        *(
            Row(
                name=f"processor at rest, {name}",
                value=1e3 * seen.idle[name],
                unit="ms/s",
                reference=beside(1e3 * small.idle[name]),
            )
            for name in seen.memory
        ),
        Row(
            name="processor for one reader of the live page",
            value=1e3 * seen.live,
            unit="ms/s",
            reference=beside(1e3 * small.live),
        ),
        Row(name="live page", value=seen.live_bytes / 1e3, unit="kB/s", reference=beside(small.live_bytes / 1e3)),
        *(
            Row(name=f"GET {path}", value=1e3 * took_s, unit="ms", reference=beside(1e3 * small.pages[path][0]))
            for path, (took_s, _) in seen.pages.items()
        ),
        *(
            Row(name=f"bytes of {path}", value=count / 1e3, unit="kB", reference=beside(small.pages[path][1] / 1e3))
            for path, (_, count) in seen.pages.items()
        ),
        Row(
            name="processor per handshake and status call",
            value=1e3 * seen.greeting_s,
            unit="ms",
            reference=beside(1e3 * small.greeting_s),
        ),
        *late("enc_keys", seen.enc_s, small.enc_s),
        *late("dec_keys", seen.dec_s, small.dec_s),
        *late("dec_keys of a key stored before the start", seen.stored_s, []),
        *(
            Row(
                name=f"processor per key pair, {name}",
                value=1e3 * seen.spent[name],
                unit="ms",
                reference=beside(1e3 * small.spent[name]),
            )
            for name in seen.memory
        ),
    ]


def grown(folder: Path, size: Size) -> tuple[Pair, list[Row]]:
    """A pair of that size in `folder`."""
    pair = found_pair(folder)
    crowd.people(pair, size.saes)
    crowd.connect(pair, size.links)
    if not size.keys:
        return pair, []
    filled = crowd.fill(pair.site_files["alpha"], size.keys, size.saes)
    return pair, [
        Row(name="keys put into the store", value=filled.keys, unit="count"),
        Row(name="processor per key put", value=1e6 * filled.processor_s / filled.keys, unit="µs"),
        Row(name="time to put them", value=filled.seconds, unit="s"),
        Row(name="file per key", value=filled.file_bytes / filled.keys, unit="B"),
    ]


def found_before(folder: Path) -> Pair:
    """A pair that an earlier run has left in `folder`."""
    sites = {name: folder / name / "site.toml" for name in ("alpha", "bravo")}
    modules = {name: next((folder / name / "links").glob("*/module.toml")) for name in sites}
    return Pair(folder, sites, modules)


async def run(options: argparse.Namespace, folder: Path) -> list[Row]:
    size = Size(keys=options.keys, saes=options.saes, links=options.links, sessions=options.sessions)
    rows: list[Row] = []
    if options.filled is not None:
        pair = found_before(options.filled)
    else:
        pair, rows = grown(folder / "large", size)
    seen = await measure(pair, size, options.pairs, options.pairs_per_s)
    tiny = Size(keys=0, saes=crowd.SERVICES + 16, links=1, sessions=16)
    pair, _ = grown(folder / "small", tiny)
    small = await measure(pair, tiny, options.pairs // 2, options.pairs_per_s)
    for words, count in (*seen.faults.items(), *small.faults.items()):
        print(f"{count} times: {words}", file=sys.stderr)
    return rows + rows_of(size, seen, small)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--keys", type=int, default=1_000_000, help="stored at alpha; ten million take a quarter of an hour"
    )
    parser.add_argument("--saes", type=int, default=10_000)
    parser.add_argument("--links", type=int, default=1_000)
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--pairs", type=int, default=2_000, help="keys drawn and fetched, spread over the sessions")
    parser.add_argument("--pairs-per-s", type=float, default=100.0)
    parser.add_argument("--filled", type=Path, help="a folder with a large pair in it, instead of making one")
    options = parser.parse_args()
    import uvloop

    folder = Path(tempfile.mkdtemp(prefix="keystrand-bench-"))
    try:
        rows = uvloop.run(run(options, folder))
    finally:
        shutil.rmtree(folder)
    busy = os.getloadavg()[0]
    return 0 if publish("scale", [*rows, Row(name="load average of the machine", value=busy, unit="")]) else 1


if __name__ == "__main__":
    sys.exit(main())
