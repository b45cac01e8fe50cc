"""The sample estates: each loads without a fault, gets the recommendations that it was written for, and a whole report."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.config.load import estate_faults, load_estate
from keystrand.plan.check import Domain, findings, readiness
from keystrand.plan.claims import offences
from keystrand.plan.finding import Severity
from keystrand.plan.outcome import Plan
from keystrand.plan.pattern import Layer, Pattern
from keystrand.plan.whole import whole

FOLDER = Path(__file__).parents[3] / "examples" / "estates"
PLANS = {path.stem: whole(load_estate(path)) for path in sorted(FOLDER.glob("*.toml"))}

EXPECTED = {  # everything that is not PQC alone
    "bank": {"dc-east-west": Pattern.PQC_QKD, "price-feed": Pattern.CLASSICAL},
    "data-centres": {"hall-a-b": Pattern.PQC_QKD_MULTI, "mirror": Pattern.CLASSICAL},
    "defence": {"command-north": Pattern.PQC_QKD_MULTI},
    "research": {"physics-genomics": Pattern.PQC_QKD_OTP, "observatory": Pattern.CLASSICAL},
    "telecom": {"status-page": Pattern.CLASSICAL},
    "utility": {"outage-map": Pattern.CLASSICAL},
}


@pytest.mark.proves("R144")
def test_there_is_one_for_each_use_case() -> None:
    assert PLANS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_an_estate_has_no_fault_and_nothing_that_blocks(path: Path) -> None:
    assert [str(fault) for fault in estate_faults(path)] == []
    assert [f.says for f in findings(load_estate(path)) if f.severity is Severity.BLOCKING] == []


@pytest.mark.proves("R144", "R059", "R143")
@pytest.mark.parametrize("name", EXPECTED)
def test_each_link_gets_what_it_was_written_for(name: str) -> None:
    assert PLANS[name].patterns == dict.fromkeys(PLANS[name].patterns, Pattern.PQC) | EXPECTED[name]


@pytest.mark.proves("R144")
def test_the_defence_link_needs_one_node_in_between_and_no_link_of_an_excluded_body_gets_qkd() -> None:
    outcomes = {outcome.name: outcome for outcome in PLANS["defence"].outcomes}
    assert (outcomes["command-north"].relays, outcomes["command-north"].feasibility.sites) == (1, ("ridge",))
    assert any("NSA" in reason for reason in outcomes["command-liaison"].reasons)


@pytest.mark.proves("R013", "R008")
def test_over_all_of_them_pqc_is_broad_and_qkd_narrow() -> None:
    outcomes = [outcome for plan in PLANS.values() for outcome in plan.outcomes]
    assert len(outcomes) >= 50
    assert sum(Layer.PQC in outcome.pattern.layers for outcome in outcomes) >= 0.9 * len(outcomes)
    assert sum(outcome.pattern.has_qkd for outcome in outcomes) <= 0.1 * len(outcomes)
    assert sum(not plan.with_qkd for plan in PLANS.values()) >= 2
    assert all(len(plan.with_qkd) <= plan.estate.pilots_max for plan in PLANS.values())


@pytest.mark.proves("R013", "R109")
@pytest.mark.parametrize("name", [name for name, plan in PLANS.items() if plan.with_qkd])
def test_qkd_is_only_where_the_gate_into_the_pilot_is_open(name: str) -> None:
    gate = next(gate for gate in PLANS[name].gates if gate.into == "pilot")
    assert [finding.says for finding in gate.blocks] == []


@pytest.mark.proves("R001", "R038")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_nothing_that_the_planner_says_of_a_link_claims_too_much(plan: Plan) -> None:
    """Rules, evidence, findings and gates, as the verbs print them one by one; the report is refused as a whole."""
    told = [text for outcome in plan.outcomes for text in (*outcome.reasons, *outcome.feasibility.reasons)]
    told += [f"{f.says} {f.hint}" for f in findings(plan.estate)]
    told += [f"{f.says} {f.hint}" for gate in plan.gates for f in gate.findings]
    assert [str(offence) for offence in offences("\n".join(told), plan.ground)] == []


@pytest.mark.proves("R005")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_readiness_is_told_for_the_four_domains_of_every_link(plan: Plan) -> None:
    for outcome in plan.outcomes:
        assert list(readiness(outcome.link)) == list(Domain)
        assert outcome.pattern.has_qkd <= all(answer == "yes" for answer in readiness(outcome.link).values())


@pytest.mark.proves("R072")
def test_one_estate_has_three_patterns() -> None:
    assert max(len(set(plan.patterns.values())) for plan in PLANS.values()) >= 3


@pytest.mark.proves("R149")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_no_estate_plans_out_of_order(plan: Plan) -> None:
    assert not plan.roadmap.is_rejected
