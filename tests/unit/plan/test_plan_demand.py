"""Demand, cipher limits and stores, against closed forms worked out by hand and against a simulation."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.plan import buffer
from keystrand.plan.ciphers import RULES, check_ciphers, check_refresh, data_bytes, interval_s, rules_of
from keystrand.plan.demand import DAY_S, demand, otp_bps, refresh_bps, tunnels_fed
from keystrand.plan.estate import Family, Link, Protocol
from keystrand.plan.fact import Span
from keystrand.plan.finding import Severity


def link(**fields: object) -> Link:
    return Link(ends=("a", "b"), **fields)  # type: ignore[arg-type]


def test_one_tunnel_both_ways_spends_four_bits_a_second_at_120_s_and_512_at_one() -> None:
    assert refresh_bps(1, 120) == pytest.approx(4.2667, abs=1e-4)
    assert refresh_bps(1, 1) == 512


def test_twelve_tunnels_in_singapore_left_a_margin_of_145() -> None:
    spent = refresh_bps(12, 120)  # arXiv:2405.04415: 12 tunnels, 120 s, 7.4 kb/s
    assert spent == pytest.approx(51.2)
    assert 7_400 / spent == pytest.approx(144.5, abs=0.1)
    assert tunnels_fed(7_400, 120) == 1734


@pytest.mark.parametrize(
    ("skr_bps", "bytes_per_day"), [(1.1e3, 11.9e6), (7.4e3, 80e6), (304e3, 3.28e9), (2.58e6, 27.9e9)]
)
def test_a_day_of_one_time_pad(skr_bps: float, bytes_per_day: float) -> None:
    assert skr_bps * DAY_S / 8 == pytest.approx(bytes_per_day, rel=0.005)


def test_a_gigabyte_a_day_as_one_time_pad() -> None:
    assert otp_bps(1e9) == pytest.approx(92.6e3, rel=1e-3)


def test_a_relayed_bit_is_spent_on_every_hop() -> None:
    needs = demand(link(tunnels=3, rekey_s=60.0))
    assert needs.total.span == Span.point(3 * 512 / 60)
    assert needs.spent_bps(4) == needs.total.span.times(4)


def test_an_interval_that_is_not_stated_is_assumed_aloud() -> None:
    needs = demand(link(tunnels=1))
    assert needs.rekey_s == 120
    assert "assumed" in needs.assumed[0]
    assert demand(link(rekey_s=30.0)).assumed == ()


def test_the_pad_needs_its_payload_and_a_tag_for_each_record() -> None:
    needs = demand(link(tunnels=0, rekey_s=1.0, otp_bytes_per_day=1e9))
    assert needs.total.span.likely == pytest.approx(otp_bps(1e9) * (1 + 128 / (8 * 16384)))


@pytest.mark.proves("R089")
@pytest.mark.parametrize(
    ("rate_bps", "large", "small", "cfrg57", "cfrg60"),
    [(10e9, 5223, 289, 880, 311), (100e9, 522, 28.9, 88, 31), (400e9, 131, 7.2, 22, 7.8), (800e9, 65, 3.6, 11, 3.9)],
)
def test_refresh_at_full_load(rate_bps: float, large: float, small: float, cfrg57: float, cfrg60: float) -> None:
    rule = RULES["macsec-pn"]
    assert interval_s(rule, rate_bps) == pytest.approx(large, rel=0.006)
    assert interval_s(rule, rate_bps, 64) == pytest.approx(small, rel=0.006)
    assert interval_s(RULES["cfrg-57"], rate_bps) == pytest.approx(cfrg57, rel=0.01)
    assert interval_s(RULES["cfrg-60"], rate_bps) == pytest.approx(cfrg60, rel=0.01)


def test_data_under_one_key() -> None:
    assert data_bytes(RULES["cfrg-60"]) == pytest.approx(0.38e12, rel=0.01)


def test_every_rule_names_its_source_and_version() -> None:
    assert all(rule.source and any(digit in rule.source for digit in "0123456789") for rule in RULES.values())


@pytest.mark.proves("R089")
def test_a_refresh_beyond_the_cipher_limit_blocks_with_the_limit() -> None:
    macsec = Protocol(name=Family.MACSEC, cipher="GCM-AES-256")
    too_long = link(rate_bps=100e9, rekey_s=600.0, protocols=(macsec,))
    found = check_refresh("x", too_long)
    assert [f.severity for f in found] == [Severity.BLOCKING, Severity.WARNING]  # the counter, and the cautious bound
    assert "522" in found[0].says
    assert check_refresh("x", link(rate_bps=100e9, rekey_s=20.0, protocols=(macsec,))) == []
    assert check_refresh("x", link(rekey_s=600.0, protocols=(macsec,))) == []
    split = link(rate_bps=100e9, rekey_s=600.0, tunnels=20, protocols=(macsec,))
    assert check_refresh("x", split) == []


@pytest.mark.proves("R078")
def test_payload_stays_under_standard_authenticated_encryption() -> None:
    ciphers = ("AES-256-GCM", "ChaCha20-Poly1305", "AES-128-CCM", "OUR-OWN-QUANTUM-CIPHER", "")
    found = check_ciphers("x", link(protocols=tuple(Protocol(name=Family.IPSEC, cipher=c) for c in ciphers)))
    assert [f.where[3] for f in found] == [3]
    assert found[0].requirement == "R078"


def test_wide_counters_lift_the_limit_of_the_counter_only() -> None:
    assert [r.name for r in rules_of(Protocol(name=Family.MACSEC, cipher="GCM-AES-XPN-256"))] == [
        "macsec-xpn",
        "cfrg-60",
    ]
    assert [r.name for r in rules_of(Protocol(name=Family.IPSEC, cipher="AES-256-CBC ESN"))] == ["esp-64"]
    assert rules_of(Protocol(name=Family.OTHER)) == ()


def test_time_to_empty() -> None:
    assert buffer.time_to_empty_s(1_000_000, 0, 100) == 10_000
    assert buffer.time_to_empty_s(1_000_000, 100_000, 100, 10) == 10_000
    assert buffer.time_to_empty_s(1_000_000, 0, 10, 100) == math.inf


@given(st.floats(1, 1e6), st.floats(1, 1e6), st.floats(0, 1e6))
def test_a_store_of_the_size_for_an_outage_lasts_exactly_that_outage(
    outage: float, drain: float, reserve: float
) -> None:
    size = buffer.size_bits(outage, drain, reserve)
    assert buffer.time_to_empty_s(size, reserve, drain) == pytest.approx(outage, rel=1e-6, abs=1e-3)


def test_refill_is_never_for_a_link_that_gains_no_more_than_it_spends() -> None:
    assert buffer.refill_s(3600, 50, 150) == 1800
    assert buffer.refill_s(3600, 50, 50) is None


@pytest.mark.proves("R093")
def test_a_store_for_a_day_exposes_each_key_for_a_day() -> None:
    one = buffer.store(outage_s=DAY_S, reserve_bits=0, drain_bps=51.2, gain_bps=7_400, up_down_s=None)
    assert one.exposure_s == DAY_S
    assert one.starvation is None
    assert "birth" in buffer.EXPOSURE_MEANS
    assert "destruction" in buffer.EXPOSURE_MEANS


def _empty_share(size: float, drain: float, gain: float, mtbf_s: float, mttr_s: float, seed: int) -> float:
    """Simulated: share of time with nothing left, of a store between exponential up and down times."""
    dice, level, empty, total = random.Random(seed), size, 0.0, 0.0
    for _ in range(20_000):
        up, down = dice.expovariate(1 / mtbf_s), dice.expovariate(1 / mttr_s)
        level = min(size, level + (gain - drain) * up)
        lasts = level / drain
        empty += max(0.0, down - lasts)
        level = max(0.0, level - drain * down)
        total += up + down
    return empty / total


@pytest.mark.parametrize("hours", [1, 2, 4])
def test_starvation_is_bounded_from_above(hours: float) -> None:
    drain, gain, mtbf_s, mttr_s = 100.0, 300.0, 200 * 3600.0, 3600.0
    size = drain * hours * 3600
    bound = buffer.starvation(size, drain, gain, mtbf_s, mttr_s)
    seen = _empty_share(size, drain, gain, mtbf_s, mttr_s, seed=7)
    assert seen <= bound <= 10 * seen


def test_no_store_helps_a_link_that_spends_more_than_it_gains() -> None:
    assert buffer.starvation(1e12, 100, 101, 3600, 3600) == 1.0
    assert buffer.starvation(1e6, 0, 101, 3600, 3600) == 0.0


def _drained_s(size: float, reserve: float, drain: float, step_s: float) -> float:
    """Second by second, as a site would see it: keys are taken whole."""
    level, at, owed = size, 0.0, 0.0
    while True:
        at, owed = at + step_s, owed + drain * step_s
        keys = owed // 256
        level, owed = level - 256 * keys, owed - 256 * keys
        if level <= reserve:
            return at


@pytest.mark.proves("R052")
def test_predicted_time_to_empty_is_within_five_percent_of_what_an_outage_shows() -> None:
    size, drain = buffer.size_bits(3600, refresh_bps(12, 120), 4096), refresh_bps(12, 120)
    predicted = buffer.time_to_empty_s(size, 4096, drain)
    assert _drained_s(size, 4096, drain, 1.0) == pytest.approx(predicted, rel=0.05)
