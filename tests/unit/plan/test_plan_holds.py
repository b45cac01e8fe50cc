"""A decision whose gates are unmet says so itself, and every page of the plan says the same: QKD waits, PQC is built."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.plan import crown
from tests.unit.plan.governed import GOVERNANCE

from keystrand.plan.decide import decided
from keystrand.plan.estate import Estate, FailurePolicy
from keystrand.plan.fact import Answer
from keystrand.plan.finding import blocking
from keystrand.plan.gates import UP_TO_PILOT, prerequisites
from keystrand.plan.html import html
from keystrand.plan.outcome import Plan
from keystrand.plan.pattern import Layer, Pattern
from keystrand.plan.pilots import decide_all
from keystrand.plan.questions import questions
from keystrand.plan.report import report
from keystrand.plan.rules import HOLDS
from keystrand.plan.whole import whole

READY = crown.answered(crown.estate())
ASKED = [question for question in questions() if question.gate in UP_TO_PILOT]
HELD: dict[str, tuple[str, ...]] = {  # answers that a pilot needs; the roles of those that people answer
    **{f"reply {question.name}": () for question in ASKED if question.reply},
    **{f"role {question.name}": question.roles for question in ASKED if question.roles},
    **dict.fromkeys(("rekey_s", "fallback_by", "owner", "retention_days"), ()),
}
FIGURES = ("metrics_self_test", "kms_in_service_days")


def without(estate: Estate, taken: Iterable[str]) -> Estate:
    """The estate without these answers and figures."""
    for key in taken:
        governance, link = estate.governance, estate.links["l"]
        if key in FIGURES:
            measures = {name: value for name, value in governance.measures.items() if name != key}
            estate = replace(estate, governance=replace(governance, measures=measures))
        elif key.startswith("reply"):
            replies = {name: reply for name, reply in governance.replies.items() if f"reply {name}" != key}
            estate = replace(estate, governance=replace(governance, replies=replies))
        elif key.startswith("role"):
            people = {
                name: replace(person, roles=tuple(role for role in person.roles if role not in HELD[key]))
                for name, person in governance.people.items()
            }
            estate = replace(estate, governance=replace(governance, people=people))
        elif key in ("owner", "retention_days"):
            empty = "" if key == "owner" else None
            estate = replace(estate, classes={n: replace(c, **{key: empty}) for n, c in estate.classes.items()})
        else:
            empty = "" if key == "fallback_by" else None
            estate = replace(estate, links={"l": replace(link, **{key: empty})})
    return estate


TAKEN = st.sets(st.sampled_from([*HELD, *FIGURES]), max_size=6).map(sorted)


def shut(plan: Plan) -> list[str]:
    return [finding.says for gate in plan.gates if gate.into in UP_TO_PILOT for finding in gate.blocks]


@pytest.mark.proves("R109", "R126")
def test_with_everything_answered_and_measured_nothing_waits() -> None:
    decision, plan = decided(READY, "l"), decide_all(READY)
    assert (decision.pattern, decision.now, decision.holds) == (Pattern.PQC_QKD, Pattern.PQC_QKD, ())
    assert (plan.now("l"), plan.waits) == (Pattern.PQC_QKD, {"l": ()})
    assert shut(whole(READY)) == []


@pytest.mark.proves("R109", "R050", "R058")
@pytest.mark.parametrize("key", HELD)
def test_each_answer_alone_holds_qkd_back_and_the_decision_names_its_row(key: str) -> None:
    estate = without(READY, [key])
    decision = decided(estate, "l")
    assert (decision.pattern, decision.now) == (Pattern.PQC_QKD, Pattern.PQC)
    (hold,) = decision.holds
    assert hold.rule in HOLDS
    open_ = blocking(prerequisites(estate, "l"))
    assert open_
    assert all(finding.requirement in hold.evidence for finding in open_)
    assert set(open_) <= set(decision.findings)
    assert hold.evidence in decision.why


@pytest.mark.proves("R109", "R126")
@settings(max_examples=25, deadline=None)
@given(TAKEN)
def test_every_page_says_the_same(taken: list[str]) -> None:
    """QKD is built exactly where no gate up to the pilot's is shut, and a shut one asks about the link that waits for it."""
    estate = without(READY, taken)
    plan, told = decide_all(estate), whole(estate)
    (outcome,) = told.outcomes
    assert outcome.pattern is plan.now("l") is (Pattern.PQC if taken else Pattern.PQC_QKD)
    assert outcome.meant is plan.meant("l") is Pattern.PQC_QKD
    assert bool(plan.waits["l"]) is bool(shut(told)) is bool(taken)
    assert bool(decided(estate, "l").holds) is bool(set(taken) - set(FIGURES))
    assert any(leg.links == ("l",) for leg in told.roadmap.legs if leg.step.qkd)
    waits = [reason for reason in outcome.reasons if reason.startswith("QKD waits: ")]
    assert len(waits) == len(plan.waits["l"])
    figures = [finding for gate in told.gates for finding in gate.blocks if finding.where[-1] in FIGURES]
    assert {wait.says for wait in plan.waits["l"] if wait.key == "figures"} == {finding.says for finding in figures}


@pytest.mark.proves("R018", "R070")
@settings(max_examples=25, deadline=None)
@given(TAKEN, TAKEN)
def test_answers_never_take_a_layer_away_and_what_is_missing_never_adds_one(one: list[str], more: list[str]) -> None:
    few, many = (decide_all(without(READY, taken)).now("l") for taken in (one, sorted({*one, *more})))
    assert set(many.layers) <= set(few.layers)
    assert Layer.PQC in many.layers


def test_the_report_says_on_its_first_page_that_qkd_waits() -> None:
    text = html(report(whole(without(READY, ["reply sign-off-risk"]))))
    assert "QKD would be worth its trouble on l, and waits until its gates are open" in text
    assert "QKD waits: 1 point is open: R058" in text
    assert "QKD is proposed for" not in text


def test_a_candidate_that_could_begin_comes_before_a_better_one_that_waits() -> None:
    """An answer of its own that one link lacks must not keep another from its pilot."""
    better = replace(READY.links["l"], on_exhaustion=FailurePolicy.OPEN, fallback_by="", latency_budget_ms=5.0)
    plan = decide_all(replace(READY, links={"better": better, "plain": READY.links["l"]}, pilots_max=1))
    assert [each.link for each in plan.ranked] == ["plain", "better"]
    assert [plan.now(name) for name in ("better", "plain")] == [Pattern.PQC, Pattern.PQC_QKD]
    assert [wait.key for wait in plan.waits["better"]] == ["answers", "turn"]


@pytest.mark.proves("R115")
def test_a_decision_that_came_after_the_first_key_holds_qkd_back() -> None:
    late = replace(GOVERNANCE, first_key=date(2026, 1, 1))
    assert decided(replace(READY, governance=late), "l").now is Pattern.PQC


def test_a_link_without_qkd_waits_for_nothing() -> None:
    bare = replace(crown.estate(), links={"l": replace(crown.LINK, key_store=Answer.NO)})
    decision = decided(bare, "l")
    assert (decision.now, decision.holds) == (Pattern.PQC, ())
    assert not any(finding.requirement == "R050" for finding in decision.findings)
