"""`python -m keystrand.testing.network --years 10`: networks that live for a year each, under faults, one seed a network.

Time between events costs nothing: sites that nothing happens to sleep, adverts are repeated once a week, an application draws a
key a day. `--first N` begins with another seed; the exit status is 1 where a judge found anything.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from dataclasses import asdict

from keystrand.testing.network.maps import drawn_atlas
from keystrand.testing.network.world import DAY_S, SLOW, SLOW_FAULTS, SLOW_LIMITS, Network
from keystrand.testing.world.schedule import Schedule

YEAR_S = 365.25 * DAY_S
PARTS = 12  # of a year, between two signs of life


def live(seed: int, sites: int, links: int, duration_s: float) -> Network:
    """One network, lived through and judged."""
    atlas = drawn_atlas(random.Random(seed), sites, links)  # noqa: S311
    network = Network(seed, atlas, faults=SLOW_FAULTS, rhythm=SLOW, limits=SLOW_LIMITS)
    if sys.stderr.isatty():
        _show(network.schedule, seed, duration_s, 0)
    network.run(duration_s)
    return network


def _show(schedule: Schedule, seed: int, duration_s: float, part: int) -> None:
    months = "#" * part + "." * (PARTS - part)
    print(f"\rseed {seed} [{months}]", end="" if part < PARTS else "\r\033[K", file=sys.stderr, flush=True)
    if part < PARTS:
        schedule.after(duration_s / PARTS, lambda: _show(schedule, seed, duration_s, part + 1))


def main() -> int:
    parser = argparse.ArgumentParser(prog="keystrand.testing.network", description=__doc__)
    parser.add_argument("--years", type=float, default=1.0, help="network-years in all")
    parser.add_argument("--first", type=int, default=0, help="seed of the first network")
    parser.add_argument("--sites", type=int, default=30)
    parser.add_argument("--links", type=int, default=10, help="relayed links of each network")
    options = parser.parse_args()
    began_s, bad, sums = time.process_time(), 0, dict[str, int]()
    for number in range(math.ceil(options.years)):
        seed = options.first + number
        duration_s = min(1.0, options.years - number) * YEAR_S
        network = live(seed, options.sites, options.links, duration_s)
        found = network.judge.violations
        bad += len(found)
        for violation in found[:5]:
            print(f"seed {seed}: {violation}")
        tally = {name: count for name, count in asdict(network.tally).items() if isinstance(count, int)}
        tally["blocks"] = sum(network.tally.blocks.values())
        sums = {name: sums.get(name, 0) + count for name, count in tally.items()}
        words = ", ".join(f"{count} {name}" for name, count in tally.items())
        spent_s = time.process_time() - began_s
        print(
            f"seed {seed}: {words}, {len(found)} violations, {network.schedule.trace_hash()[:12]}, {spent_s:.0f} s",
            flush=True,
        )
    words = ", ".join(f"{count} {name}" for name, count in sums.items())
    print(f"{options.years:g} years of networks of {options.sites} sites: {words}; {bad} violations")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
