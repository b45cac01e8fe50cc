"""Decisions: every rule reached by name, layers only added, labels without influence."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.plan import crown

from keystrand.plan.assumptions import Assumptions
from keystrand.plan.decide import Decision, change, decided, removed
from keystrand.plan.estate import (
    Control,
    DataClass,
    DeviceKind,
    Estate,
    FailurePolicy,
    Family,
    Impact,
    Link,
    Medium,
    PathType,
    Protocol,
    Site,
)
from keystrand.plan.fact import Answer
from keystrand.plan.governance import Governance
from keystrand.plan.pattern import Interaction, Layer, Pattern
from keystrand.plan.rules import BASELINES, GATES, RAISES


def on(estate: Estate) -> Decision:
    return decided(estate, "l")


def sited(**fields: object) -> Estate:
    site = Site(jurisdiction="US", **fields)  # type: ignore[arg-type]
    return crown.estate(sites={"a": site, "b": site})


FAR = {"length_km": 160.0, "loss_db": 40.0}

SHUT: dict[str, Callable[[], Estate]] = {
    "worth": lambda: crown.with_class(impact=Impact.MEDIUM),
    "horizon": lambda: crown.with_class(horizon_years=(5.0, 10.0)),
    "permitted": lambda: sited(regimes=("uk-gov",)),
    "path": lambda: crown.with_link(path=PathType.BRANCH_CORE),
    "control": lambda: crown.with_segment(control=Control.THIRD_PARTY),
    "stable": lambda: crown.with_link(reroutes_per_year=12.0),
    "light": lambda: crown.with_segment(medium=Medium.UNKNOWN),
    "distributes": lambda: crown.with_device(kind=DeviceKind.QRNG),
    "interfaces": lambda: crown.estate(
        devices={"module": crown.MODULE, "box": msgspec.structs.replace(crown.MODULE, interfaces=("skip",))},
        links={"l": msgspec.structs.replace(crown.LINK, devices=("module", "box"))},
    ),
    "rate": lambda: crown.with_link(tunnels=100_000, rekey_s=1.0),
    "sites": lambda: crown.with_segment(**FAR),
    "budget": lambda: msgspec.structs.replace(
        relayed(qkd_alone_accepted_by="the board"), assumptions=Assumptions(relay_per_year=0.5)
    ),
    "ground": lambda: crown.with_link(endpoints_monitored=Answer.UNKNOWN),
    "prerequisites": lambda: crown.with_link(rotation_tested=Answer.NO),
    "failure": lambda: crown.with_link(on_exhaustion=FailurePolicy.UNANSWERED),
    "mature": lambda: msgspec.structs.replace(
        crown.with_device(maturity="experimental"), governance=Governance(stage="production")
    ),
}


def relayed(**fields: object) -> Estate:
    """Too far for one hop, with a site half way that may hold a trusted node."""
    sites = {
        name: Site(jurisdiction="CH", lat=47.0, lon=lon, may_relay=may)
        for name, lon, may in (
            ("a", 7.0, Answer.NO),
            ("one", 7.5, Answer.YES),
            ("two", 8.0, Answer.YES),
            ("three", 8.5, Answer.YES),
            ("b", 9.0, Answer.NO),
        )
    }
    segment = msgspec.structs.replace(crown.SEGMENT, **FAR)
    link = msgspec.structs.replace(crown.LINK, segments=(segment,), **fields)
    return crown.estate(sites=sites, links={"l": link})


@pytest.mark.proves("R076")
def test_a_link_that_passes_every_gate_gets_qkd_on_top_of_pqc() -> None:
    found = on(crown.estate())
    assert found.pattern is Pattern.PQC_QKD
    assert found.against == ()
    assert found.led.rule.key == "refresh"
    assert found.interaction is Interaction.COMBINED


@pytest.mark.proves("R076", "R059", "R013")
@pytest.mark.parametrize("key", SHUT)
def test_each_gate_alone_keeps_qkd_out_and_leaves_pqc(key: str) -> None:
    found = on(SHUT[key]())
    assert found.pattern is Pattern.PQC
    assert key in [f.rule.key for f in found.against]
    assert all(f.evidence for f in found.fired)


def test_no_gate_is_without_a_test() -> None:
    assert list(SHUT) == [rule.key for rule in GATES]


@pytest.mark.parametrize("key", ["worth", "control", "stable", "path", "ground", "failure", "mature", "distributes"])
def test_most_gates_are_shut_by_nothing_else(key: str) -> None:
    assert [f.rule.key for f in on(SHUT[key]()).against] == [key]


@pytest.mark.proves("R118")
@pytest.mark.parametrize(
    ("years", "pattern", "key"),
    [
        (0.5 / 365.25, Pattern.CLASSICAL, "stale"),
        (1 / 365.25, Pattern.CLASSICAL, "stale"),
        (1.01 / 365.25, Pattern.CLASSICAL, "short"),
        (0.999, Pattern.CLASSICAL, "short"),
        (1.0, Pattern.PQC, "pqc"),
        (9.99, Pattern.PQC, "pqc"),
        (10.0, Pattern.PQC_QKD, "refresh"),
    ],
)
def test_hours_months_years_and_decades_at_their_boundaries(years: float, pattern: Pattern, key: str) -> None:
    found = on(crown.with_class(horizon_years=years))
    assert found.pattern is pattern
    assert found.led.rule.key == key


def test_low_impact_is_hardened_and_no_more() -> None:
    found = on(crown.with_class(impact=Impact.LOW))
    assert (found.pattern, found.led.rule.key) == (Pattern.CLASSICAL, "low")


def test_a_mandate_demands_pqc_even_where_little_is_at_stake() -> None:
    little = msgspec.structs.replace(
        sited(regimes=("us-federal",)), classes={"secret": DataClass(horizon_years=0.001, impact=Impact.LOW)}
    )
    found = on(little)
    assert (found.pattern, found.led.rule.key) == (Pattern.PQC, "mandated")


def test_what_is_unknown_is_neither_low_nor_short() -> None:
    assert on(crown.with_class(impact=None, horizon_years=None)).pattern is Pattern.PQC


@pytest.mark.parametrize("regime", ["nss", "uk-gov"])
def test_rules_that_exclude_qkd_leave_pqc_only_and_the_decision_says_so(regime: str) -> None:
    found = on(sited(regimes=(regime,)))
    assert found.pattern is Pattern.PQC
    assert any(f.says.startswith("PQC only:") for f in found.findings)


@pytest.mark.proves("R077")
def test_a_small_payload_gets_a_pad_and_a_large_one_is_refused_with_its_factor() -> None:
    small = on(crown.with_link(otp_bytes_per_day=1e5))
    assert (small.pattern, small.led.rule.key) == (Pattern.PQC_QKD_OTP, "pad")
    large = on(crown.with_link(otp_bytes_per_day=1e10))
    assert large.pattern is Pattern.PQC_QKD
    refused = [f for f in large.findings if f.requirement == "R077"]
    assert "shortfall factor" in refused[0].says


def test_the_top_tier_gets_several_sources() -> None:
    found = on(crown.with_class(impact=Impact.CRITICAL))
    assert (found.pattern, found.led.rule.key) == (Pattern.PQC_QKD_MULTI, "several")


def test_a_relayed_link_gets_several_sources_and_names_its_relays() -> None:
    found = on(relayed())
    assert found.pattern is Pattern.PQC_QKD_MULTI
    sites = next(f for f in found.fired if f.rule.key == "sites")
    assert sites.evidence.startswith("relays at ")


@pytest.mark.proves("R012")
def test_qkd_never_comes_without_pqc_and_alone_only_as_a_recorded_risk() -> None:
    for pattern in Pattern:
        assert not pattern.has_qkd or Layer.PQC in pattern.layers
    plain, alone = on(crown.estate()), on(crown.with_link(qkd_alone_accepted_by="the board"))
    assert plain.qkd_alone == ""
    assert alone.qkd_alone == "the board"
    assert Layer.PQC in alone.pattern.layers
    assert any(f.requirement == "R012" and "the board" in f.says for f in alone.findings)


@pytest.mark.proves("R074")
def test_a_qrng_adds_nothing_to_the_distribution_of_keys() -> None:
    assert on(SHUT["distributes"]()).pattern is on(crown.with_link(path=PathType.BRANCH_CORE)).pattern is Pattern.PQC


@pytest.mark.proves("R080")
def test_experimental_parts_are_for_pilots() -> None:
    assert on(SHUT["mature"]()).pattern is Pattern.PQC
    pilot = msgspec.structs.replace(SHUT["mature"](), governance=Governance(stage="pilot"))
    assert on(pilot).pattern is Pattern.PQC_QKD


@pytest.mark.proves("R143")
def test_qkd_that_is_named_and_does_not_hold_is_called_show() -> None:
    show = on(
        crown.estate(links={"l": msgspec.structs.replace(crown.LINK, profile="class-ingaas", key_store=Answer.NO)})
    )
    assert show.pattern is Pattern.PQC
    assert any(f.requirement == "R143" and "no key store" in f.says for f in show.findings)
    assert not any(f.requirement == "R143" for f in on(crown.with_link(profile="class-ingaas")).findings)


@pytest.mark.proves("R079")
@pytest.mark.parametrize("interaction", Interaction)
def test_how_qkd_and_pqc_work_together_is_the_links_own_choice(interaction: Interaction) -> None:
    assert on(crown.with_link(interaction=interaction)).interaction is interaction
    assert on(crown.with_link(interaction=interaction, path=PathType.FIELD)).interaction is None


@pytest.mark.proves("R120")
def test_each_type_of_path_starts_from_a_pattern_of_its_own() -> None:
    patterns = {path: on(crown.with_link(path=path)).pattern for path in PathType}
    assert patterns[PathType.DC_DC] is Pattern.PQC_QKD
    assert patterns[PathType.BRANCH_CORE] is patterns[PathType.DEVICE_CLOUD] is patterns[PathType.FIELD] is Pattern.PQC


@pytest.mark.proves("R121")
def test_a_third_party_segment_keeps_qkd_out_and_asks_for_evidence() -> None:
    found = on(SHUT["control"]())
    assert any(f.requirement == "R121" and "ask" in f.hint for f in found.findings)


@pytest.mark.proves("R122")
def test_a_path_that_changes_gets_pqc_on_classical_transport_first() -> None:
    found = on(SHUT["stable"]())
    assert found.pattern is Pattern.PQC
    assert any(f.requirement == "R122" for f in found.findings)


@pytest.mark.proves("R072")
def test_one_estate_gets_at_least_three_different_patterns() -> None:
    links = {
        "public": msgspec.structs.replace(crown.LINK, carries=("public",)),
        "branch": msgspec.structs.replace(crown.LINK, path=PathType.BRANCH_CORE),
        "crown": crown.LINK,
        "pad": msgspec.structs.replace(crown.LINK, otp_bytes_per_day=1e5),
    }
    classes = {"secret": crown.SECRET, "public": DataClass(horizon_years=0.0, impact=Impact.LOW)}
    estate = crown.estate(links=links, classes=classes)
    assert len({decided(estate, name).pattern for name in links}) == 4


IMPACTS = st.sampled_from(Impact)
YEARS = st.floats(0, 60)
SPOILT = st.sampled_from(["", *SHUT])


@pytest.mark.proves("R070")
@settings(max_examples=60, deadline=None)
@given(SPOILT, YEARS, YEARS, IMPACTS, IMPACTS)
def test_more_years_or_more_impact_never_take_a_layer_away(
    spoilt: str, one: float, other: float, less: Impact, more: Impact
) -> None:
    estate = SHUT[spoilt]() if spoilt else crown.estate()
    ranks = list(Impact)
    low, high = sorted((less, more), key=ranks.index)
    short, long = sorted((one, other))

    def layers(years: float, impact: Impact) -> int:
        worth = DataClass(horizon_years=years, impact=impact)
        return len(on(msgspec.structs.replace(estate, classes={"secret": worth})).pattern.layers)

    assert layers(short, low) <= layers(long, low) <= layers(long, high)
    assert layers(short, low) <= layers(short, high)


@pytest.mark.proves("R075")
@settings(max_examples=30, deadline=None)
@given(SPOILT, st.text("abcdefghijklmnop", min_size=1, max_size=12), st.text(max_size=20))
def test_names_of_links_products_and_makers_change_nothing(spoilt: str, name: str, maker: str) -> None:
    estate = SHUT[spoilt]() if spoilt else crown.with_device()
    link = msgspec.structs.replace(
        estate.links["l"], devices=tuple(f"{name}-{each}" for each in estate.links["l"].devices)
    )
    devices = {f"{name}-{k}": msgspec.structs.replace(v, vendor=maker) for k, v in estate.devices.items()}
    renamed = msgspec.structs.replace(estate, links={name: link}, devices=devices)
    before, after = decided(estate, "l"), decided(renamed, name)
    assert before.pattern is after.pattern
    assert [(f.rule.key, f.answer) for f in before.fired] == [(f.rule.key, f.answer) for f in after.fired]


CONTROLS = st.lists(st.sampled_from(["HSM", "MFA", "network segmentation", *Layer]), max_size=4, unique=True)


@pytest.mark.proves("R014", "R018")
@given(CONTROLS, st.lists(st.sampled_from(Family), max_size=3), st.sampled_from(Pattern))
def test_a_plan_never_takes_a_control_away(controls: list[str], families: list[Family], pattern: Pattern) -> None:
    link = Link(
        ends=("a", "b"), controls=tuple(controls), protocols=tuple(Protocol(name=f, cipher="x") for f in families)
    )
    planned = change(link, pattern)
    assert removed(link, planned) == ()
    assert set(pattern.layers) <= set(planned.after)


def test_the_validator_sees_a_control_that_is_missing() -> None:
    planned = change(msgspec.structs.replace(crown.LINK, controls=()), Pattern.PQC)
    assert removed(crown.LINK, planned) == ("HSM",)


def test_every_rule_names_a_requirement_and_keys_are_unique() -> None:
    rules = [*BASELINES, *GATES, *RAISES]
    assert len({rule.key for rule in rules}) == len(rules)
    assert all(rule.requirement.startswith("R") and rule.asks.endswith("?") for rule in rules)
