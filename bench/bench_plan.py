"""The planner: a thousand links with their risk, relays for a hundred sites, published links, brute force beside the solver.

Goals: 1,000 links with 10,000 draws each in 10 s; 100 sites placed in 60 s with the optimality gap; 80 % of the published links
that tuned nothing inside the ranges; the solver as cheap as brute force on 200 networks. Times are of this process alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import random
import sys
import time
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

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
from keystrand.plan.place import Hop, Network, Placement, Want, place
from keystrand.plan.published import held, inside
from keystrand.plan.risk import link_risk
from keystrand.plan.whole import whole

DRAWS = 10_000
SMALL = Path(__file__).parents[1] / "tests" / "unit" / "plan" / "small_networks.py"


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


def drawn_network(sites: int, wants: int, seed: int) -> Network:
    """Sites in a square, 40 km apart on average; a hop where two are within 80 km or neighbours; key falls with km."""
    dice = random.Random(seed)
    side = 40 * math.sqrt(sites)
    at = {f"s{n}": (dice.uniform(0, side), dice.uniform(0, side)) for n in range(sites)}
    near = {site: sorted(at, key=lambda other: math.dist(at[site], at[other]))[1:4] for site in at}
    hops = []
    for one, other in combinations(at, 2):
        km = math.dist(at[one], at[other])
        if km <= 80 or one in near[other] or other in near[one]:
            hops.append(Hop((one, other), max(50.0, 20_000 * 10 ** (-0.03 * km)), 2.0))
    asked = [
        Want((a, b), dice.choice([20.0, 100.0]), dice.choice([1, 2]))
        for a, b in (dice.sample(list(at), 2) for _ in range(wants))
    ]
    return Network(dict.fromkeys(at, 1.0), tuple(hops), tuple(asked))


def hundred(sites: int, wants: int) -> tuple[float, Placement]:
    """Seconds by the clock, and the placement. Raises RuntimeError where the solver found none."""
    network = drawn_network(sites, wants, seed=7)
    began_s = time.perf_counter()
    found = place(network)
    if isinstance(found, Unknown):
        raise RuntimeError(str(found))
    return time.perf_counter() - began_s, found


def brute(networks: int) -> int:
    """On how many small networks the solver is as cheap as trying everything, or both find nothing."""
    oracle = _oracle()
    agreed = 0
    for seed in range(networks):
        network = oracle.network(seed)
        best, found = oracle.cheapest(network), place(network)
        same = (
            isinstance(found, Unknown)
            if best is None
            else isinstance(found, Placement) and abs(found.cost - best) < 1e-6
        )
        agreed += same
    return agreed


def _oracle() -> Any:
    """The test's own brute force."""
    spec = importlib.util.spec_from_file_location("small_networks", SMALL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def coverage() -> list[Row]:
    """Shares of the published links that no constant was set by, inside the range of loss and of key rate."""
    unseen = [one for one in held() if one.link.role == "held-out"]
    rows = []
    for name, answers in (
        ("loss", [one.loss_inside for one in unseen]),
        ("key rate", [one.rate_inside for one in unseen]),
    ):
        within, known = inside(answers)
        note = f"{within} of {known}; {len(unseen)} links held out of the tuning"
        rows.append(
            Row(name=f"published {name} inside the range", value=within / known, unit="share", goal=0.8, note=note)
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--links", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--wants", type=int, default=12)
    parser.add_argument("--networks", type=int, default=200)
    options = parser.parse_args()
    decided_s, risk_s, able = thousand(options.links)
    placed_s, placement = hundred(options.sites, options.wants)
    agreed = brute(options.networks)
    note = f"decide {decided_s:.2f} s, risk {risk_s:.2f} s; QKD possible on {able}"
    built = f"{len(placement.relays)} relays, {sum(placement.pairs.values())} pairs, {options.wants} wants"
    rows = [
        Row(
            name=f"{options.links} links decided, {DRAWS} draws",
            value=decided_s + risk_s,
            unit="s",
            goal=10,
            better="lower",
            note=note,
        ),
        Row(name=f"relays for {options.sites} sites", value=placed_s, unit="s", goal=60, better="lower", note=built),
        Row(
            name="gap that is proven",
            value=100 * placement.gap,
            unit="%",
            note="the best may be cheaper by this at most",
        ),
        *coverage(),
        Row(
            name="solver as cheap as brute force",
            value=agreed / options.networks,
            unit="share",
            goal=1,
            note=f"{options.networks} networks",
        ),
    ]
    return 0 if publish("plan", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
