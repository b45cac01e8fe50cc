"""keystrand plan: check and classify, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from keystrand.cli import exits
from keystrand.cli.program import root

ESTATE = """\
name = "metro"
planned = 2026-11-28
[classes.plans]
template = "ip-archive"
[classes.prices]
template = "live-readings"
[sites.one]
[sites.two]
[links.vault]
ends = ["one", "two"]
carries = ["plans", "prices"]
path = "dc-dc"
[links.ticker]
ends = ["one", "two"]
carries = ["prices"]
[governance.people.ann]
roles = ["key-owner"]
[governance.people.ben]
roles = ["key-deputy"]
"""


@pytest.fixture
def estate(tmp_path: Path) -> Path:
    file = tmp_path / "estate.toml"
    file.write_text(ESTATE)
    return file


def plan(*words: object) -> Result:
    return CliRunner().invoke(root, ["plan", *map(str, words)], standalone_mode=False)


def test_check_tells_gaps_in_lines_that_fit_and_blocks_on_blocking_ones_only(estate: Path) -> None:
    told = plan("check", estate)
    assert told.return_value == exits.OK, told.output
    assert "key lifecycle: empty" in told.stdout
    assert max(map(len, told.output.splitlines())) <= 100
    estate.write_text(ESTATE.replace('["key-deputy"]', "[]"))
    told = plan("check", estate)
    assert told.return_value == exits.REFUSED
    assert told.stdout.startswith("blocking  R050  nobody stands in")


def test_check_tells_faults_first(estate: Path) -> None:
    estate.write_text(ESTATE.replace("ip-archive", "ip-archiv"))
    told = plan("check", estate)
    assert told.return_value == exits.CONFIG
    assert ":4: $.classes.plans.template ip-archiv is not a template" in told.stderr
    assert "did you mean ip-archive?" in told.stderr


def test_check_as_json_has_every_finding(estate: Path) -> None:
    rows = [json.loads(line) for line in plan("check", estate, "--json").stdout.splitlines()]
    assert {"R005", "R053", "R069"} <= {row["requirement"] for row in rows}
    assert {row["severity"] for row in rows} == {"warning", "note"}


def test_classify_shows_what_each_link_is(estate: Path) -> None:
    told = plan("classify", estate)
    assert "10-25 y" in told.stdout
    assert "no quantum treatment" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 100
    vault, ticker = (json.loads(line) for line in plan("classify", estate, "--json").stdout.splitlines())
    assert (vault["impact"], vault["horizon_years"], vault["starts_from"]) == (
        "high",
        [10, 17.5, 25],
        "PQC + QKD refresh",
    )
    assert (ticker["lifetime"], ticker["no_quantum_treatment"]) == ("hours", True)
    assert [
        json.loads(line)["link"] for line in plan("classify", estate, "--link", "ticker", "--json").stdout.splitlines()
    ] == ["ticker"]


def test_templates_are_listed() -> None:
    assert "government-records" in plan("templates").stdout
    assert len(plan("templates", "--json").stdout.splitlines()) == len(plan("templates").stdout.splitlines())
