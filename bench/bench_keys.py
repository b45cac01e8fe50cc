"""The key service as a shared service: single keys, batches of 64, and the latency at half of its capacity.

Two real sites as in bench_main_job (durable, audited, mutual TLS with X25519MLKEM768), everything on one machine, the client
included; the limit is the same HTTP server answering a constant, measured in the same run with the same client and as many
connections. A commit carries whatever came while the one before was on its way to the disk, so more connections share it.
The latency at half load is that of connections that stand: making them costs both sites a handshake each, all at once, and the
sites' files are still on their way to the disk then. What the first requests wait for that is a row of its own.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import sys
import tempfile
from pathlib import Path

from bench.bench_main_job import Outcome, Run, measure, measure_limit
from bench.load014 import percentile
from bench.report import Row, publish
from keystrand.config.load import load_site
from keystrand.lab.pair import found_pair

BATCH = 64
CONNECTIONS, FEW = 64, 16
FIRST = 2000  # pairs before the half load


def rows_of(
    single: Outcome, few: Outcome, batch: Outcome, first: Outcome, half: Outcome, limit_per_s: float
) -> list[Row]:
    keys_per_s = batch.load.pairs_per_s * BATCH
    runs = {"single": single, "few": few, "batches": batch, "first": first, "half load": half}
    return [
        Row(
            name=f"enc+dec pairs, one key per request, {CONNECTIONS} connections",
            value=single.load.pairs_per_s,
            unit="1/s",
            goal=3000,
            # a pair is two exchanges, so the edge alone could do half its request rate in pairs
            reference=("constant answer, pairs/s", limit_per_s / 2),
        ),
        Row(name="share of the edge's limit", value=2 * single.load.pairs_per_s / limit_per_s, unit=""),
        Row(name=f"keys in batches of {BATCH}", value=keys_per_s, unit="1/s", goal=20_000),
        Row(
            name="enc_keys p99 at half load",
            value=1e3 * percentile(half.load.enc_s, 0.99),
            unit="ms",
            goal=20,
            better="lower",
        ),
        Row(
            name="dec_keys p99 at half load",
            value=1e3 * percentile(half.load.dec_s, 0.99),
            unit="ms",
            goal=20,
            better="lower",
        ),
        Row(
            name=f"enc_keys slowest of the first, while {CONNECTIONS} connections are made",
            value=1e3 * first.load.enc_s[-1],
            unit="ms",
        ),
        Row(name=f"enc+dec pairs, one key per request, {FEW} connections", value=few.load.pairs_per_s, unit="1/s"),
        Row(
            name="mismatched keys",
            value=sum(run.load.mismatches for run in runs.values()),
            unit="count",
            goal=0,
            better="lower",
        ),
        Row(
            name="refusals",
            value=sum(sum(run.load.refusals.values()) for run in runs.values()),
            unit="count",
            goal=0,
            better="lower",
        ),
        *(
            Row(name=f"processor time per request, {kind}, {name}", value=1e6 * spent / run.load.pairs, unit="µs")
            for kind, run in runs.items()
            for name, spent in run.spent_s.items()
        ),
    ]


async def run(pairs: int) -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="keystrand-bench-"))
    try:
        pair = found_pair(folder / "pair")
        configs = {name: load_site(file) for name, file in pair.site_files.items()}
        batches = max(1, pairs // 16)
        loads = [
            Run(pairs=pairs, connections=CONNECTIONS),
            Run(pairs=pairs // 2, connections=FEW),
            Run(pairs=batches, number=BATCH, connections=FEW),
        ]
        single, few, batch = await measure(pair, configs, loads)
        shutil.rmtree(folder)
        pair = found_pair(folder / "pair")
        configs = {name: load_site(file) for name, file in pair.site_files.items()}
        pace = Run(pairs=pairs // 2, pairs_per_s=single.load.pairs_per_s / 2, connections=CONNECTIONS)
        first, half = await measure(pair, configs, [Run(pairs=FIRST, connections=CONNECTIONS), pace])
        return rows_of(single, few, batch, first, half, await measure_limit(configs["alpha"], 2 * pairs, CONNECTIONS))
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20_000)
    options = parser.parse_args()
    import uvloop

    gc.disable()  # this client's pauses are not the service's
    return 0 if publish("keys", uvloop.run(run(options.pairs))) else 1


if __name__ == "__main__":
    sys.exit(main())
