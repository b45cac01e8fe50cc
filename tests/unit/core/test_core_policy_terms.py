"""Tenants, tags, selectors, versions and change windows: what a policy refuses before anybody asks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import NotPermitted
from keystrand.core.identity import skeleton
from keystrand.core.policy import Fallback, Policy, Quota, Rule, Sae, Tagging, TagGrant, Tenant, Waiver
from keystrand.core.policy_change import changed_pairs, changes
from keystrand.core.protection import Protection
from keystrand.core.window import Window

SITE_OF = {"a": "alpha", "a2": "alpha", "b": "bravo", "b2": "bravo"}
WAIVER = Waiver(protection=Protection.PQC, approved_by=("ann",), reason="fibre works", expires_s=100.0)
FALLBACK = Fallback(protection=Protection.PQC, keys=5, for_s=10.0, rest_s=100.0, approved_by=("ann",), reason="tills")


def tagged(**values: str) -> Sae:
    tenant = values.pop("tenant", "default")
    return Sae(tenant=tenant, tags=tuple(values.items()))


# levels


def test_I7_a_level_below_hybrid_ends_with_the_waiver_that_approved_it() -> None:
    rule = Rule(initiator="a", responder="b", require=Protection.PQC, waiver=WAIVER)
    assert (rule.require_at(99.0), rule.floor_at(99.0)) == (Protection.PQC, Protection.PQC)
    assert (rule.require_at(100.0), rule.floor_at(100.0)) == (Protection.HYBRID, Protection.HYBRID)


def test_a_fallback_lowers_what_may_be_handed_out_and_not_what_is_asked_for() -> None:
    rule = Rule(initiator="a", responder="b", fallback=FALLBACK)
    assert rule.require_at(0.0) is rule.floor_at(0.0) is Protection.HYBRID
    assert rule.lowest_at(0.0) is Protection.PQC


@pytest.mark.parametrize(
    "options",
    [
        {"approved_by": ()},
        {"reason": " "},
        {"keys": 0},
        {"for_s": 0.0},
        {"rest_s": -1.0},
        {"protection": Protection.HYBRID},
        {"protection": Protection.CLASSICAL},
    ],
)
def test_a_fallback_without_limits_or_approval_is_refused(options: dict[str, object]) -> None:
    stated = {
        "protection": Protection.PQC,
        "keys": 1,
        "for_s": 1.0,
        "rest_s": 0.0,
        "approved_by": ("a",),
        "reason": "r",
    }
    with pytest.raises(ValueError):
        Fallback(**stated | options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"quota_keys_per_s": 1.0},
        {"quota_burst_keys": 1},
        {"floor_bps": -1.0},
        {"floor_burst_bits": 8},
        {"weight": 0.0},
        {"cryptoperiod_s": -1.0},
        {"sizes_bits": (100,)},
        {"require": Protection.PQC, "fallback": FALLBACK},
    ],
)
def test_terms_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a -> b"):
        Rule(initiator="a", responder="b", **options)  # type: ignore[arg-type]


# tenants and tags


def test_I8_a_pair_across_tenants_needs_a_rule_that_says_so() -> None:
    saes = {"a": tagged(tenant="acme"), "b": tagged(tenant="umbrella")}
    rule = Rule(initiator="a", responder="b")
    policy = Policy.of((rule,), SITE_OF, saes=saes)
    with pytest.raises(NotPermitted, match="cross_tenant"):
        policy.rule_for("a", "b")
    joined = Policy.of((Rule(initiator="a", responder="b", cross_tenant=True),), SITE_OF, saes=saes)
    assert joined.rule_for("a", "b").tenant == "acme", "keys belong to the tenant of their initiator"


@pytest.mark.proves("R033")
def test_a_key_tagged_with_one_geography_is_refused_to_a_holder_in_another() -> None:
    saes = {"a": tagged(geography="EU"), "b": tagged(geography="US"), "b2": tagged(geography="EU")}
    rules = tuple(Rule(initiator="a", responder=sae) for sae in ("b", "b2"))
    policy = Policy.of(rules, SITE_OF, saes=saes)
    with pytest.raises(NotPermitted, match=r"b .geography US. may not hold keys with geography EU"):
        policy.rule_for("a", "b")
    assert policy.rule_for("a", "b2").tags == (("geography", "EU"),)
    both = Tagging(grants=(TagGrant(name="geography", value="EU", holders=frozenset({"EU", "US"})),))
    assert ("a", "b") in Policy.of(rules, SITE_OF, saes=saes, tagging=both).rules


def test_a_mandatory_tag_that_is_missing_and_a_level_below_that_of_a_tag_are_refused() -> None:
    policy = Policy.of((Rule(initiator="a", responder="b"),), SITE_OF, tagging=Tagging(mandatory=("asset",)))
    with pytest.raises(NotPermitted, match="mandatory"):
        policy.rule_for("a", "b")
    secret = TagGrant(name="data_class", value="secret", holders=frozenset({"secret"}), require=Protection.HYBRID)
    saes = {"a": tagged(data_class="secret"), "b": tagged(data_class="secret")}
    for weak in ({"waiver": WAIVER}, {"fallback": FALLBACK}, {"require": Protection.QKD}):
        rule = Rule(initiator="a", responder="b", **weak)  # type: ignore[arg-type]
        with pytest.raises(NotPermitted, match="need hybrid"):
            Policy.of((rule,), SITE_OF, saes=saes, tagging=Tagging(grants=(secret,))).rule_for("a", "b")


def test_one_key_for_several_has_tags_that_fit_all_of_them() -> None:
    saes = {"a": tagged(), "b": tagged(geography="EU"), "b2": tagged(geography="US")}
    saes["a"] = tagged(geography="EU")
    eu = Rule(initiator="a", responder="b")
    us = Rule(initiator="a", responder="b2", tags=(("geography", "US"),))
    both = Tagging(
        grants=tuple(TagGrant(name="geography", value=v, holders=frozenset({"EU", "US"})) for v in ("EU", "US"))
    )
    policy = Policy.of((eu, us), SITE_OF, saes=saes, tagging=both)
    with pytest.raises(NotPermitted, match="cannot have geography"):
        policy.tags_of((policy.rule_for("a", "b"), policy.rule_for("a", "b2")))
    bare = Policy.of((Rule(initiator="a2", responder="b"), Rule(initiator="a2", responder="b2")), SITE_OF, saes=saes)
    assert bare.tags_of(tuple(bare.rules.values())) == ()


# selectors


def test_a_selector_stands_for_all_its_saes_at_other_sites_and_names_go_first() -> None:
    saes = {sae: tagged(tenant="acme") for sae in SITE_OF}
    general = Rule(initiator="tenant=acme", responder="tenant=acme", quota_bps=1.0, quota_burst_bits=256)
    special = Rule(initiator="a", responder="b")
    policy = Policy.of((general, special), SITE_OF, saes=saes)
    assert len(policy.rules) == 8
    assert ("a", "a2") not in policy.rules
    assert policy.rule_for("a", "b").quota_bps == 0.0
    assert policy.rule_for("a", "b2").quota_bps == 1.0


def test_selectors_that_name_one_pair_twice_or_nothing_known_are_refused() -> None:
    saes = {sae: tagged(tenant="acme", geography="EU") for sae in SITE_OF}
    one = Rule(initiator="tenant=acme", responder="b")
    other = Rule(initiator="geography=EU", responder="tenant=acme")
    with pytest.raises(ValueError, match="two entries with selectors"):
        Policy.of((one, other), SITE_OF, saes=saes)
    with pytest.raises(ValueError, match="a selector is"):
        Policy.of((Rule(initiator="colour=red", responder="b"),), SITE_OF, saes=saes)


# versions and changes


def test_the_digest_is_of_all_that_decides_and_of_nothing_else() -> None:
    rule = Rule(initiator="a", responder="b", source="one:1")
    plain = Policy.of((rule,), SITE_OF)
    moved = Policy.of((Rule(initiator="a", responder="b", source="two:2"),), dict(reversed(SITE_OF.items())))
    assert plain.digest == moved.digest
    assert changes(plain, moved) == []
    others = [
        Policy.of((Rule(initiator="a", responder="b", weight=2.0),), SITE_OF),
        Policy.of((rule, Rule(initiator="b", responder="a")), SITE_OF),
        Policy.of((rule,), SITE_OF | {"a2": "bravo"}),
        Policy.of((rule,), SITE_OF, saes={"a": Sae(quota=Quota(bps=1.0, burst_bits=1))}),
        Policy.of((rule,), SITE_OF, tenants={"acme": Tenant(floor_bps=1.0)}),
        Policy.of((rule,), SITE_OF, tagging=Tagging(mandatory=("asset",))),
        Policy.of((rule,), SITE_OF, windows=(Window(days=("sun",), begin="00:00", end="04:00"),)),
    ]
    assert len({plain.digest, *(other.digest for other in others)}) == len(others) + 1
    for other in others:
        assert changes(plain, other), "what the digest sees, the difference tells"


def test_a_difference_tells_for_whom_what_changes() -> None:
    old = Policy.of((Rule(initiator="a", responder="b"),), SITE_OF)
    new = Policy.of(
        (Rule(initiator="a", responder="b", waiver=WAIVER), Rule(initiator="b", responder="a", source="f:7")), SITE_OF
    )
    told = {(c.subject, c.field): (c.before, c.after, c.source) for c in changes(old, new)}
    assert told["b -> a", "verdict"] == ("refused: not listed", "allowed", "f:7")
    assert told["a -> b", "waiver"][1].startswith("down to pqc until 1970")
    assert changed_pairs(old, new) == {("a", "b"), ("b", "a")}


# change windows


def test_a_window_is_open_on_its_days_and_past_midnight() -> None:
    window = Window(days=("sat",), begin="22:00", end="02:00", zone="Europe/Zurich")
    for moment, is_open in (
        ("2026-11-21T20:59:59", False),  # 21:59:59 on Saturday in Zurich
        ("2026-11-21T21:00:00", True),
        ("2026-11-22T00:59:00", True),  # Sunday, the window of Saturday
        ("2026-11-22T01:00:00", False),
        ("2026-11-22T21:30:00", False),  # Sunday evening
        ("2026-07-18T20:00:00", True),  # summer time
    ):
        assert window.is_open(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()) is is_open, moment


def test_a_window_within_a_day_ends_with_its_minute() -> None:
    window = Window(days=("sat",), begin="02:00", end="04:00")
    for clock, is_open in (("01:59", False), ("02:00", True), ("03:59", True), ("04:00", False)):
        moment = datetime.fromisoformat(f"2026-11-21T{clock}:00").replace(tzinfo=UTC)
        assert window.is_open(moment.timestamp()) is is_open, clock


def test_a_quota_of_bits_or_of_keys_is_one() -> None:
    assert not Quota()
    assert Quota(bps=1.0, burst_bits=1)
    assert Quota(keys_per_s=1.0, burst_keys=1)


@pytest.mark.parametrize(
    "options",
    [
        {"days": ()},
        {"days": ("funday",)},
        {"begin": "24:00"},
        {"end": "4:00"},
        {"end": "04:60"},
        {"begin": "٢٢:00"},
        {"zone": "Mars/Olympus"},
        {"zone": "../etc/passwd"},
    ],
)
def test_a_window_that_does_not_exist_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Window(**{"days": ("sun",), "begin": "22:00", "end": "04:00"} | options)  # type: ignore[arg-type]


# names


@settings(derandomize=True)
@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True))
def test_names_that_people_confuse_share_a_skeleton(name: str) -> None:
    for twin in (name.upper(), name.replace("0", "O"), name.replace("1", "l"), name.replace("l", "I")):
        assert skeleton(twin) == skeleton(name)
