"""Gates: what is not answered, not measured or in the wrong hands keeps them shut, with its own text."""

from __future__ import annotations

from datetime import date

import pytest
from governed import CORE, GOVERNANCE, PATTERNS, governed, with_core
from msgspec.structs import replace

from keystrand.plan.estate import Device, Estate, FailurePolicy
from keystrand.plan.fact import Answer
from keystrand.plan.gates import Gate, gates, prerequisites
from keystrand.plan.governance import Reply
from keystrand.plan.pattern import Pattern
from keystrand.plan.questions import questions
from keystrand.plan.stages import Stage, stages


def into(stage: Stage, estate: Estate, patterns: dict[str, Pattern] = PATTERNS) -> Gate:
    return next(gate for gate in gates(estate, patterns) if gate.into is stage)


def said(gate: Gate) -> str:
    return "\n".join(finding.says for finding in gate.blocks)


@pytest.mark.proves("R109", "R126")
def test_where_everything_is_answered_and_measured_every_gate_is_open() -> None:
    assert [(gate.into, said(gate)) for gate in gates(governed(), PATTERNS)] == [
        (Stage.PQC, ""),
        (Stage.PILOT, ""),
        (Stage.PRODUCTION, ""),
    ]


@pytest.mark.proves("R058", "R109")
@pytest.mark.parametrize("question", [q for q in questions() if q.reply], ids=lambda question: question.name)
def test_a_decision_that_nobody_took_blocks_its_gate_with_its_text(question) -> None:  # type: ignore[no-untyped-def]
    for given in (None, Reply(), Reply(answer="yes"), Reply(answer="yes", by="anna")):
        replies = {name: reply for name, reply in GOVERNANCE.replies.items() if name != question.name}
        given_now = replies if given is None else {**replies, question.name: given}
        estate = governed(replies=given_now, first_key=None)
        (found,) = into(Stage(question.gate), estate).blocks
        assert found.says.startswith(question.text)
        assert found.requirement == question.requirement


@pytest.mark.proves("R020")
def test_a_review_without_a_link_to_its_evidence_keeps_production_shut() -> None:
    reviews = [question for question in questions() if question.evidence]
    assert {question.name.removeprefix("review-") for question in reviews} == {
        "monitoring",
        "change-control",
        "incident-response",
        "vendor-support",
    }
    for question in reviews:
        for evidence in ((), ("",), (" ",)):
            unproven = replace(GOVERNANCE.replies[question.name], evidence=evidence)
            estate = governed(replies={**GOVERNANCE.replies, question.name: unproven})
            (found,) = into(Stage.PRODUCTION, estate).blocks
            assert (found.requirement, found.place) == ("R020", f"governance.replies.{question.name}")
            assert "nothing is named that shows it" in found.says
            assert into(Stage.PILOT, estate).is_open


@pytest.mark.proves("R050", "R104", "R105", "R107", "R108")
@pytest.mark.parametrize(("role", "row"), [(r, q.requirement) for q in questions() for r in q.roles])
def test_a_role_that_nobody_has_blocks_the_pilot(role: str, row: str) -> None:
    people = {
        name: replace(person, roles=tuple(r for r in person.roles if r != role))
        for name, person in GOVERNANCE.people.items()
    }
    gate = into(Stage.PILOT, governed(people=people))
    assert f"nobody has the role {role}" in said(gate)
    assert row in [finding.requirement for finding in gate.blocks]


@pytest.mark.proves("R006", "R051", "R053", "R106")
@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({"rekey_s": None}, "R051"),
        ({"on_exhaustion": FailurePolicy.UNANSWERED}, "R053"),
        ({"fallback_by": ""}, "R106"),
        ({"fallback_within_s": None}, "R106"),
        ({"rotation_tested": Answer.UNKNOWN}, "R006"),
        ({"rotation_tested": Answer.NO}, "R006"),
        ({"transport_encrypted": Answer.UNKNOWN}, "R006"),
        ({"key_store": Answer.NO}, "R003"),
    ],
)
def test_what_a_pilot_link_does_not_answer_blocks_the_pilot(change: dict[str, object], row: str) -> None:
    estate = with_core(**change)
    (found,) = into(Stage.PILOT, estate).blocks
    assert found.requirement == row
    assert found.place.startswith("links.core.")
    assert found in prerequisites(estate, "core")


@pytest.mark.proves("R055")
def test_a_class_without_retention_blocks_the_pilot_that_carries_it() -> None:
    estate = governed()
    classes = {name: replace(data, retention_days=None) for name, data in estate.classes.items()}
    (found,) = into(Stage.PILOT, replace(estate, classes=classes)).blocks
    assert (found.requirement, found.place) == ("R055", "classes.records.retention_days")


@pytest.mark.proves("R058")
def test_one_person_does_not_sign_for_two_functions() -> None:
    replies = {**GOVERNANCE.replies, "sign-off-risk": replace(GOVERNANCE.replies["sign-off-risk"], by="clara")}
    (found,) = into(Stage.PILOT, governed(replies=replies)).blocks
    assert found.requirement == "R058"
    assert "both by clara" in found.says


