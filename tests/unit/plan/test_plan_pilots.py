"""Few pilots, ranked without a score; what QKD everywhere would be; what would change a decision."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from tests.unit.plan import crown

from keystrand.plan import outcome, pilots
from keystrand.plan.decide import decided
from keystrand.plan.estate import Control, Estate, Impact, Link, Medium, PathType, Segment, Site
from keystrand.plan.fact import Answer
from keystrand.plan.flips import Flip, flips
from keystrand.plan.pattern import Pattern
from keystrand.plan.pilots import Plan, decide_all, everywhere
from keystrand.plan.tariffs import Tariffs
from keystrand.plan.whole import whole

SIGNED = {name: Site(jurisdiction="CH", signed_off_by="head of facilities") for name in "ab"}


def estate(count: int = 3, **fields: object) -> Estate:
    return crown.estate(links={f"l{n}": crown.LINK for n in range(count)}, sites=SIGNED, **fields)


def order(plan: Plan) -> list[str]:
    return [each.link for each in plan.ranked]


@pytest.mark.proves("R008")
def test_pilots_are_capped_and_the_rest_keeps_pqc_for_now() -> None:
    plan = decide_all(crown.answered(estate(5, pilots_max=2)))
    assert plan.pilots == ("l0", "l1")
    assert [plan.now(name) for name in plan.decisions] == [Pattern.PQC_QKD] * 2 + [Pattern.PQC] * 3
    (finding,) = plan.findings
    assert finding.requirement == "R008"
    assert "later: l2, l3, l4" in finding.says
    assert decide_all(estate(2, pilots_max=2)).findings == ()


@pytest.mark.proves("R008")
def test_qkd_named_on_the_whole_estate_is_answered_with_what_that_would_be() -> None:
    far = msgspec.structs.replace(
        crown.LINK,
        profile="class-ingaas",
        segments=(Segment(medium=Medium.SERVICE, control=Control.THIRD_PARTY, length_km=300.0),),
    )
    near = msgspec.structs.replace(crown.LINK, profile="class-snspd")
    links = {"near": near} | {f"far{n}": far for n in range(6)}
    plan = decide_all(crown.estate(links=links))
    warning = next(f for f in plan.findings if f.where == ("links",))
    assert "7 of 7 links: 6 are infeasible" in warning.says
    assert "cost unknown: " in warning.says  # no tariff is stated, and none is made up
    every = everywhere(crown.estate(links=links), plan.feasibilities)
    assert (every.feasible, every.infeasible, every.unknown) == (1, 6, 0)
    money = {field: 1000.0 for field in Tariffs.__struct_fields__ if field not in ("years", "support_share_per_year")}
    tariffs = Tariffs(**money, support_share_per_year=0.1)
    every = everywhere(crown.estate(links=links, tariffs=tariffs, currency="CHF"), plan.feasibilities)
    assert "CHF over 5 years" in pilots.priced(every.cost)


@pytest.mark.proves("R008")
def test_in_the_whole_plan_only_pilots_have_qkd_and_the_others_say_that_they_wait() -> None:
    outcomes = whole(crown.answered(estate(3, pilots_max=1))).outcomes
    assert [o.pattern.has_qkd for o in outcomes] == [True, False, False]
    assert [o.reasons[-1].startswith("QKD waits") for o in outcomes] == [False, True, True]


BETTER: dict[str, Callable[[Link], Link]] = {
    "latency": lambda link: msgspec.structs.replace(link, latency_budget_ms=5.0),
    "control": lambda link: msgspec.structs.replace(
        link, segments=(msgspec.structs.replace(crown.SEGMENT, control=Control.OWNED),)
    ),
    "compliance": lambda link: msgspec.structs.replace(link, ends=("c", "d")),
    "operational maturity": lambda link: msgspec.structs.replace(link, devices=()),
}


@pytest.mark.proves("R007")
@pytest.mark.parametrize("criterion", BETTER)
def test_each_of_the_four_criteria_alone_changes_the_order(criterion: str) -> None:
    """Two links that differ in nothing; then one of them meets one criterion more."""
    segment = msgspec.structs.replace(crown.SEGMENT, control=Control.CONTRACTED)
    plain = msgspec.structs.replace(crown.LINK, segments=(segment,), devices=("trial",))
    devices = {"trial": msgspec.structs.replace(crown.MODULE, maturity="experimental")}
    sites = {name: Site(jurisdiction="CH") for name in "ab"} | {
        name: Site(jurisdiction="CH", signed_off_by="head of facilities") for name in "cd"
    }
    same = crown.estate(links={"first": plain, "second": plain}, devices=devices, sites=sites)
    assert order(decide_all(same)) == ["first", "second"]
    better = msgspec.structs.replace(same, links={"first": plain, "second": BETTER[criterion](plain)})
    plan = decide_all(better)
    assert order(plan) == ["second", "first"]
    assert [name for name, _ in plan.ranked[0].criteria] == list(BETTER)
    assert plan.ranked[0].met == plan.ranked[1].met + 1


def test_impact_comes_before_every_criterion() -> None:
    classes = {"secret": crown.SECRET, "top": msgspec.structs.replace(crown.SECRET, impact=Impact.CRITICAL)}
    top = msgspec.structs.replace(
        crown.LINK, carries=("top",), segments=(msgspec.structs.replace(crown.SEGMENT, control=Control.CONTRACTED),)
    )
    plan = decide_all(crown.estate(classes=classes, links={"plain": crown.LINK, "top": top}, sites=SIGNED))
    assert order(plan) == ["top", "plain"]


def test_a_site_whose_signature_lapsed_is_no_compliance() -> None:
    lapsed = {n: msgspec.structs.replace(site, expires=crown.TODAY.replace(year=2025)) for n, site in SIGNED.items()}
    found = decide_all(crown.estate(sites=lapsed))
    assert dict(found.ranked[0].criteria)["compliance"] is Answer.NO


def by_field(estate: Estate) -> dict[str, list[Flip]]:
    found: dict[str, list[Flip]] = {}
    for flip in flips(estate, "l"):
        found.setdefault(flip.field, []).append(flip)
    return found


def test_flip_points_are_where_the_rules_answer_otherwise() -> None:
    found = by_field(crown.with_class(horizon_years=20.0))
    (horizon,) = found["horizon_years"]
    assert (horizon.now, horizon.pattern) == ("20 years", Pattern.PQC)
    edge = float(horizon.then.split()[0])
    assert edge == pytest.approx(10.0, rel=0.011)
    assert decided(crown.with_class(horizon_years=edge), "l").pattern is Pattern.PQC
    assert decided(crown.with_class(horizon_years=edge * 1.011), "l").pattern is Pattern.PQC_QKD


@pytest.mark.parametrize("field", ["loss_db", "rekey_s"])
def test_a_flip_of_loss_or_demand_holds_when_it_is_tried(field: str) -> None:
    today = crown.estate()
    flip = by_field(today)[field][0]
    edge = float(flip.then.split()[0])
    over = 1.02 if edge > float(flip.now.split()[0]) else 1 / 1.02

    def at(value: float) -> Pattern:
        other = crown.with_segment(loss_db=value) if field == "loss_db" else crown.with_link(rekey_s=value)
        return decided(other, "l").pattern

    assert at(edge * over) is flip.pattern
    assert at(edge / over / 1.01) is Pattern.PQC_QKD
    now = float(flip.now.split()[0])
    assert flip.factor == pytest.approx(max(edge, now) / min(edge, now), rel=0.06)  # told with two digits


def test_answers_in_words_flip_too() -> None:
    found = by_field(crown.estate())
    for field in ("path", "control", "regimes", "key_store", "rotation_tested"):
        assert {flip.pattern for flip in found[field]} == {Pattern.PQC}
    assert {flip.pattern for flip in found["impact"]} == {Pattern.CLASSICAL, Pattern.PQC, Pattern.PQC_QKD_MULTI}


def test_an_answer_that_one_input_cannot_change_has_no_flip_of_it() -> None:
    estate = crown.with_link(path=PathType.BRANCH_CORE, key_store=Answer.NO)
    assert "key_store" not in by_field(estate)
    assert [f.rule.key for f in decided(estate, "l").against] == ["path", "ground"]


def test_the_relay_hazard_is_a_flip_point_of_qkd_alone_only() -> None:
    assert "assumptions.relay_per_year" not in by_field(crown.estate())
    assert (
        pytest.approx(1.468 / 299.792, rel=0.01) == pilots.FIBRE_MS_PER_KM
    )  # group index of G.652 over the speed of light


def test_a_large_estate_has_flip_points_too_and_says_so_where_none_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = whole(estate(150, pilots_max=1))
    assert large.outcomes[0].flips == flips(large.estate, "l0") != ()
    monkeypatch.setattr(outcome, "TURNED_MAX", 149)
    assert whole(estate(150, pilots_max=1)).outcomes[0].flips == ()
    assert large.outcomes[0].unturned == outcome.NOT_TURNED
