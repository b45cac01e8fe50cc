"""The key service of the main job: enc+dec pairs per second through two real sites, beside the same server saying nothing.

Two `keystrand serve` processes (durable, audited, X25519MLKEM768, mutual TLS), one client process with 16 keep-alive
connections; every pair is drawn at alpha, fetched at bravo and compared. The limit is the same HTTP server behind the same
TLS answering a constant. Pools are filled over the device interface by a feeder without physics.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.lean import LeanClient
from bench.load014 import LoadResult, load, percentile
from bench.report import Row, publish
from keystrand.config.load import load_module, load_site
from keystrand.config.schema import SiteConfig
from keystrand.lab.gateway import gateway_client, gateway_tls
from keystrand.lab.pair import Pair, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import Programs, read_status
from keystrand.net.http_client import HttpClient
from keystrand.testing.feeder import Feeder

CONNECTIONS = 16
CONNECTIONS_MAX = 128
SIZE_BITS = 256


def client_of(config: SiteConfig, port: int | None = None) -> HttpClient:
    return gateway_client(config, port=port, connections_max=CONNECTIONS)


def lean_client_of(config: SiteConfig, port: int | None = None) -> LeanClient:
    return LeanClient(
        "127.0.0.1",
        port or config.etsi014.listen.port,
        gateway_tls(config),
        expect=("kme", config.site.kme_id),
        connections_max=CONNECTIONS_MAX,
    )


async def wait_ready(configs: dict[str, SiteConfig], programs: Programs, bits: int) -> None:
    """Until both sites could deliver `bits`."""
    for config in configs.values():
        assert config.status is not None
        for _ in range(600):
            programs.check()
            status = read_status(config.status.listen)
            peers = status["peers"] if status else []
            ready = bool(peers) and all(p["up"] and p["strand_age_s"] is not None for p in peers)
            if ready and status is not None and (not bits or status["links"][0]["owned_free_bits"] >= bits):
                break
            await asyncio.sleep(0.1)
        else:
            raise SystemExit("the sites did not get ready")


async def measure_limit(config: SiteConfig, requests: int, connections: int = CONNECTIONS) -> float:
    """Requests per second of the constant answer, with the client of the load."""
    port = free_base_port(1)
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.limit_server", str(config.site.state_dir.parent / "site.toml"), str(port)]
    )
    knocking, client = client_of(config, port), lean_client_of(config, port)
    try:
        await _until_up(knocking)
        left = requests

        async def line() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await client.request("POST", "/api/v1/keys/gateway-bravo/enc_keys", b'{"number":1,"size":256}')

        begun_s = asyncio.get_running_loop().time()
        await asyncio.gather(*(line() for _ in range(connections)))
        return requests / (asyncio.get_running_loop().time() - begun_s)
    finally:
        await knocking.close()
        await client.close()
        server.terminate()
        server.wait()


async def _until_up(client: HttpClient) -> None:
    from keystrand.core.errors import KeystrandError

    for _ in range(100):
        try:
            await client.request("GET", "/")
            return
        except KeystrandError:
            await asyncio.sleep(0.1)


def processor_s(folder: Path) -> dict[str, float]:
    """Processor time that each program of the pair, and this client, have used so far."""
    pids = {**json.loads((folder / "pids.json").read_text()), "client": os.getpid()}
    return {name: processor_s_of(pid) for name, pid in pids.items()}


def processor_s_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime, stime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One load on the pair: `pairs` requests for `number` keys each, at a pace or (0) as fast as they are answered."""

    pairs: int
    number: int = 1
    pairs_per_s: float = 0.0
    connections: int = CONNECTIONS

    @property
    def bits(self) -> int:
        return self.pairs * self.number * SIZE_BITS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run saw, and the processor time that each program spent on it."""

    load: LoadResult
    spent_s: dict[str, float]


@asynccontextmanager
async def running(pair: Pair, configs: dict[str, SiteConfig], bits: int) -> AsyncIterator[dict[str, LeanClient]]:
    """Both sites up, their pools filled for `bits` at either end; yields a client for each."""
    programs = Programs(pair.folder)
    for name, file in pair.site_files.items():
        programs.start(name, "serve", str(file))
    clients = {name: lean_client_of(config) for name, config in configs.items()}
    feeder = Feeder([load_module(file) for file in pair.module_files.values()])
    try:
        await wait_ready(configs, programs, 0)
        await feeder.connect()
        await feeder.feed(1_048_576, blocks=2 * bits // 1_048_576 + 2)
        await wait_ready(configs, programs, bits)
        yield clients
    finally:
        for client in clients.values():
            await client.close()
        await feeder.close()
        programs.stop()


async def measure(pair: Pair, configs: dict[str, SiteConfig], runs: Sequence[Run]) -> list[Outcome]:
    """The runs one after the other on one pair, after a short one that nobody counts."""
    warm = Run(pairs=500)
    outcomes = []
    async with running(pair, configs, sum(run.bits for run in (warm, *runs))) as clients:
        for run in (warm, *runs):
            before_s = processor_s(pair.folder)
            result = await _load(clients, run)
            after_s = processor_s(pair.folder)
            outcomes.append(Outcome(result, {name: after_s[name] - before_s[name] for name in after_s}))
    return outcomes[1:]


async def _load(clients: dict[str, LeanClient], run: Run) -> LoadResult:
    return await load(
        clients["alpha"],
        clients["bravo"],
        initiator_id="gateway-alpha",
        responder_id="gateway-bravo",
        pairs=run.pairs,
        number=run.number,
        pairs_per_s=run.pairs_per_s,
        connections=run.connections,
        size_bits=SIZE_BITS,
    )


def rows_of(outcome: Outcome, limit_per_s: float) -> list[Row]:
    result = outcome.load
    # a pair is two exchanges, so the edge alone could do half its request rate in pairs
    reference = ("constant answer, pairs/s", limit_per_s / 2)
    return [
        Row(name="enc+dec pairs", value=result.pairs_per_s, unit="1/s", goal=1000, reference=reference),
        Row(name="share of the edge's limit", value=2 * result.pairs_per_s / limit_per_s, unit=""),
        Row(name="mismatched keys", value=result.mismatches, unit="count", goal=0, better="lower"),
        Row(name="refusals", value=sum(result.refusals.values()), unit="count", goal=0, better="lower"),
        Row(name="enc_keys p50", value=1e3 * percentile(result.enc_s, 0.5), unit="ms"),
        Row(name="enc_keys p99", value=1e3 * percentile(result.enc_s, 0.99), unit="ms"),
        Row(name="dec_keys p99", value=1e3 * percentile(result.dec_s, 0.99), unit="ms"),
        *(
            Row(name=f"processor time per pair, {name}", value=1e6 * spent / result.pairs, unit="µs")
            for name, spent in outcome.spent_s.items()
        ),
    ]


async def run(pairs: int) -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="keystrand-bench-"))
    try:
        pair = found_pair(folder / "pair")
        configs = {name: load_site(file) for name, file in pair.site_files.items()}
        (outcome,) = await measure(pair, configs, [Run(pairs=pairs)])
        return rows_of(outcome, await measure_limit(configs["alpha"], 2 * pairs))
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000)
    options = parser.parse_args()
    import uvloop

    return 0 if publish("main-job", uvloop.run(run(options.pairs))) else 1


if __name__ == "__main__":
    sys.exit(main())
