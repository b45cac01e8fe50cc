"""The roadmap has one order; an estate that plans another is rejected."""

from __future__ import annotations

from datetime import date

import pytest
from governed import GOVERNANCE, PATTERNS, governed, in_order
from msgspec.structs import replace

from keystrand.plan.governance import Milestone
from keystrand.plan.pattern import Pattern
from keystrand.plan.roadmap import roadmap


@pytest.mark.proves("R149")
def test_the_steps_come_in_the_order_of_the_guide() -> None:
    plan = roadmap(governed(milestones=in_order()), PATTERNS)
    names = [leg.step.name for leg in plan.legs]
    assert [n for n in names if n in ("inventory", "pqc", "key-manager", "observability", "pilot", "production")] == [
        "inventory",
        "pqc",
        "key-manager",
        "observability",
        "pilot",
        "production",
    ]
    for leg in plan.legs:
        assert all(names.index(earlier) < names.index(leg.step.name) for earlier in leg.step.after)
    assert not plan.is_rejected
    assert next(leg for leg in plan.legs if leg.step.name == "pilot").links == ("core",)


@pytest.mark.proves("R149", "R094")
@pytest.mark.parametrize(
    ("late", "row"),
    [("inventory", "R149"), ("pqc", "R149"), ("key-manager", "R149"), ("observability", "R094"), ("lab", "R149")],
)
def test_a_pilot_before_what_it_stands_on_is_rejected(late: str, row: str) -> None:
    moved = {**in_order(), late: Milestone(starts=date(2040, 1, 1), ends=date(2041, 1, 1))}
    plan = roadmap(governed(milestones=moved), PATTERNS)
    assert plan.is_rejected
    assert row in [finding.requirement for finding in plan.findings]
    undated = {name: dates for name, dates in in_order().items() if name != late}
    assert roadmap(governed(milestones=undated), PATTERNS).is_rejected


@pytest.mark.proves("R126")
def test_who_says_to_be_further_than_the_gates_is_contradicted() -> None:
    plan = roadmap(governed(replies={}, stage="production"), PATTERNS)
    assert plan.is_rejected
    assert any("gate into pilot is shut" in finding.says for finding in plan.findings)
    assert roadmap(governed(stage="moon"), PATTERNS).is_rejected


@pytest.mark.proves("R008")
def test_more_pilots_than_the_limit_are_told() -> None:
    many = replace(governed(), pilots_max=0)
    assert [finding.requirement for finding in roadmap(many, PATTERNS).findings] == ["R008"]


@pytest.mark.proves("R150")
def test_an_estate_without_qkd_has_a_roadmap_without_pilots() -> None:
    plan = roadmap(governed(stage="pqc"), dict.fromkeys(PATTERNS, Pattern.PQC))
    names = [leg.step.name for leg in plan.legs]
    assert "pilot" not in names
    assert names[-1] == "review"
    assert not plan.is_rejected
    assert GOVERNANCE.stage == "pilot"