@pytest.mark.proves("R114")
def test_network_engineering_and_security_policy_are_two_people() -> None:
    anna = GOVERNANCE.people["anna"]
    people = {**GOVERNANCE.people, "anna": replace(anna, roles=(*anna.roles, "network-engineering"))}
    assert "both network-engineering and security-policy" in said(into(Stage.PILOT, governed(people=people)))


@pytest.mark.proves("R111")
def test_contacts_are_there_and_were_tried_lately() -> None:
    for change, text in (
        ({"contact": ""}, "has no contact"),
        ({"contact_checked": None}, "nobody has tried"),
        ({"contact_checked": date(2026, 1, 1)}, "reached last on 2026-01-01"),
    ):
        people = {**GOVERNANCE.people, "dora": replace(GOVERNANCE.people["dora"], **change)}
        assert any(text in finding.says for finding in into(Stage.PILOT, governed(people=people)).findings)


@pytest.mark.proves("R112")
def test_a_drill_that_is_overdue_is_a_finding() -> None:
    late = {**GOVERNANCE.drills, "link-cut": date(2026, 6, 1)}
    del late["restore"]
    found = [f for f in into(Stage.PRODUCTION, governed(drills=late)).findings if f.requirement == "R112"]
    assert ["due since 2026-09-01" in found[0].says, "never held" in found[1].says] == [True, True]
    assert into(Stage.PRODUCTION, governed()).findings == ()


@pytest.mark.proves("R115")
@pytest.mark.parametrize("on", [None, date(2026, 10, 1), date(2026, 11, 1)])
def test_decisions_come_before_the_first_key(on: date | None) -> None:
    replies = {**GOVERNANCE.replies, "custody": Reply(answer="exported nightly", by="dora", on=on)}
    found = into(Stage.PILOT, governed(replies=replies)).blocks
    assert [finding.requirement for finding in found] == ["R115"]
    assert into(Stage.PILOT, governed(replies=replies, first_key=None)).is_open


@pytest.mark.proves("R126")
@pytest.mark.parametrize(
    "criterion", [c for stage in stages() for c in stage.leave if c.measure in GOVERNANCE.measures]
)
def test_a_figure_that_is_missing_assumed_or_short_of_its_bound_blocks(criterion) -> None:  # type: ignore[no-untyped-def]
    stated = GOVERNANCE.measures[criterion.measure]
    assumed = {**GOVERNANCE.measures, criterion.measure: stated.likely}
    short = {**GOVERNANCE.measures, criterion.measure: replace(stated, likely=-1.0 if criterion.most is None else 1e9)}
    missing = {name: value for name, value in GOVERNANCE.measures.items() if name != criterion.measure}
    for measures, text in ((assumed, "only assumed"), (short, "is reached"), (missing, "nobody has measured it")):
        blocks = [f for gate in gates(governed(measures=measures), PATTERNS) for f in gate.blocks]
        assert [finding.requirement for finding in blocks] == [criterion.requirement]
        assert text in blocks[0].says


@pytest.mark.proves("R094")
def test_no_pilot_before_the_metrics_pipeline_has_shown_itself_a_fault() -> None:
    measures = {name: value for name, value in GOVERNANCE.measures.items() if name != "metrics_self_test"}
    assert [finding.requirement for finding in into(Stage.PILOT, governed(measures=measures)).blocks] == ["R094"]


def test_a_range_has_to_be_on_the_good_side_as_a_whole() -> None:
    wide = replace(GOVERNANCE.measures["key_availability"], likely=None, low=0.99, high=1.0)
    gate = into(Stage.PRODUCTION, governed(measures={**GOVERNANCE.measures, "key_availability": wide}))
    assert "0.99 to 1 is reached" in said(gate)


@pytest.mark.proves("R080")
def test_what_is_experimental_stays_out_of_production() -> None:
    estate = replace(governed(), devices={"pair": Device(kind="dv-qkd", maturity="experimental")})
    assert [finding.requirement for finding in into(Stage.PRODUCTION, estate).blocks] == ["R080"]
    assert into(Stage.PILOT, estate).is_open


def test_shares_are_counted_from_the_estate() -> None:
    estate = governed()
    links = {**estate.links, "branch": replace(estate.links["branch"], carries=(), protocols=())}
    blocks = into(Stage.PQC, replace(estate, links=links)).blocks
    assert [finding.requirement for finding in blocks] == ["R116", "R067"]
    classical = replace(CORE, protocols=(replace(CORE.protocols[0], negotiated=("x25519",)),))
    gate = into(Stage.PILOT, replace(estate, links={**estate.links, "core": classical}))
    assert [finding.requirement for finding in gate.blocks] == ["R069"]


@pytest.mark.proves("R059", "R150")
def test_without_qkd_no_question_of_qkd_is_asked() -> None:
    patterns = dict.fromkeys(PATTERNS, Pattern.PQC)
    bare = governed(replies={"pqc-owner": GOVERNANCE.replies["pqc-owner"]}, people={})
    assert into(Stage.PILOT, bare, patterns).is_open
    assert not into(Stage.PILOT, bare).is_open
