"""A policy at work: explained as it is applied, changed while the site runs, failing open within its limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from kme_pair import BRAVO_SAES, LIMITS, SITE_OF, Pair, materials

from keystrand.core.errors import (
    KeystrandError,
    NotPermitted,
    PeerUnavailable,
    QuotaExceeded,
    StrandUnavailable,
    Unavailable,
)
from keystrand.core.policy import Fallback, Policy, Quota, Rule, Sae, Tagging, TagGrant, Tenant
from keystrand.core.pool import Account
from keystrand.core.protection import Protection
from keystrand.core.window import Window
from keystrand.kme.ask import check_ask, explain_ask
from keystrand.kme.change import Emergency
from keystrand.testing.clock import EPOCH_S
from keystrand.wire.peer import Reserved, StrandOffer

FALLBACK = Fallback(
    protection=Protection.QKD, keys=3, for_s=60.0, rest_s=600.0, approved_by=("ann",), reason="tills stay open"
)
SUNDAYS = Window(days=("sun",), begin="00:00", end="04:00")


def pair_of(*rules: Rule, **options: object) -> Pair:
    pair = Pair(rules=rules, **options)  # type: ignore[arg-type]
    pair.connect()
    pair.fill()
    return pair


def change(pair: Pair, *rules: Rule, serial: int = 0, emergency: Emergency | None = None, **options: object) -> int:
    """serial: 0: one above the present one."""
    serial = serial or pair.alpha.kme.site.policy.serial + 1
    policy = Policy.of(rules, SITE_OF, serial=serial, **options)  # type: ignore[arg-type]
    counts = [
        side.run(lambda kme: kme.set_policy(policy, actor="ann", emergency=emergency)) for side in pair.sides.values()
    ]
    pair.pump()
    return counts[0]


# one table of checks

STRANGE = ["a3", "z1", "nobody", "A1", "a1 ", "", "b1\u0430"]
CALLERS = st.sampled_from(["a1"] * 20 + ["a2"] * 10 + ["b1", *STRANGE])
OTHERS = st.sampled_from(["b1"] * 20 + ["b2"] * 10 + ["a1", *STRANGE])
NUMBERS = st.sampled_from([None, None, 1, 2, 64, 128, -1, 0, 129])
SIZES = st.none() | st.sampled_from([0, 64, 100, 128, 128, 256, 512, 4104, -8])
RULES = st.lists(
    st.builds(
        Rule,
        initiator=st.sampled_from(["a1", "a2"]),
        responder=st.sampled_from(["b1", "b2", "a3"]),
        require=st.sampled_from(list(Protection)),
        sizes_bits=st.sampled_from([(), (128,), (128, 512), (8192,)]),
        cross_tenant=st.booleans(),
        fallback=st.none(),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda rule: rule.pair,
)
SAES = st.fixed_dictionaries(
    {
        sae: st.builds(
            Sae,
            tenant=st.sampled_from(["default", "default", "acme"]),
            tags=st.sampled_from([(), (), (("geography", "EU"),), (("geography", "US"),)]),
        )
        for sae in ("a1", "a2", "b1", "b2")
    }
)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(RULES, SAES, CALLERS, OTHERS, NUMBERS, SIZES, st.just([]) | st.lists(OTHERS, max_size=2))
def test_an_explanation_always_ends_as_the_service_does(
    rules: list[Rule],
    saes: dict[str, Sae],
    caller: str,
    other: str,
    number: int | None,
    size_bits: int | None,
    additional: list[str],
) -> None:
    pair = Pair(rules=())
    site = pair.alpha.kme.site
    site.policy = Policy.of(tuple(rules), SITE_OF, saes=saes)
    told = explain_ask(site, caller, other, number, size_bits, tuple(additional))
    met = meets(pair, caller, other, number=number, size_bits=size_bits, additional=tuple(additional))
    if told.is_allowed:
        event("allowed")
        assert isinstance(met, Unavailable), "there are no bits; nothing else is in the way"
        assert told.ask == check_ask(site, caller, other, number, size_bits, tuple(additional))
        assert all(finding.passed for finding in told.findings)
    else:
        event(f"refused by {told.findings[-1].check}")
        assert (type(told.error), str(told.error)) == (type(met), str(met))
        assert [finding.passed for finding in told.findings] == [True] * (len(told.findings) - 1) + [False]


def meets(pair: Pair, *names: str, **options: object) -> KeystrandError:
    """What the service says to a request when its pool is empty."""
    with pytest.raises(KeystrandError) as caught:
        pair.alpha.run(lambda kme: kme.get_key(1, *names, **options))  # type: ignore[arg-type]
    return caught.value


def test_sizes_that_a_rule_lists_are_the_only_ones_and_the_peer_holds_to_them_too() -> None:
    pair = pair_of(Rule(initiator="a1", responder="b1", sizes_bits=(512, 128)))
    assert pair.alpha.run(lambda kme: kme.status("a1", "b1")).key_size_bits == 128
    assert pair.draw("a1", "b1")[0].material.length_bits == 128, "the usual size is not allowed, so the smallest is"
    assert pair.draw("a1", "b1", size_bits=512)[0].material.length_bits == 512
    with pytest.raises(NotPermitted, match="512, 128 bits"):
        pair.draw("a1", "b1", size_bits=256)
    pair.bravo.kme.site.policy = Policy.of((Rule(initiator="a1", responder="b1", sizes_bits=(256,)),), SITE_OF)
    with pytest.raises(PeerUnavailable, match="policy"):
        pair.draw("a1", "b1", size_bits=512)


@pytest.mark.proves("R033")
def test_the_peer_refuses_what_its_own_tags_forbid() -> None:
    pair = pair_of(Rule(initiator="a1", responder="b1"))
    abroad = {"a1": Sae(tags=(("geography", "EU"),)), "b1": Sae(tags=(("geography", "US"),))}
    pair.bravo.kme.site.policy = Policy.of((Rule(initiator="a1", responder="b1"),), SITE_OF, saes=abroad)
    with pytest.raises(PeerUnavailable, match="policy"):
        pair.draw("a1", "b1")


# failing closed and open


def lose_strand(pair: Pair) -> None:
    pair.lose = lambda message: isinstance(message, StrandOffer)
    for side in pair.sides.values():
        side.kme.strands.forget(side.peer)


def test_I7_a_rule_fails_closed_unless_it_says_otherwise() -> None:
    pair = pair_of(Rule(initiator="a1", responder="b1"))
    lose_strand(pair)
    with pytest.raises(StrandUnavailable):
        pair.draw("a1", "b1")
    assert pair.alpha.events("downgrade.fallback") == []


def test_a_rule_that_fails_open_does_so_for_so_many_keys_and_says_so() -> None:
    pair = pair_of(Rule(initiator="a1", responder="b1", fallback=FALLBACK))
    assert pair.draw("a1", "b1")[0].protection is Protection.HYBRID
    lose_strand(pair)
    keys = pair.draw("a1", "b1", number=2)
    assert {key.protection for key in keys} == {Protection.QKD}
    assert materials(pair.fetch("b1", "a1", *keys)) == materials(keys)
    (record,) = pair.alpha.records("downgrade.fallback")
    assert (record["required"], record["served"], record["keys"], record["keys_left"]) == ("hybrid", "qkd", 2, 1)
    assert record["approved_by"] == "ann"
    with pytest.raises(StrandUnavailable):
        pair.draw("a1", "b1", number=2)  # 2 + 2 > 3
    pair.draw("a1", "b1")
    with pytest.raises(StrandUnavailable):
        pair.draw("a1", "b1")


def test_an_episode_of_fallback_ends_and_the_next_one_has_to_wait() -> None:
    pair = pair_of(Rule(initiator="a1", responder="b1", fallback=FALLBACK))
    lose_strand(pair)
    pair.draw("a1", "b1")
    pair.advance(61.0, step_s=10.0)
    with pytest.raises(StrandUnavailable):
        pair.draw("a1", "b1")  # two keys are left, the time is not
    pair.advance(600.0, step_s=50.0)
    pair.fill(1)
    assert len(pair.draw("a1", "b1", number=3)) == 3


def test_a_quota_or_a_share_that_is_spent_is_no_reason_to_fall_back() -> None:
    pqc = replace(FALLBACK, protection=Protection.PQC)
    held = Rule(initiator="a2", responder="b2", floor_bps=1000.0, floor_burst_bits=100_000)
    pair = pair_of(Rule(initiator="a1", responder="b1", fallback=pqc), held)
    with pytest.raises(QuotaExceeded, match="keeps them for others"):
        pair.draw("a1", "b1")
    assert pair.alpha.events("downgrade.fallback") == []
    assert pair.draw("a2", "b2")


# a policy that changes


def test_a_new_policy_comes_into_force_and_into_the_audit_log() -> None:
    pair = pair_of(Rule(initiator="a1", responder="b1"))
    (start,) = pair.alpha.records("policy.loaded")
    assert start["digest"] == pair.alpha.kme.site.policy.digest
    assert change(pair, Rule(initiator="a1", responder="b2"), serial=2) == 2
    with pytest.raises(NotPermitted):
        pair.draw("a1", "b1")
    assert pair.draw("a1", "b2")
    now = pair.alpha.records("policy.loaded")[-1]
    assert (now["serial"], now["changed"], now["actor"]) == (2, 2, "ann")
    assert now["digest"] == pair.alpha.kme.site.policy.digest != start["digest"]
    with pytest.raises(NotPermitted, match="older"):
        change(pair, Rule(initiator="a1", responder="b1"), serial=1)
    with pytest.raises(NotPermitted, match="under the same number"):
        change(pair, Rule(initiator="a1", responder="b1"), serial=2)
    assert change(pair, Rule(initiator="a1", responder="b2"), serial=2) == 0, "the same policy again changes nothing"
    with pytest.raises(NotPermitted):
        pair.draw("a1", "b1")


def test_I6_a_key_on_its_way_is_judged_by_the_new_policy() -> None:
    gone, kept = Rule(initiator="a1", responder="b1"), Rule(initiator="a1", responder="b2")
    pair = pair_of(gone, kept)
    pair.lose = lambda message: isinstance(message, Reserved)
    tickets = [pair.ask("a1", "b1"), pair.ask("a1", "b2")]
    pair.pump()
    pair.lose = lambda message: False
    change(pair, replace(kept, weight=2.0))
    assert isinstance(pair.answers[tickets[0]], PeerUnavailable)
    pair.advance(1.5)
    keys = pair.answers[tickets[1]]
    assert not isinstance(keys, KeystrandError)
    assert materials(pair.fetch("b2", "a1", *keys)) == materials(keys)
    assert pair.alpha.ledger(Account.BURNT) == 256


def test_stock_of_a_changed_rule_is_burnt_and_that_of_others_stays() -> None:
    changed, same = Rule(initiator="a1", responder="b1"), Rule(initiator="a1", responder="b2")
    pair = Pair(rules=(changed, same), limits=replace(LIMITS, stock_from_per_s=0.5))
    pair.connect()
    pair.fill(0, 200_000)
    for _ in range(12):
        pair.draw("a1", "b1")
        pair.draw("a1", "b2")
        pair.advance(0.02, step_s=0.02)
    shelves = pair.alpha.kme.reservations.stock._shelves
    have = {terms[1][0]: shelf.keys for terms, shelf in shelves.items()}
    assert have["b1"] > 0
    assert have["b2"] > 0
    change(pair, replace(changed, quota_bps=1e6, quota_burst_bits=10**6), same)
    left = {terms[1][0]: shelf.keys for terms, shelf in shelves.items()}
    assert left == {"b1": 0, "b2": have["b2"]}
    keys = pair.draw("a1", "b1")
    assert materials(pair.fetch("b1", "a1", *keys)) == materials(keys)


def test_outside_its_windows_a_policy_changes_only_in_an_emergency_and_loudly() -> None:
    rule = Rule(initiator="a1", responder="b1")
    pair = pair_of(rule)
    closed = next(day for day in ("mon", "tue") if not Window(days=(day,), begin="00:00", end="23:59").is_open(EPOCH_S))
    change(pair, rule, serial=2, windows=(Window(days=(closed,), begin="00:00", end="00:01"),))
    with pytest.raises(NotPermitted, match="no change window"):
        change(pair, serial=3)
    assert pair.draw("a1", "b1")
    change(pair, serial=3, emergency=Emergency(actor="ann", reason="key 7 is known to a stranger"))
    with pytest.raises(NotPermitted):
        pair.draw("a1", "b1")
    (record,) = pair.alpha.records("policy.emergency")
    assert record["reason"] == "key 7 is known to a stranger"
    with pytest.raises(ValueError):
        Emergency(actor="", reason="x")


# quotas of SAEs and tenants


@pytest.mark.proves("R022", "R056")
def test_the_quota_of_an_sae_and_of_a_tenant_is_for_all_its_pairs_together() -> None:
    rules = tuple(Rule(initiator=sae, responder=other) for sae in ("a1", "a2", "a3") for other in BRAVO_SAES[:3])
    pair = pair_of(*rules)
    saes = {sae: Sae(tenant="acme") for sae in ("a1", "a2", "b1", "b2")}
    saes["a1"] = Sae(tenant="acme", quota=Quota(keys_per_s=1.0, burst_keys=2))
    acme = {"acme": Tenant(quota=Quota(bps=256.0, burst_bits=768))}
    change(pair, *rules, saes=saes, tenants=acme)
    pair.draw("a1", "b1")
    pair.draw("a1", "b2")
    with pytest.raises(QuotaExceeded, match="quota of SAE a1: asked for 1 keys, 0 left"):
        pair.draw("a1", "b1")
    pair.draw("a2", "b1")
    with pytest.raises(QuotaExceeded, match="quota of tenant acme"):
        pair.draw("a2", "b2")
    assert pair.draw("a3", "b3", number=4), "another tenant is not held up"
    pair.advance(1.0)
    pair.draw("a1", "b1")


def test_a_key_for_several_costs_an_sae_once() -> None:
    rules = tuple(Rule(initiator="a1", responder=sae) for sae in ("b1", "b2"))
    pair = pair_of(*rules)
    change(pair, *rules, saes={"a1": Sae(quota=Quota(bps=1.0, burst_bits=256))})
    assert pair.draw("a1", "b1", additional=("b2",))
    with pytest.raises(QuotaExceeded):
        pair.draw("a1", "b1")


@pytest.mark.proves("R056")
def test_the_peer_borrows_nothing_that_a_floor_reserves() -> None:
    greedy = Rule(initiator="b1", responder="a1")
    held = Rule(initiator="a1", responder="b1", floor_bps=100.0, floor_burst_bits=6000)
    for rules, least_bits in (((greedy, held), 6000), ((greedy,), 0)):
        pair = pair_of(*rules)
        for _ in range(80):
            try:
                pair.draw("b1", "a1")
            except Unavailable:
                pair.advance(1.0)
        assert pair.alpha.kme.pool.owned_bits("link") >= least_bits
        if least_bits:
            assert len(pair.draw("a1", "b1", number=23)) == 23
        else:
            assert pair.alpha.kme.pool.owned_bits("link") < 6000, "without a floor, it lends more"


def test_a_change_of_policy_does_not_refill_a_quota() -> None:
    rule = Rule(initiator="a1", responder="b1", quota_bps=1.0, quota_burst_bits=512)
    pair = pair_of(rule)
    pair.draw("a1", "b1", number=2)
    change(pair, replace(rule, quota_burst_bits=1024))
    with pytest.raises(QuotaExceeded):
        pair.draw("a1", "b1")


def test_tags_of_a_grant_reach_the_ask() -> None:
    saes = {"a1": Sae(tags=(("asset", "vault"), ("geography", "EU"))), "b1": Sae(tags=(("geography", "CH"),))}
    grant = TagGrant(name="geography", value="EU", holders=frozenset({"EU", "CH"}))
    rule = Rule(initiator="a1", responder="b1", cryptoperiod_s=60.0, cryptoperiod_uses=7)
    pair = Pair(rules=())
    site = pair.alpha.kme.site
    site.policy = Policy.of((rule,), SITE_OF, saes=saes, tagging=Tagging(grants=(grant,)))
    ask = check_ask(site, "a1", "b1", None, None, ())
    assert (ask.tenant, ask.tags) == ("default", (("asset", "vault"), ("geography", "EU")))
    assert (ask.cryptoperiod_s, ask.cryptoperiod_uses, ask.cryptoperiod_bytes) == (60.0, 7, 0)
