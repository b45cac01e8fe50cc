"""The pages on risk and on vendors print what the program finds."""

from __future__ import annotations

import json

from click.testing import CliRunner
from test_docs_generated import DOCS, Generator

from keystrand.cli.program import root
from keystrand.plan.answers import questionnaire
from keystrand.plan.assumptions import Assumptions
from keystrand.plan.residual import relay_budget
from keystrand.plan.survey import survey

ROOT = DOCS.parent
RISK = (DOCS / "concepts" / "risk.md").read_text()
VENDORS = (DOCS / "guides" / "vendors.md").read_text()


def test_the_reference_of_answers_is_what_the_code_reads(generator: Generator) -> None:
    pages = generator("configuration")
    assert pages.ANSWERS_PAGE.read_text() == pages.answers_page(), "run: python docs/configuration.py"


def test_the_price_of_a_point_is_the_one_of_the_sample() -> None:
    words = ["plan", "cost", str(ROOT / "examples" / "estates" / "bank.toml"), "--link", "dc-east-west", "--json"]
    told = json.loads(CliRunner().invoke(root, words, standalone_mode=False).stdout.splitlines()[0])
    pqc, qkd = told["per_percentage_point"]["pqc"], told["per_percentage_point"]["qkd_refresh"]
    said = f"{pqc[0]:.0f} to {pqc[2]:.0f} {told['currency']} for PQC, and {qkd[0] / 1e3:.0f},000 to {qkd[2] / 1e6:.2f} million"
    assert said in " ".join(RISK.split())


def test_the_page_on_risk_credits_the_survey_and_states_the_budget() -> None:
    assert "Global Risk Institute and evolutionQ" in RISK
    assert f"2025 edition, {survey().editions['2025'].experts} experts" in RISK
    budget = relay_budget(Assumptions())
    assert (budget.low, round(budget.high)) == (0, 17)
    assert "0 to about 17" in RISK


def test_the_guide_counts_the_questions() -> None:
    assert len(questionnaire().criteria) == 30
    assert "Thirty questions" in VENDORS
