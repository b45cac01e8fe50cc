"""Vendors: evidence and its age, unknown as an interval, knock-outs, flags, this estate, and what would change the winner."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.plan.acceptability import acceptability, missing_evidence, ranked, reversals
from keystrand.plan.answers import Answers, Disposition, Evidence, Level, Product, Reply, questionnaire
from keystrand.plan.estate import (
    DataClass,
    Device,
    DeviceKind,
    Estate,
    FailurePolicy,
    Link,
    Medium,
    Segment,
    Site,
)
from keystrand.plan.fact import Answer, Span
from keystrand.plan.finding import Finding, Severity
from keystrand.plan.vendors import Assessment, Probe, assess, fit, weight_of, weights_of

DAY = date(2026, 11, 28)
NAMES = [c.name for c in questionnaire().criteria]
PROOF = Evidence(product="p", what="lab report", level=Level.PROVEN, dated=DAY, reference="L-1")


def full(score: float = 3.0, **more: Reply) -> dict[str, Reply]:
    """Every question answered alike."""
    plain = Reply(score=score, says="it does", evidence=("proof",), contract="annex B", threats=("harvest-now",))
    return dict.fromkeys(NAMES, plain) | {name.replace("_", "-"): reply for name, reply in more.items()}


PRODUCT = Product(
    vendor="v",
    kind=DeviceKind.DV_QKD,
    interfaces=("etsi014",),
    loss_db_max=15.0,
    fails=(FailurePolicy.CLOSED,),
    exit_cost=(1_000.0, 2_000.0),
    parts={part.name: Answer.YES for part in questionnaire().parts},
    residency=dict.fromkeys(("control", "data", "telemetry", "support"), ("CH",)),
    answers=full(),
)


def answers(*products: Product, **more: object) -> Answers:
    named = {"pqrs"[at]: product for at, product in enumerate(products)}
    evidence = {"proof": PROOF} | {
        f"proof-{name}": msgspec.structs.replace(PROOF, product=name) for name in list(named)[1:]
    }
    return Answers(name="e", reviewed=DAY, products=named, evidence=evidence, **more)  # type: ignore[arg-type]


def changed(product: Product = PRODUCT, **fields: object) -> Product:
    return msgspec.structs.replace(product, **fields)


def assessed(product: Product, **more: object) -> Assessment:
    return assess(answers(product), "p", **more)  # type: ignore[arg-type]


def score(found: Assessment, given: Answers | None = None) -> Span:
    return found.score(weights_of(given or answers(PRODUCT)))


def rows(found: Assessment, requirement: str) -> list[Finding]:
    return [f for f in found.findings if f.requirement == requirement]


@pytest.mark.proves("R128")
def test_every_question_has_points_and_a_level_of_evidence() -> None:
    found = assessed(PRODUCT)
    assert [mark.criterion.name for mark in found.marks] == NAMES
    assert {"kms", "hsm", "encryptors", "automation"} <= {
        m.criterion.name for m in found.marks if m.criterion.requirement == "R128"
    }
    assert {mark.rank for mark in found.marks} == {4}
    assert score(found).low == pytest.approx(3.0)
    assert found.is_eligible
    assert found.findings == ()


@pytest.mark.proves("R132")
@pytest.mark.parametrize("name", NAMES)
def test_unknown_is_an_interval_neither_zero_nor_left_out(name: str) -> None:
    less = dict(full())
    del less[name]
    unknown, zero = (
        assessed(changed(answers=less)),
        assessed(changed(answers=full() | {name: Reply(score=0.0, says="no")})),
    )
    mark = next(m for m in unknown.marks if m.criterion.name == name)
    assert (mark.points, mark.rank, mark.score) == (Span(0.0, 0.5, 1.0), 0, None)
    assert score(zero).high == pytest.approx(score(unknown).low)
    assert score(unknown).low < score(unknown).likely < score(unknown).high
    assert score(unknown).high < score(assessed(PRODUCT)).low
    assert any(f.says.startswith("unknown, which is not yes") for f in unknown.findings) or name == "topology"


@pytest.mark.proves("R140")
def test_evidence_loses_half_of_what_it_has_above_a_claim_with_each_half_life() -> None:
    ages = [
        weight_of(msgspec.structs.replace(PROOF, dated=DAY - timedelta(days=730 * n)), DAY, 730.0) for n in range(3)
    ]
    assert ages == pytest.approx([1.0, 0.25 + 0.375, 0.25 + 0.1875])
    levels = [weight_of(msgspec.structs.replace(PROOF, level=level), DAY, 730.0) for level in Level]
    assert levels == [0.25, 0.5, 0.75, 1.0]
    old = answers(PRODUCT)
    old = msgspec.structs.replace(old, evidence={"proof": msgspec.structs.replace(PROOF, dated=date(2020, 1, 1))})
    assert {f.requirement for f in assess(old, "p").findings} == {"R140"}


@pytest.mark.proves("R135")
def test_evidence_of_another_product_is_not_counted_and_blocks() -> None:
    other = changed(answers=full(kms=Reply(score=4.0, says="see our other line", evidence=("proof",), contract="c")))
    given = answers(PRODUCT, other)
    found = assess(given, "q")
    mark = next(m for m in found.marks if m.criterion.name == "kms")
    assert mark.points == Span.point(1.0)
    assert [f.severity for f in rows(found, "R135")] == [Severity.BLOCKING] * len(NAMES)


@pytest.mark.proves("R075")
@settings(max_examples=20, deadline=None)
@given(
    st.text(max_size=20),
    st.text(max_size=20),
    st.lists(st.text("abc-", min_size=1), min_size=2, max_size=2, unique=True),
)
def test_a_label_or_a_name_changes_no_score(label: str, vendor: str, names: list[str]) -> None:
    second = changed(answers=full(2.0))
    before = [assess(answers(PRODUCT, second), name) for name in "pq"]
    renamed = Answers(
        name="e",
        reviewed=DAY,
        products=dict(zip(names, (changed(label=label, vendor=vendor), second), strict=True)),
        evidence={"proof": msgspec.structs.replace(PROOF, product=names[0])},
    )
    after = [assess(renamed, name) for name in names]
    weights = weights_of(renamed)
    assert [a.score(weights) for a in after] == [b.score(weights) for b in before]
    assert list(acceptability(after, weights, draws=200).values()) == list(
        acceptability(before, weights, draws=200).values()
    )


@pytest.mark.proves("R074")
def test_a_source_of_random_numbers_reduces_no_risk_of_key_distribution() -> None:
    qrng = assessed(changed(kind=DeviceKind.QRNG, label="Quantum Encryptor"))
    mark = next(m for m in qrng.marks if m.criterion.name == "attack-class")
    assert mark.points == Span.point(0.0)
    assert "distribute" in mark.why
    assert len(rows(qrng, "R074")) == 1
    assert score(qrng).high < score(assessed(PRODUCT)).low


@pytest.mark.proves("R073")
def test_a_product_is_taken_apart_and_a_part_nobody_knows_is_a_finding() -> None:
    parts = {part.name: Answer.YES for part in questionnaire().parts} | {"policy-rotation": Answer.UNKNOWN}
    assert [f.place for f in rows(assessed(changed(parts=parts)), "R073")] == ["products.p.parts.policy-rotation"]
    assert len(rows(assessed(changed(parts={})), "R073")) == 4


@pytest.mark.proves("R138", "R139")
@pytest.mark.parametrize("name", [c.name for c in questionnaire().criteria if c.knock_out])
def test_an_open_question_of_security_or_exit_knocks_out(name: str) -> None:
    good = full()[name]
    for reply in (Reply(score=4.0), msgspec.structs.replace(good, score=0.0)):
        found = assessed(changed(answers=full() | {name: reply}))
        assert not found.is_eligible
        assert found.knocked_out[0].startswith(f"{name}: not ")
        assert ranked([found], weights_of(answers(PRODUCT))) == []


@pytest.mark.proves("R139")
def test_an_attack_class_is_held_against_the_table_of_threats() -> None:
    none = assessed(changed(answers=full(attack_class=Reply(score=4.0, says="all attacks"))))
    assert none.knocked_out == ("attack-class: names no threat that it reduces",)
    odd = Reply(score=4.0, says="everything", threats=("endpoint", "gremlins", "harvest-now"), evidence=("proof",))
    said = [f.says for f in rows(assessed(changed(answers=full(attack_class=odd))), "R139")]
    assert said == [
        "claims to reduce 'endpoint', which no layer on a link reduces",
        "'gremlins' is no threat of the table",
    ]


@pytest.mark.proves("R131")
def test_an_exit_cost_has_to_be_filled_in() -> None:
    assert assessed(changed(exit_cost=None)).knocked_out == ("exit cost: not filled in",)
    found = assessed(PRODUCT)
    assert found.exit_cost is not None
    assert found.exit_cost.span == Span(1_000.0, 1_500.0, 2_000.0)


@pytest.mark.proves("R133")
@pytest.mark.parametrize("name", [c.name for c in questionnaire().criteria if c.requirement == "R133"])
def test_a_promise_outside_the_contract_is_a_claim(name: str) -> None:
    loose = msgspec.structs.replace(full()[name], contract="")
    found = assessed(changed(answers=full() | {name: loose}))
    assert next(m for m in found.marks if m.criterion.name == name).weight_of_evidence == 0.25
    assert [f.place for f in rows(found, "R133")] == [f"products.p.answers.{name}.contract"]


@pytest.mark.proves("R136")
@pytest.mark.parametrize(
    ("pitch", "flag"),
    [
        ("The instant quantum Internet", "instant-network"),
        ("Universal quantum security", "universal-reach"),
        ("An unbreakable link", "absolute-security"),
        ("Run by our proprietary control protocol", "proprietary-control"),
        ("Only works with our optical shelf", "tied-hardware"),
        ("A cloud-managed service", "opaque-telemetry"),
        ("It never fails", "no-partial-failure"),
        ("Quantum-generated keys", "qrng-as-qkd"),
        ("From the same team behind our radios", "borrowed-expertise"),
        ("Quantum-grade security", "branding"),
        ("No recovery needed", "no-recovery"),
    ],
)
def test_a_red_flag_blocks_until_a_reviewer_has_looked(pitch: str, flag: str) -> None:
    found = rows(assessed(changed(pitch=(pitch,))), "R136")
    assert [f.says.split(":")[0] for f in found] == [f"red flag {flag}"]
    assert found[0].severity is Severity.BLOCKING
    seen = changed(pitch=(pitch,), dispositions={flag: Disposition(by="r", on=DAY, says="asked, and withdrawn")})
    assert rows(assessed(seen), "R136") == []


@pytest.mark.proves("R137")
def test_candour_counts_for_a_vendor() -> None:
    items = [c.name for c in questionnaire().criteria if c.requirement == "R137"]
    assert items == ["narrow-deployments", "stated-bounds", "stated-constraints", "pilot-criteria"]
    silent = {name: reply for name, reply in full().items() if name not in items}
    assert score(assessed(changed(answers=silent))).high < score(assessed(PRODUCT)).low


@pytest.mark.proves("R141")
def test_the_questions_of_the_platform_are_asked_of_everybody() -> None:
    asked = {"control-plane", "dependencies", "partial-failure"}
    left = {name: reply for name, reply in full().items() if name not in asked}
    assert {f.place.rsplit(".", 1)[1] for f in rows(assessed(changed(answers=left)), "R141")} == asked


@pytest.mark.proves("R142")
def test_health_of_a_project_decays_like_all_evidence() -> None:
    def points(years: int) -> float:
        old = msgspec.structs.replace(PROOF, dated=DAY - timedelta(days=365 * years))
        found = assess(msgspec.structs.replace(answers(PRODUCT), evidence={"proof": old}), "p")
        return next(m for m in found.marks if m.criterion.name == "releases").points.likely

    assert points(0) > points(2) > points(6) > 0.75


FIBRE = Segment(medium=Medium.DARK_FIBRE, loss_db=(10.0, 12.0))
LINK = Link(ends=("a", "b"), segments=(FIBRE,), on_exhaustion=FailurePolicy.CLOSED, carries=("c",), devices=("kms",))
ESTATE = Estate(
    name="e",
    planned=DAY,
    sites={"a": Site(), "b": Site()},
    links={"l": LINK},
    classes={"c": DataClass()},
    devices={"kms": Device(kind=DeviceKind.KMS, interfaces=("etsi014",))},
)


def with_link(**fields: object) -> Estate:
    return msgspec.structs.replace(ESTATE, links={"l": msgspec.structs.replace(LINK, **fields)})


@pytest.mark.proves("R130")
@pytest.mark.parametrize(
    ("estate", "product", "expected"),
    [
        (ESTATE, PRODUCT, Answer.YES),
        (ESTATE, changed(loss_db_max=5.0), Answer.NO),
        (ESTATE, changed(loss_db_max=11.0), Answer.UNKNOWN),
        (ESTATE, changed(loss_db_max=None), Answer.UNKNOWN),
        (ESTATE, changed(interfaces=("files",)), Answer.NO),
        (ESTATE, changed(interfaces=()), Answer.UNKNOWN),
        (ESTATE, changed(fails=(FailurePolicy.OPEN,)), Answer.NO),
        (ESTATE, changed(fails=None), Answer.UNKNOWN),
        (with_link(on_exhaustion=FailurePolicy.UNANSWERED), PRODUCT, Answer.UNKNOWN),
        (with_link(segments=(Segment(medium=Medium.DARK_FIBRE),)), PRODUCT, Answer.UNKNOWN),
        (ESTATE, changed(kind=DeviceKind.ENCRYPTOR, loss_db_max=None), Answer.YES),
    ],
)
def test_a_product_is_held_against_the_links_of_this_estate(estate: Estate, product: Product, expected: Answer) -> None:
    assert fit(product, estate, "l").answer is expected
    mark = next(m for m in assessed(product, estate=estate, links=["l"]).marks if m.criterion.name == "topology")
    bounds = {Answer.YES: (4.0, 4.0), Answer.NO: (0.0, 0.0), Answer.UNKNOWN: (0.0, 4.0)}[expected]
    assert mark.score is not None
    assert (mark.score.low, mark.score.high) == bounds


@pytest.mark.proves("R134")
def test_residency_is_held_against_where_data_may_lie() -> None:
    bound = msgspec.structs.replace(ESTATE, classes={"c": DataClass(geography=("CH",))})
    assert rows(assessed(PRODUCT, estate=bound, links=["l"]), "R134") == []
    abroad = changed(residency=dict(PRODUCT.residency) | {"telemetry": ("US",), "support": ()})
    found = rows(assessed(abroad, estate=bound, links=["l"]), "R134")
    assert [(f.severity, f.place.rsplit(".", 1)[1]) for f in found] == [
        (Severity.WARNING, "support"),
        (Severity.BLOCKING, "telemetry"),
    ]
    assert "c may not leave CH" in found[1].says


@pytest.mark.proves("R129")
def test_a_conformance_report_overrules_what_was_said() -> None:
    found = assess(answers(PRODUCT), "p", probes={"proof": Probe(passed=30, failed=10)})
    mark = next(m for m in found.marks if m.criterion.name == "standard-interfaces")
    assert (mark.score, mark.why) == (Span.point(3.0), "30 cases passed, 10 failed")


def pair(**second: Reply) -> tuple[list[Assessment], dict[str, float]]:
    """p is a little better all over; q has an answer or two of its own."""
    proof = {n: msgspec.structs.replace(r, evidence=("proof-q",)) for n, r in full(2.8).items()}
    own = {n.replace("_", "-"): msgspec.structs.replace(r, evidence=("proof-q",)) for n, r in second.items()}
    given = answers(PRODUCT, changed(answers=proof | own))
    return [assess(given, name) for name in "pq"], weights_of(given)


def test_the_better_in_everything_is_first_under_all_weights() -> None:
    found, weights = pair()
    assert acceptability(found, weights, draws=500) == {"p": (1.0, 0.0), "q": (0.0, 1.0)}
    assert reversals(found, weights) == ()


def test_ranks_depend_on_weights_where_answers_differ_and_shares_add_up() -> None:
    found, weights = pair(trust_assumptions=Reply(score=4.0, says="few"), kms=Reply(score=4.0, says="any"))
    shares = acceptability(found, weights)
    assert 0.05 < shares["q"][0] < 0.95
    assert [sum(row) for row in shares.values()] == pytest.approx([1.0, 1.0])
    assert shares == acceptability(found, weights)
    assert shares != acceptability(found, weights, seed=2)


def test_equal_answers_share_the_first_rank() -> None:
    one = assessed(PRODUCT)
    shares = acceptability([one, replace(one, product="twin")], weights_of(answers(PRODUCT)), draws=200)
    assert shares == {"p": (1.0, 0.0), "twin": (1.0, 0.0)}


def test_at_the_weight_of_a_reversal_both_are_equal_and_beyond_it_the_other_wins() -> None:
    found, weights = pair(trust_assumptions=Reply(score=4.0, says="few"))
    turn = reversals(found, weights)[0]
    assert (turn.criterion, turn.winner) == ("trust-assumptions", "q")

    def gap(weight: float) -> float:
        moved = weights | {turn.criterion: weight}
        return found[0].score(moved).likely - found[1].score(moved).likely

    assert gap(turn.weight) > 0
    assert gap(turn.becomes) == pytest.approx(0, abs=1e-12)
    assert gap(turn.becomes * 1.01) < 0
    assert turn.change == pytest.approx(turn.becomes / turn.weight - 1)


def test_the_most_informative_evidence_is_what_could_change_the_winner() -> None:
    found, weights = pair(
        attack_class=Reply(says="secret", threats=("harvest-now",)), spares=Reply(says="some", contract="c")
    )
    wishes = missing_evidence(found, weights)
    assert [w.criterion for w in wishes] == []  # even the best answer to either would not do
    close = [replace(found[0], marks=tuple(_less(m) for m in found[0].marks)), found[1]]
    wishes = missing_evidence(close, weights)
    assert wishes[0].criterion == "attack-class"
    assert wishes[0].product == "q"
    assert [w.gain for w in wishes] == sorted((w.gain for w in wishes), reverse=True)


def _less(mark: object) -> object:
    return replace(mark, score=Span.point(2.6))  # type: ignore[type-var]


def test_every_criterion_cites_its_row_and_weights_can_be_changed() -> None:
    assert all(c.weight > 0 and c.requirement.startswith("R1") for c in questionnaire().criteria)
    assert weights_of(answers(PRODUCT, weights={"kms": 9.0}))["kms"] == 9.0
