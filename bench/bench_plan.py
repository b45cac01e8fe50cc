"""The whole planner: links decided, priced, with their risk and flip points; relays placed; published links inside the ranges.

Goals: 1,000 links with 10,000 draws each in 10 s of processor; 100 sites placed in 60 s with a proven gap; 80 % of the
published links that tuned nothing inside the ranges; the solver as cheap as trying everything on 200 networks.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from datetime import date

from bench.place_networks import cheapest, country, network
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
from keystrand.plan.place import place
from keystrand.plan.published import held, inside
from keystrand.plan.risk import link_risk
from keystrand.plan.whole import whole

DRAWS = 10_000
SEED = 1
TURNED = 50


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
    estate = drawn_estate(links, SEED)
    began_s = time.process_time()
    plan = whole(estate)
    decided_s = time.process_time() - began_s
    trial = Trial(estate, DRAWS)
    told = [link_risk(outcome, trial) for outcome in plan.outcomes]
    assert not any(isinstance(risk, Unknown) for risk in told)
    able = sum(outcome.feasibility.verdict is Answer.YES for outcome in plan.outcomes)
    return decided_s, time.process_time() - began_s - decided_s, able


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


def large(sites: int, wants: int, time_s: float) -> list[Row]:
    """One placement: time on the clock and of processor, and the gap that is left."""
    net = country(sites, wants, SEED)
    began_s, spent_s = time.monotonic(), time.process_time()
    found = place(net, time_s=time_s)
    took_s, spent_s = time.monotonic() - began_s, time.process_time() - spent_s
    assert not isinstance(found, Unknown), found
    note = (
        f"{spent_s:.1f} s of processor; {wants} keys over {len(net.hops)} hops, seed {SEED}: {len(found.relays)} relays"
    )
    gap = f"cost {found.cost:g}, at least {found.cost * (1 - found.gap):g}; proven"
    return [
        Row(
            name=f"placement, {sites} sites, {wants} keys", value=took_s, unit="s", goal=60.0, better="lower", note=note
        ),
        Row(name=f"gap, {sites} sites, {wants} keys", value=100 * found.gap, unit="%", better="lower", note=gap),
    ]


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


def turned(links: int, asked: int) -> Row:
    """Flip points of some links of a large estate; every one is a few dozen decisions."""
    outcomes = whole(drawn_estate(links, SEED)).outcomes[:: max(1, links // asked)]
    began_s = time.process_time()
    points = sum(len(outcome.flips) for outcome in outcomes)
    each_ms = 1e3 * (time.process_time() - began_s) / len(outcomes)
    note = f"{points} points on {len(outcomes)} of {links} links"
    return Row(name="flip points of a link", value=each_ms, unit="ms of processor", better="lower", note=note)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--links", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--keys", type=int, default=20)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--time-s", type=float, default=45.0, help="of the solver's searches")
    options = parser.parse_args()
    decided_s, risk_s, able = thousand(options.links)
    note = f"decided and priced {decided_s:.2f} s, risk {risk_s:.2f} s; QKD possible on {able}"
    name, spent_s = f"{options.links} links decided, {DRAWS} draws each", decided_s + risk_s
    rows = [
        Row(name=name, value=spent_s, unit="s of processor", goal=10, better="lower", note=note),
        *coverage(),
        agreement(options.networks),
        turned(options.links, TURNED),
        *large(options.sites, options.keys, options.time_s),
    ]
    return 0 if publish("plan", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
