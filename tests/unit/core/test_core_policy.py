"""Limits, rules and waivers: what contradicts itself is refused, and what is not listed is not allowed."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import NotPermitted
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy, Rule, Waiver
from keystrand.core.protection import Protection, Strand, strands_for

SITE_OF = {"a": "alpha", "b": "bravo"}
WAIVER = Waiver(protection=Protection.PQC, approved_by=("ann",), reason="fibre works", expires_s=100.0)


@pytest.mark.parametrize("name", [limit.name for limit in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_every_limit_is_positive_and_finite(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "contradiction",
    [
        {"key_size_bits_default": 32},
        {"key_size_bits_default": 8192},
        {"key_size_bits_min": 512},
        {"key_size_bits_max": 128},
        {"block_size_bits": 8001},
        {"pool_size_bits_max": 8000},
    ],
)
def test_limits_that_contradict_each_other_are_refused(contradiction: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="_bits"):
        Limits(**contradiction)


@pytest.mark.proves("R026", "R046")
def test_what_no_rule_allows_is_refused() -> None:
    policy = Policy.of((Rule(initiator="a", responder="b"),), SITE_OF)
    assert policy.rule_for("a", "b").require is Protection.HYBRID
    for pair in (("b", "a"), ("a", "x"), ("A", "b"), ("", "")):
        with pytest.raises(NotPermitted) as caught:
            policy.rule_for(*pair)
        assert caught.value.hint
    with pytest.raises(NotPermitted):
        Policy.of((), SITE_OF).rule_for("a", "b")


def test_a_policy_lists_each_pair_once_and_only_known_saes() -> None:
    rule = Rule(initiator="a", responder="b")
    with pytest.raises(ValueError, match="twice"):
        Policy.of((rule, rule), SITE_OF)
    with pytest.raises(ValueError, match="not assigned"):
        Policy.of((Rule(initiator="a", responder="x"),), SITE_OF)


@pytest.mark.parametrize(
    "options",
    [
        {"initiator": "a", "responder": "a"},
        {"initiator": "a", "responder": "b", "quota_bps": 1.0},
        {"initiator": "a", "responder": "b", "quota_burst_bits": 1},
        {"initiator": "a", "responder": "b", "quota_bps": -1.0, "quota_burst_bits": 1},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Rule(**options)  # type: ignore[arg-type]


def test_a_waiver_names_who_and_why() -> None:
    for approved_by, reason in (((), "why"), (("ann",), " ")):
        with pytest.raises(ValueError, match="approved_by"):
            Waiver(protection=Protection.PQC, approved_by=approved_by, reason=reason, expires_s=1.0)


def test_I7_a_waiver_ends_at_its_second_and_never_raises_the_floor() -> None:
    rule = Rule(initiator="a", responder="b", waiver=WAIVER)
    assert rule.floor_at(99.9) is Protection.PQC
    assert rule.floor_at(100.0) is Protection.HYBRID
    low = Rule(initiator="a", responder="b", require=Protection.CLASSICAL, waiver=WAIVER)
    assert low.floor_at(0.0) is Protection.CLASSICAL


@settings(derandomize=True)
@given(st.sampled_from(Protection))
def test_the_strands_for_a_level_give_exactly_that_level(level: Protection) -> None:
    assert Protection.of(strands_for(level)) is level
    assert Protection.parse(level.label) is level


@settings(derandomize=True)
@given(st.sets(st.sampled_from(Strand)), st.sampled_from(Strand))
def test_one_more_strand_never_lowers_the_protection(strands: set[Strand], more: Strand) -> None:
    assert Protection.of(strands | {more}) >= Protection.of(strands)


def test_an_unknown_level_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="hybrid"):
        Protection.parse("quantum")
