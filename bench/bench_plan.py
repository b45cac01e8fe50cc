"""The whole planner: a thousand links decided, priced and with their risk; placement and published links of `bench_place`.

Goals: 1,000 links with 10,000 draws each in 10 s of processor; 100 sites placed in 60 s with a proven gap; 80 % of the
published links that tuned nothing inside the ranges; the solver as cheap as trying everything on 200 networks.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from datetime import date

from bench.bench_place import agreement, coverage, large
from bench.report import Row, publish
from keystrand.plan.estate import (
    Control,
    DataClass,
    Device,
    DeviceKind,
    Estate,
    Impact,
    Link,
    Medium,
    PathType,
    Segment,
    Site,
)
from keystrand.plan.fact import Answer, Unknown
from keystrand.plan.montecarlo import Trial
from keystrand.plan.risk import link_risk
from keystrand.plan.whole import whole

DRAWS = 10_000


def drawn_estate(links: int, seed: int) -> Estate:
    """Links of every kind: own fibre of all lengths, services of carriers; a hundred data classes with a horizon each."""
    dice = random.Random(seed)
    lows = [dice.uniform(0.0, 30.0) for _ in range(100)]
    classes = {
        f"class-{n}": DataClass(horizon_years=(low, low + dice.uniform(0.0, 20.0)), impact=dice.choice(list(Impact)))
        for n, low in enumerate(lows)
    }
    sites = {
        f"site-{n}": Site(lat=dice.uniform(46, 48), lon=dice.uniform(6, 10), may_relay=Answer.YES) for n in range(200)
    }
    names = list(sites)
    drawn = {}
    for n in range(links):
        one, other = dice.sample(names, 2)
        medium = dice.choice([Medium.DARK_FIBRE, Medium.DARK_FIBRE, Medium.SERVICE])
        segment = Segment(
            medium=medium, control=dice.choice([Control.OWNED, Control.CONTRACTED]), length_km=dice.uniform(2, 150)
        )
        drawn[f"link-{n}"] = Link(
            ends=(one, other),
            carries=tuple(dice.sample(list(classes), dice.randint(1, 3))),
            path=dice.choice([PathType.DC_DC, PathType.BACKBONE, PathType.BRANCH_CORE]),
            segments=(segment,),
            reroutes_per_year=0.5,
            rekey_s=60.0,
            outage_h=4.0,
            mtbf_h=2000.0,
            mttr_h=4.0,
            devices=("pair",),
        )
    device = Device(kind=DeviceKind.DV_QKD, interfaces=("etsi014",), profile="class-ingaas-1ghz")
    return Estate(
        name="drawn", planned=date(2026, 11, 28), classes=classes, sites=sites, links=drawn, devices={"pair": device}
    )


def thousand(links: int) -> tuple[float, float, int]:
    """Seconds of processor to decide that many links, the same for their risk, and how many have QKD possible."""
    estate = drawn_estate(links, seed=1)
    began_s = time.process_time()
    plan = whole(estate)
    decided_s = time.process_time() - began_s
    trial = Trial(estate, DRAWS)
    told = [link_risk(outcome, trial) for outcome in plan.outcomes]
    assert not any(isinstance(risk, Unknown) for risk in told)
    able = sum(outcome.feasibility.verdict is Answer.YES for outcome in plan.outcomes)
    return decided_s, time.process_time() - began_s - decided_s, able


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--links", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--keys", type=int, default=20)
    parser.add_argument("--networks", type=int, default=200)
    options = parser.parse_args()
    decided_s, risk_s, able = thousand(options.links)
    note = f"decided and priced {decided_s:.2f} s, risk {risk_s:.2f} s; QKD possible on {able}"
    name, spent_s = f"{options.links} links decided, {DRAWS} draws each", decided_s + risk_s
    rows = [
        Row(name=name, value=spent_s, unit="s of processor", goal=10, better="lower", note=note),
        *coverage(),
        agreement(options.networks),
        *large(options.sites, options.keys),
    ]
    return 0 if publish("plan", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
