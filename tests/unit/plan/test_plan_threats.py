"""Threat × control: what keys do not help against stays marked so, under every pattern."""

from __future__ import annotations

import pytest

from keystrand.plan.pattern import Layer, Pattern
from keystrand.plan.threats import Effect, attack_class, threats

UNTOUCHED = ("endpoint", "insider", "bugs", "routing", "after-decryption")


@pytest.mark.proves("R009")
@pytest.mark.parametrize("pattern", Pattern)
def test_no_pattern_reduces_what_happens_at_the_ends(pattern: Pattern) -> None:
    table = {threat.name: threat for threat in threats()}
    assert [table[name].under(pattern) for name in UNTOUCHED] == [Effect.NOT_REDUCED] * 5


@pytest.mark.proves("R014")
def test_a_pattern_with_more_layers_reduces_no_less() -> None:
    for one in Pattern:
        for other in Pattern:
            if set(one.layers) <= set(other.layers):
                for threat in threats():
                    assert not (threat.under(one) is Effect.REDUCED and threat.under(other) is Effect.NOT_REDUCED)


def test_each_layer_reduces_something_and_each_threat_says_how_that_would_be_shown() -> None:
    assert {layer for threat in threats() for layer in threat.layers} == set(Layer)
    assert all(threat.validated_by and threat.says for threat in threats())
    assert len({threat.attack_class for threat in threats()}) == len(threats())


def test_qkd_alone_does_nothing_for_a_relay_or_its_own_devices() -> None:
    table = {threat.name: threat for threat in threats()}
    assert Layer.QKD_REFRESH not in table["relay"].layers
    assert Layer.QKD_REFRESH not in table["qkd-device"].layers


@pytest.mark.proves("R139")
def test_an_attack_class_is_mapped_to_its_row_or_to_none() -> None:
    found = attack_class("Harvest now, decrypt later")
    assert found is not None
    assert found.name == "harvest-now"
    assert attack_class("all attacks") is None
