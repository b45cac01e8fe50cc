"""Fair sharing of a link: one greedy SAE beside 99 that keep to what is reserved for them, in virtual time.

`python -m bench.bench_fair` prints what the others get, how the surplus is divided, and what a request costs with 10,000 pairs.
The pool is a number here: how bits become keys is measured elsewhere (bench_main_job). `--live 20` adds the same on two
real sites (bench/fair_live.py).
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from bench.report import Row, publish
from keystrand.core.errors import QuotaExceeded
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy, Rule
from keystrand.kme.ask import check_ask
from keystrand.kme.quota import Quotas
from keystrand.kme.share import Shares
from keystrand.kme.site import Site
from keystrand.testing.clock import VirtualClock

KEY_BITS = 256
BLOCK_BITS = 65_536  # what the link brings at once


@dataclass(slots=True)
class Party:
    """An SAE that asks for one key at a time, at random moments."""

    rule: Rule
    asks_bps: float
    asked: int = 0
    served: int = 0

    @property
    def ratio(self) -> float:
        return self.served / self.asked if self.asked else 1.0


@dataclass(slots=True)
class Desk:
    """What quotas and shares need to know of a site."""

    policy: Policy
    clock: VirtualClock
    name: str = "alpha"
    incarnation: str = ""
    limits: Limits = field(default_factory=Limits)
    peer_kme_ids: Mapping[str, str] = field(default_factory=lambda: {"bravo": "kme-bravo"})


def desk_of(rules: Sequence[Rule]) -> Desk:
    sites = {rule.initiator: "alpha" for rule in rules} | {rule.responder: "bravo" for rule in rules}
    return Desk(Policy.of(tuple(rules), sites), VirtualClock())


class Link:
    """The requests of all parties against one pool that fills in blocks."""

    def __init__(self, parties: Sequence[Party], *, inflow_bps: float, stock_bits: int, seed: int = 1) -> None:
        self.parties = parties
        self.inflow_bps = inflow_bps
        self.have_bits = stock_bits
        self.rng = random.Random(seed)
        self.desk = desk_of([party.rule for party in parties])
        site = cast(Site, self.desk)
        self.quotas, self.shares = Quotas(site), Shares(site)

    def run(self, seconds: float) -> None:
        clock = self.desk.clock
        begin_s = clock.monotonic_s()
        queue: list[tuple[float, int]] = [(begin_s + self._pause(p), n) for n, p in enumerate(self.parties)]
        queue.append((begin_s + BLOCK_BITS / self.inflow_bps, -1))
        heapq.heapify(queue)
        while queue[0][0] < begin_s + seconds:
            at_s, number = heapq.heappop(queue)
            clock.move_to(at_s)
            if number < 0:
                self.have_bits += BLOCK_BITS
                heapq.heappush(queue, (at_s + BLOCK_BITS / self.inflow_bps, -1))
            else:
                party = self.parties[number]
                self._ask(party)
                heapq.heappush(queue, (at_s + self._pause(party), number))

    def _pause(self, party: Party) -> float:
        return self.rng.expovariate(party.asks_bps / KEY_BITS)

    def _ask(self, party: Party) -> None:
        party.asked += 1
        ask = check_ask(cast(Site, self.desk), party.rule.initiator, party.rule.responder, 1, KEY_BITS, ())
        try:
            self.quotas.check(ask)
            self.shares.check(ask, self.have_bits)
        except QuotaExceeded:
            return
        if self.have_bits < KEY_BITS:
            return
        self.shares.spend(ask, self.have_bits)
        self.quotas.spend(ask)
        self.have_bits -= KEY_BITS
        party.served += 1


def flood(seconds: float, *, floor_bps: float = 1000.0, others: int = 99, load: float = 0.9) -> Link:
    """One SAE asks for 100 times its reservation; the others for theirs. The reservations are `load` of the link."""
    rules = [Rule(initiator=f"a{n}", responder=f"b{n}", floor_bps=floor_bps) for n in range(others + 1)]
    parties = [Party(rule, floor_bps * (100.0 if n == 0 else 1.0)) for n, rule in enumerate(rules)]
    reserved_bps = floor_bps * (others + 1)
    link = Link(parties, inflow_bps=reserved_bps / load, stock_bits=int(60 * reserved_bps))
    link.run(seconds)
    return link


def division(seconds: float, weights: Sequence[float], *, inflow_bps: float = 20_000.0) -> Link:
    """SAEs without floors that all ask for more than the link has."""
    rules = [Rule(initiator=f"a{n}", responder=f"b{n}", weight=weight) for n, weight in enumerate(weights)]
    link = Link([Party(rule, 1.5 * inflow_bps) for rule in rules], inflow_bps=inflow_bps, stock_bits=0)
    link.run(seconds)
    return link


def cost_us(pairs: int, requests: int) -> tuple[float, float]:
    """Microseconds per request with `pairs` floors and quotas: for quotas and shares, and for the checks of the policy."""
    terms: dict[str, Any] = {"quota_bps": 1e9, "quota_burst_bits": 10**12, "floor_bps": 100.0}
    desk = desk_of([Rule(initiator=f"a{n}", responder=f"b{n}", **terms) for n in range(pairs)])
    site = cast(Site, desk)
    quotas, shares = Quotas(site), Shares(site)
    rng = random.Random(2)
    names = [rng.randrange(pairs) for _ in range(requests)]
    asks = [check_ask(site, f"a{n}", f"b{n}", 1, KEY_BITS, ()) for n in names]
    have_bits = 10**12
    for n in range(pairs):  # what is looked up once per pair is not what a request costs
        quotas.check(check_ask(site, f"a{n}", f"b{n}", 1, KEY_BITS, ()))
    begin_s, spent_s, part = desk.clock.monotonic_s(), [], max(1, requests // 5)
    started = time.perf_counter()
    for place, ask in enumerate(asks, 1):
        desk.clock.move_to(begin_s + place * 1e-4)
        quotas.check(ask)
        shares.check(ask, have_bits)
        shares.spend(ask, have_bits)
        quotas.spend(ask)
        have_bits -= KEY_BITS
        if place % part == 0:
            spent_s.append(time.perf_counter() - started)
            started = time.perf_counter()
    shares_us = min(spent_s) / part * 1e6  # the fifth that other programs disturbed least
    started = time.perf_counter()
    for n in names:
        check_ask(site, f"a{n}", f"b{n}", 1, KEY_BITS, ())
    checks_us = (time.perf_counter() - started) / requests * 1e6
    return shares_us, checks_us


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="virtual time of each run")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument(
        "--live", type=float, default=0.0, help="seconds of each stretch on two real sites; 0: leave it out"
    )
    options = parser.parse_args()
    link = flood(options.seconds)
    greedy, others = link.parties[0], link.parties[1:]
    weights = (1.0, 2.0, 4.0)
    shared = division(4 * options.seconds, weights)
    total = sum(party.served for party in shared.parties)
    unfair = max(abs(p.served / total - w / sum(weights)) for p, w in zip(shared.parties, weights, strict=True))
    used = total * KEY_BITS / (shared.inflow_bps * 4 * options.seconds)
    share_us, checks_us = cost_us(10_000, options.requests)
    few_us, _ = cost_us(100, options.requests)
    rows = [
        Row(name="others, served of reserved, worst of 99", value=min(p.ratio for p in others), unit="", goal=0.99),
        Row(name="greedy, served of asked", value=greedy.ratio, unit=""),
        Row(name="surplus by weight 1:2:4, worst error", value=unfair, unit="", goal=0.02, better="lower"),
        Row(name="surplus that is used", value=used, unit="", goal=0.9),
        Row(name="quotas and shares, 10,000 pairs", value=share_us, unit="us", goal=8.0, better="lower"),
        Row(name="quotas and shares, 100 pairs", value=few_us, unit="us"),
        Row(name="policy checks, 10,000 pairs", value=checks_us, unit="us"),
    ]
    if options.live:
        import uvloop

        from bench.fair_live import measure

        rows += uvloop.run(measure(options.live))
    return 0 if publish("fair", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
