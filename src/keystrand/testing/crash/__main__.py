"""`python -m keystrand.testing.crash --points N --seed S`: exit status 1 when a crash broke an invariant.

`--planted` hunts bugs that were planted.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from keystrand.testing.crash.disk import Loss
from keystrand.testing.crash.explore import Tally, crash_points
from keystrand.testing.crash.planted import PLANTED, hunt

ROUND = 10_000  # points between two words on progress
SEEDS_APART = 1000


def table(tally: Tally) -> str:
    """Operation by way of crashing: how many crash points were tried."""
    head = f"{'operation':24}" + "".join(f"{loss.value:>11}" for loss in Loss) + f"{'points':>9}{'lives':>8}"
    rows = [
        f"{name:24}"
        + "".join(f"{tally.points[name, loss]:11}" for loss in Loss)
        + f"{tally.of(name):9}{tally.lives[name]:8}"
        for name in sorted(tally.operations)
    ]
    return "\n".join([head, *rows])


def explore(points: int, seed: int, lanes: int) -> Tally:
    """`points` shared out between `lanes` processes, which take every lanes-th seed."""
    total = Tally()
    with ProcessPoolExecutor(max_workers=lanes) as pool:
        begun = 0
        while total.total < points:
            share = min(ROUND, points - total.total) // lanes + 1
            first = seed + begun * SEEDS_APART
            for tally in pool.map(partial(crash_points, share, step=lanes), range(first, first + lanes)):
                total.add(tally)
                for point, said in tally.found[:10]:
                    print(f"{point}: {said[0]}", flush=True)
            begun += 1
            print(f"{total.total}/{points} points, {len(total.found)} with violations", file=sys.stderr, flush=True)
    return total


def find_planted() -> int:
    missed = 0
    for bug in PLANTED:
        tally = hunt(bug)
        missed += not tally.found
        how = f"found after {tally.total} points: {tally.found[0][1][0]}" if tally.found else "NOT FOUND"
        print(f"{bug.name:36} {how}", flush=True)
    print(f"{len(PLANTED)} planted bugs, {missed} missed")
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Cut operations of a pair of sites short at every write.")
    parser.add_argument("--points", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.planted:
        return find_planted()
    started_s = time.monotonic()
    tally = explore(options.points, options.seed, options.lanes)
    print(table(tally))
    print(
        f"{tally.total} crash points in {tally.operations.total()} operations of {len(tally.operations)} kinds, "
        f"{tally.lives.total()} lives, {time.monotonic() - started_s:.0f} s, {len(tally.found)} with violations"
    )
    return 1 if tally.found else 0


if __name__ == "__main__":
    sys.exit(main())
