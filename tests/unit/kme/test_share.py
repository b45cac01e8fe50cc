"""Fair sharing: what is reserved stays reserved, whatever others ask for; the rest is divided by weight."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from bench.bench_fair import BLOCK_BITS, KEY_BITS, Desk, Link, Party, desk_of, division, flood
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import QuotaExceeded
from keystrand.core.policy import Policy, Rule, Sae, Tenant
from keystrand.kme.ask import Ask, check_ask
from keystrand.kme.share import FLOOR_S, Credit, Credits, Shares
from keystrand.kme.site import Site


def ask_of(desk: Desk, initiator: str, responder: str, number: int = 1) -> Ask:
    return check_ask(cast(Site, desk), initiator, responder, number, KEY_BITS, ())


# the flood (RELIABILITY T11)


@pytest.mark.proves("R022", "R056")
def test_a_flood_at_a_hundred_times_its_share_takes_nothing_of_what_99_others_reserved() -> None:
    link = flood(40.0)
    greedy, others = link.parties[0], link.parties[1:]
    assert greedy.asked > 50 * max(party.asked for party in others)
    assert min(party.ratio for party in others) >= 0.99
    assert greedy.served * KEY_BITS >= 40 * 1000.0, "its own reservation holds as well"


def test_without_floors_the_same_flood_does_take_it() -> None:
    """The simulation can fail: what protects the others is the floor."""
    rules = [Rule(initiator=f"a{n}", responder=f"b{n}") for n in range(20)]
    parties = [Party(rule, 1000.0 * (100.0 if n == 0 else 1.0)) for n, rule in enumerate(rules)]
    link = Link(parties, inflow_bps=10_000.0, stock_bits=0)
    link.run(40.0)
    assert min(party.ratio for party in link.parties[1:]) < 0.9


def test_surplus_is_divided_by_weight_and_used() -> None:
    weights = (1.0, 2.0, 4.0)
    link = division(300.0, weights)
    total = sum(party.served for party in link.parties)
    for party, weight in zip(link.parties, weights, strict=True):
        assert party.served / total == pytest.approx(weight / 7, abs=0.03)
    assert total * KEY_BITS >= 0.9 * link.inflow_bps * 300.0


def test_who_asks_alone_may_have_it_all_but_what_is_reserved() -> None:
    floor = Rule(initiator="a1", responder="b1", floor_bps=10.0, floor_burst_bits=1024)
    desk = desk_of([Rule(initiator="a0", responder="b0"), floor])
    shares, have_bits = Shares(cast(Site, desk)), 10_240
    while have_bits > 1024:
        ask = ask_of(desk, "a0", "b0")
        shares.check(ask, have_bits)
        shares.spend(ask, have_bits)
        have_bits -= KEY_BITS
    with pytest.raises(QuotaExceeded, match="keeps them for others") as caught:
        shares.check(ask_of(desk, "a0", "b0"), have_bits)
    assert caught.value.retry_after_s >= 1.0
    for _ in range(4):
        ask = ask_of(desk, "a1", "b1")
        shares.check(ask, have_bits)
        shares.spend(ask, have_bits)
        have_bits -= KEY_BITS
    assert have_bits == 0


# tenants


def test_the_floor_of_a_tenant_serves_any_of_its_pairs_and_no_other() -> None:
    rules = tuple(Rule(initiator=f"a{n}", responder=f"b{n}") for n in range(3))
    desk = desk_of(rules)
    saes = {name: Sae(tenant="acme") for name in ("a0", "b0", "a1", "b1")}
    acme = {"acme": Tenant(floor_bps=100.0, floor_burst_bits=512)}
    desk.policy = Policy.of(rules, desk.policy.site_of, saes=saes, tenants=acme)
    shares = Shares(cast(Site, desk))
    assert shares.reserved_bits("bravo") == 512
    with pytest.raises(QuotaExceeded):
        shares.check(ask_of(desk, "a2", "b2"), 512)
    for name in ("0", "1"):
        ask = ask_of(desk, f"a{name}", f"b{name}")
        shares.check(ask, 512)
        shares.spend(ask, 512)
    assert shares.reserved_bits("bravo") == 0
    desk.clock.move_to(desk.clock.monotonic_s() + 1.0)
    with pytest.raises(QuotaExceeded):
        shares.check(ask_of(desk, "a2", "b2"), 300)


# a changed policy, a restart


def test_a_changed_policy_keeps_credit_and_a_restart_fills_it() -> None:
    rule = Rule(initiator="a0", responder="b0", floor_bps=10.0)
    desk = desk_of([rule])
    shares = Shares(cast(Site, desk))
    cap_bits = FLOOR_S * 10.0
    assert shares.reserved_bits("bravo") == cap_bits
    shares.spend(ask_of(desk, "a0", "b0", 2), 10_000)
    desk.policy = Policy.of((replace(rule, weight=3.0),), desk.policy.site_of)
    assert shares.reserved_bits("bravo") == cap_bits - 2 * KEY_BITS
    assert Shares(cast(Site, desk)).reserved_bits("bravo") == cap_bits


# the sum of credits, against walking over them

STEPS = st.lists(st.tuples(st.integers(0, 4), st.floats(0.0, 1.0), st.floats(0.0, 30.0)), max_size=60)


@settings(derandomize=True)
@given(STEPS)
def test_the_running_sum_of_credits_is_the_sum_of_the_credits(steps: list[tuple[int, float, float]]) -> None:
    credits_ = [
        Credit(rate, cap, cap / 2 if n % 2 else cap, 0.0)
        for n, (rate, cap) in enumerate([(1.0, 10.0), (5.0, 10.0), (0.5, 100.0), (100.0, 1.0), (7.0, 7.0)])
    ]
    running, now_s = Credits(credits_), 0.0
    for which, part, pause_s in steps:
        now_s += pause_s
        walked = sum(credit.now(now_s) for credit in credits_)
        assert running.total(now_s) == pytest.approx(walked, abs=1e-6)
        credit = credits_[which]
        running.take(credit, part * credit.now(now_s), now_s)
        assert running.total(now_s) == pytest.approx(sum(c.now(now_s) for c in credits_), abs=1e-6)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 8), st.floats(0.5, 0.95))
def test_nobody_within_a_floor_is_refused_while_the_link_covers_the_floors(seed: int, others: int, load: float) -> None:
    rules = [Rule(initiator=f"a{n}", responder=f"b{n}", floor_bps=2000.0) for n in range(others + 1)]
    parties = [Party(rule, 1800.0 if n else 200_000.0) for n, rule in enumerate(rules)]
    reserved_bps = 2000.0 * len(rules)
    link = Link(parties, inflow_bps=reserved_bps / load, stock_bits=int(60 * reserved_bps) + BLOCK_BITS, seed=seed)
    link.run(5.0)
    assert all(party.ratio == 1.0 for party in parties[1:])
