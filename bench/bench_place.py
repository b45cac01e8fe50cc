"""Decisions and placement: `python -m bench.bench_place`.

Two hundred small networks against every choice tried; one of a hundred sites with the gap that is proven; a thousand links
decided; and what share of published links lies inside the planner's ranges.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from datetime import date
from typing import Final

from bench.place_networks import cheapest, country, network
from bench.report import Row, publish
from keystrand.plan.estate import Control, DataClass, Estate, Impact, Link, Medium, PathType, Segment, Site
from keystrand.plan.fact import Unknown
from keystrand.plan.pilots import decide_all
from keystrand.plan.place import place
from keystrand.plan.published import held, inside

SEED: Final = 1


def agreement(count: int) -> Row:
    """Small networks on which the programme and the trial of every choice differ: none may."""
    agreed, tried_s, solved_s = 0, 0.0, 0.0
    for seed in range(count):
        net, start = network(seed), time.process_time()
        best = cheapest(net)
        middle = time.process_time()
        found = place(net)
        tried_s, solved_s = tried_s + middle - start, solved_s + time.process_time() - middle
        cost = None if isinstance(found, Unknown) else found.cost
        agreed += cost == best if cost is None or best is None else abs(cost - best) < 1e-6
    note = f"seeds 0 to {count - 1}; every choice {tried_s:.1f} s, programme {solved_s:.1f} s of processor"
    return Row(name="small networks that agree", value=agreed, unit="", goal=count, note=note)


def large(sites: int, wants: int) -> list[Row]:
    """Wall time of one placement, and the gap that is left."""
    net, start = country(sites, wants, SEED), time.monotonic()
    found = place(net)
    took = time.monotonic() - start
    assert not isinstance(found, Unknown), found
    note = f"{wants} keys over {len(net.hops)} hops, seed {SEED}: {len(found.relays)} relays, cost {found.cost:g}"
    return [
        Row(name=f"placement, {sites} sites, {wants} keys", value=took, unit="s", goal=60.0, better="lower", note=note),
        Row(name=f"gap, {sites} sites, {wants} keys", value=100 * found.gap, unit="%", better="lower", note="proven"),
    ]


def links(count: int) -> Row:
    """Classified, held against physics and decided; the first rate that is asked for loads the link engine."""
    dice, planned = random.Random(SEED), date(2026, 11, 1)
    made = {f"l{n}": _link(dice) for n in range(count)}
    classes = {"secret": DataClass(horizon_years=(10.0, 30.0), impact=Impact.HIGH)}
    estate = Estate(name="many", planned=planned, classes=classes, sites={"a": Site(), "b": Site()}, links=made)
    start = time.process_time()
    plan = decide_all(estate)
    took = time.process_time() - start
    note = f"{len({d.pattern for d in plan.decisions.values()})} patterns, a third beside classical channels"
    return Row(name=f"{count} links decided", value=took, unit="s of processor", goal=10.0, better="lower", note=note)


def _link(dice: random.Random) -> Link:
    segment = Segment(
        medium=Medium.DARK_FIBRE,
        control=Control.OWNED,
        length_km=dice.uniform(5, 300),
        loss_db=dice.choice([None, dice.uniform(2, 60)]),
        channels=dice.choice([0, 0, 4]),
        launch_dbm=-20.0,
    )
    return Link(
        ends=("a", "b"),
        carries=("secret",),
        path=PathType.DC_DC,
        segments=(segment,),
        reroutes_per_year=0.0,
        tunnels=dice.randint(1, 50),
        rekey_s=60.0,
    )


def coverage() -> list[Row]:
    """Of published links in the field that set no constant of the planner."""
    out = [each for each in held() if each.link.role == "held-out" and each.link.setting == "field"]
    rows = []
    for name, answers in (("losses", [e.loss_inside for e in out]), ("rates", [e.rate_inside for e in out])):
        found, told = inside(answers)
        rows.append(
            Row(
                name=f"published {name} inside",
                value=100 * found / told,
                unit="%",
                goal=80.0,
                note=f"{found} of {told}",
            )
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--keys", type=int, default=20)
    parser.add_argument("--links", type=int, default=1000)
    asked = parser.parse_args()
    rows = [*coverage(), links(asked.links), agreement(asked.networks), *large(asked.sites, asked.keys)]
    return 0 if publish("place", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
