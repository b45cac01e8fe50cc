"""Two replicas per site on PostgreSQL beside one process per site on SQLite: enc+dec pairs per second, in the same run.

The load is that of bench_keys, with as many connections. PostgreSQL runs on the same machine with its settings as installed
(fsync on) and is reached over a UNIX socket; the balancer in front of the replicas shares a process with the client. Where two
processors have all of it to do, processor time per pair says more than the rate: replicas are for more machines than one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench.bench_main_job import SIZE_BITS, Outcome, Run, lean_client_of, measure, processor_s_of
from bench.load014 import load, percentile
from bench.report import Row, publish
from keystrand.config.load import load_module, load_site
from keystrand.lab.pair import found_pair
from keystrand.testing.feeder import Feeder
from keystrand.testing.postgres import PostgresServer, postgres_server, why_not
from keystrand.testing.replicas import Estate, found_estate, running_estate

BLOCK_BITS = 1_048_576
CONNECTIONS = 64


async def on_sqlite(folder: Path, pairs: int) -> Outcome:
    pair = found_pair(folder)
    configs = {name: load_site(file) for name, file in pair.site_files.items()}
    (outcome,) = await measure(pair, configs, [Run(pairs=pairs, connections=CONNECTIONS)])
    return outcome


async def on_postgres(folder: Path, pairs: int, replicas: int) -> Outcome:
    """After a short load that nobody counts."""
    warm = 500
    bits = (warm + pairs) * SIZE_BITS
    server = postgres_server()
    estate = found_estate(folder, server, replicas)
    async with running_estate(estate):
        feeder = Feeder([load_module(file) for file in estate.pair.module_files.values()])
        clients = {name: lean_client_of(config) for name, config in estate.configs.items()}
        try:
            await feeder.connect()
            await feeder.feed(BLOCK_BITS, blocks=2 * bits // BLOCK_BITS + 2)
            for replica in estate.all_replicas():
                await replica.ready(bits)
            for number in (warm, pairs):
                before_s = spent_s(estate, server)
                result = await load(
                    clients["alpha"],
                    clients["bravo"],
                    initiator_id="gateway-alpha",
                    responder_id="gateway-bravo",
                    pairs=number,
                    connections=CONNECTIONS,
                    size_bits=SIZE_BITS,
                )
            after_s = spent_s(estate, server)
            return Outcome(result, {name: after_s[name] - before_s[name] for name in after_s})
        finally:
            for client in clients.values():
                await client.close()
            await feeder.close()


def spent_s(estate: Estate, server: PostgresServer) -> dict[str, float]:
    """Processor time so far: of each site's replicas together, of the database's processes, of the client with the balancer."""
    kmes = {
        name: sum(processor_s_of(replica.process.pid) for replica in replicas if replica.process)
        for name, replicas in estate.replicas.items()
    }
    backends = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return {**kmes, "PostgreSQL": sum(map(processor_s_of, map(int, backends))), "client": processor_s_of(os.getpid())}


def rows_of(name: str, outcome: Outcome) -> list[Row]:
    result = outcome.load
    return [
        Row(name=f"enc+dec pairs, {name}", value=result.pairs_per_s, unit="1/s"),
        Row(name=f"enc_keys p50, {name}", value=1e3 * percentile(result.enc_s, 0.5), unit="ms"),
        Row(name=f"enc_keys p99, {name}", value=1e3 * percentile(result.enc_s, 0.99), unit="ms"),
        Row(name=f"dec_keys p99, {name}", value=1e3 * percentile(result.dec_s, 0.99), unit="ms"),
        Row(name=f"mismatched keys, {name}", value=result.mismatches, unit="count", goal=0, better="lower"),
        Row(name=f"refusals, {name}", value=sum(result.refusals.values()), unit="count", goal=0, better="lower"),
        *(
            Row(name=f"processor time per pair, {who}, {name}", value=1e6 * spent / result.pairs, unit="µs")
            for who, spent in outcome.spent_s.items()
        ),
    ]


async def run(pairs: int) -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="keystrand-bench-"))
    try:
        return [
            *rows_of("SQLite, 1 process", await on_sqlite(folder / "file", pairs)),
            *rows_of("PostgreSQL, 1 process", await on_postgres(folder / "one", pairs, 1)),
            *rows_of("PostgreSQL, 2 replicas", await on_postgres(folder / "two", pairs, 2)),
        ]
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5_000)
    options = parser.parse_args()
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 2
    import uvloop

    return 0 if publish("postgres", uvloop.run(run(options.pairs))) else 1


if __name__ == "__main__":
    sys.exit(main())
