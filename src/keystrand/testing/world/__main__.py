"""`python -m keystrand.testing.world --seeds 500`: many seeds on all cores; exit status 1 when a judge found anything.

`--first N` starts elsewhere, `--replay SEED` runs one and prints its trace, `--planted` runs every planted bug until found.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from keystrand.testing.world.planted import PLANTED
from keystrand.testing.world.run import Verdict, World, run_seed

SEEDS_PER_BUG_MAX = 60


def replay(seed: int) -> int:
    world = World(seed)
    world.schedule.lines = []
    world.run(3600.0)
    print("\n".join(world.schedule.lines))
    print("\n".join(world.judge.violations) or "no violations", file=sys.stderr)
    print(f"seed {seed} trace {world.schedule.trace_hash()}", file=sys.stderr)
    return 1 if world.judge.violations else 0


def find_planted() -> int:
    """Each planted bug must be found; prints by which judge and after how many seeds."""
    missed = 0
    for bug in PLANTED:
        for seed in range(SEEDS_PER_BUG_MAX):
            if violations := run_seed(seed, duration_s=1800.0, kme_type=bug).violations:
                print(f"{bug.__name__:20} found by {violations[0].split(':')[0]} after {seed + 1} seeds", flush=True)
                break
        else:
            missed += 1
            print(f"{bug.__name__:20} NOT FOUND in {SEEDS_PER_BUG_MAX} seeds", flush=True)
    print(f"{len(PLANTED)} planted bugs, {missed} missed")
    return 1 if missed else 0


def report(verdict: Verdict) -> None:
    for violation in verdict.violations[:5]:
        print(f"seed {verdict.seed}: {violation}")
    print(f"replay: python -m keystrand.testing.world --replay {verdict.seed}", flush=True)


def many(first: int, seeds: int) -> int:
    started_s, done, bad, keys, crashes, restores = time.monotonic(), 0, 0, 0, 0, 0
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for verdict in pool.map(run_seed, range(first, first + seeds), chunksize=4):
            done += 1
            bad += len(verdict.violations)
            keys += verdict.keys_drawn
            crashes += verdict.crashes
            restores += verdict.restores
            if verdict.violations:
                report(verdict)
            if sys.stderr.isatty() or done % 100 == 0:
                print(f"{done}/{seeds} seeds", end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
    print(f"{keys} keys, {crashes} crashes, {restores} restores in {time.monotonic() - started_s:.0f} s")
    print(f"{seeds} seeds, {bad} violations")
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate two sites in virtual time under faults.")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--replay", type=int, metavar="SEED")
    parser.add_argument("--planted", action="store_true")
    options = parser.parse_args()
    if options.replay is not None:
        return replay(options.replay)
    return find_planted() if options.planted else many(options.first, options.seeds)


if __name__ == "__main__":
    sys.exit(main())
