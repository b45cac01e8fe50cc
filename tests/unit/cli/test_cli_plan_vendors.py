"""keystrand plan vendors, as a user types it; and the faults of answers.toml with their lines."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from keystrand.cli import conformance, exits
from keystrand.cli.program import root
from keystrand.core.errors import ConfigError
from keystrand.testing.conformance.report import Outcome, Report, Verdict

EXAMPLES = Path(__file__).parents[3] / "examples"
ANSWERS = EXAMPLES / "vendors" / "answers.toml"
BANK = EXAMPLES / "estates" / "bank.toml"

SMALL = """\
name = "small"
reviewed = 2026-11-28
[evidence.report]
product = "one"
what = "conformance run"
level = "proven"
dated = 2026-11-01
file = "report.jsonl"
sha256 = "HASH"
conformance = true
[products.one]
vendor = "v"
kind = "dv-qkd"
[products.one.answers.standard-interfaces]
score = 4
says = "all of it"
evidence = ["report"]
"""


def plan(*words: object) -> Result:
    return CliRunner().invoke(root, ["plan", "vendors", *map(str, words)], standalone_mode=False)


@pytest.mark.proves("R128")
def test_the_example_is_weighed_against_its_estate() -> None:
    told = plan(ANSWERS, "--estate", BANK, "--matrix")
    assert told.return_value == exits.OK, told.output
    assert max(map(len, told.output.splitlines())) <= 100
    first, second, third = (line.split() for line in told.stdout.splitlines()[:3])
    assert first[:2] == ["alba-q2", "yes"]
    assert 80 < float(first[4].rstrip("%")) < 100
    assert second[:2] == ["borea-one", "yes"]
    assert third[:3] == ["corvo-seed", "knocked", "out"]
    assert "comes first if the weight of" in told.stderr
    assert "corvo-seed  dc-east-west  no" in told.stdout


def test_json_has_what_the_table_has() -> None:
    *products, last = map(json.loads, plan(ANSWERS, "--json").stdout.splitlines())
    assert [p["product"] for p in products] == ["alba-q2", "borea-one", "corvo-seed"]
    assert products[2]["eligible"] is False
    assert all(len(p["marks"]) == 30 for p in products)
    assert last["reversals"]
    assert last["seed"] == 1


def fault(file: Path) -> str:
    told = plan(file)
    assert isinstance(told.exception, ConfigError), told.output
    return str(told.exception)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """With a report written by the product's own verb."""
    verdicts = [Verdict.PASSED] * 3 + [Verdict.FAILED, Verdict.ADVICE, Verdict.NOT_RUN]
    outcomes = [Outcome(name=f"case {n}", clause="5.1", verdict=verdict) for n, verdict in enumerate(verdicts)]
    report = tmp_path / "report.jsonl"
    runner = CliRunner()
    with runner.isolation() as (out, *_):
        conformance._print(Report(outcomes=tuple(outcomes)), as_json=True)
        report.write_bytes(out.getvalue())
    file = tmp_path / "answers.toml"
    file.write_text(SMALL.replace("HASH", hashlib.sha256(report.read_bytes()).hexdigest()))
    return file


@pytest.mark.proves("R129")
def test_a_conformance_report_is_evidence(small: Path) -> None:
    told = json.loads(plan(small, "--json").stdout.splitlines()[0])
    mark = next(m for m in told["marks"] if m["criterion"] == "standard-interfaces")
    assert mark["why"] == "3 cases passed, 1 failed"
    assert mark["score"] == [3, 3, 3]
    assert mark["evidence_level"] == 4


@pytest.mark.proves("R140")
def test_evidence_that_has_changed_is_refused_with_its_line(small: Path) -> None:
    (small.parent / "report.jsonl").write_text('{"verdict": "passed"}\n')
    assert "answers.toml:9: $.evidence.report.sha256 is not that of the file" in fault(small)


def test_a_file_that_is_no_report_is_refused(small: Path) -> None:
    report = small.parent / "report.jsonl"
    report.write_text("hello\n")
    small.write_text(SMALL.replace("HASH", hashlib.sha256(report.read_bytes()).hexdigest()))
    assert "no conformance report" in fault(small)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('product = "one"', 'product = "two"', r":4: .*two is not a product of this file"),
        ("answers.standard-interfaces", "answers.standard-interface", r"standard-interface is not a criterion"),
        ('["report"]', '["repot"]', r":17: .*repot is not evidence of this file"),
        ("dated = 2026-11-01", "dated = 2026-12-01", r":7: .*after the review"),
        ('file = "report.jsonl"', 'file = "gone.jsonl"', r":8: .*cannot be read"),
        ("score = 4", "score = 5", r":15: "),
        ("reviewed = 2026-11-28", "reviewed = 2026-11-28\nweights = { kmss = 1 }", r"kmss is not a criterion"),
    ],
)
def test_a_fault_is_named_with_its_line(small: Path, before: str, after: str, message: str) -> None:
    small.write_text(small.read_text().replace(before, after))
    assert re.search(message, fault(small))


@pytest.mark.proves("R136")
def test_a_red_flag_without_disposition_refuses(tmp_path: Path) -> None:
    file = tmp_path / "answers.toml"
    text = ANSWERS.read_text()
    start = text.index("[products.borea-one.dispositions.absolute-security]")
    file.write_text(text[:start] + text[text.index("[products.borea-one.dispositions.branding]") :])
    told = plan(file)
    assert told.return_value == exits.REFUSED
    assert "red flag absolute-security" in told.stderr
