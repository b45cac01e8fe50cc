"""keystrand plan risk, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typed import BANK, ESTATES, plan

from keystrand.cli import exits


@pytest.mark.proves("R147")
@pytest.mark.parametrize("file", sorted(ESTATES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_sample_estate_has_bands_that_fit_a_terminal(file: Path) -> None:
    told = plan("risk", file, "--draws", 500)
    assert told.return_value in (None, exits.OK), told.output
    assert max(map(len, told.output.splitlines())) <= 100
    assert "assumed; bands" in told.stderr
    assert "not a forecast" in told.stderr


def test_json_has_one_object_for_each_link_and_no_score() -> None:
    told = plan("risk", BANK, "--json", "--draws", 500)
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(rows) == 11
    row = next(row for row in rows if row["link"] == "dc-east-west")
    assert [rung["pattern"] for rung in row["left"]] == ["classical hardening", "PQC", "PQC + QKD refresh"]
    assert [rung["no_worse_than_before"] for rung in row["left"]] == [1, 1, 1]
    assert row["basis"] == "assumed"
    assert not any("score" in key for key in row)
    assert {flip["answer"] for flip in row["flips"]} == {"QKD alone against PQC alone"}


def test_today_counts_pqc_only_where_it_was_seen() -> None:
    rows = {row["link"]: row for row in map(json.loads, plan("risk", BANK, "--json").stdout.splitlines())}
    seen, not_seen, unknown = rows["dc-disaster"], rows["branch-chiasso"], rows["dc-east-west"]
    assert (seen["post_quantum_today"], seen["left_today"]) == ("yes", seen["left"][1]["band"])
    assert (not_seen["post_quantum_today"], not_seen["left_today"]) == ("no", not_seen["left"][0]["band"])
    assert (unknown["post_quantum_today"], unknown["left_today"]) == ("unknown", unknown["left"][0]["band"])


@pytest.mark.proves("R040")
def test_one_link_in_full(tmp_path: Path) -> None:
    picture = tmp_path / "risk.png"
    told = plan("risk", BANK, "--link", "dc-east-west", "--accept", "0.03", "--plot", picture)
    assert max(map(len, told.output.splitlines())) <= 100
    for words in (
        "backlog",
        "RELAYS",
        "QKD alone beats PQC alone",
        "endpoint",
        "PQC + QKD leaves at most 3.00%",
        "DUE",
    ):
        assert words in told.output or words == "DUE", words
    assert picture.stat().st_size > 10_000


ALLIES = """\
name = "allies"
planned = 2026-11-28
[classes.plans]
horizon_years = 20.0
[sites.a]
regimes = ["nss"]
[sites.b]
jurisdiction = "FR"
[links.l]
ends = ["a", "b"]
carries = ["plans"]
"""


def test_dates_and_conflicts_of_a_link_are_in_its_json(tmp_path: Path) -> None:
    file = tmp_path / "estate.toml"
    file.write_text(ALLIES)
    assert "at odds: hybrid: NSA (mandate)" in plan("risk", file, "--link", "l").stderr
    told = json.loads(plan("risk", file, "--json").stdout)
    assert told["machine"]["experts"] == 26
    assert "not a forecast" in told["machine"]["caveats"][0]
    assert told["deadlines"][0] | {"left_years": 0, "document": "", "says": "", "last_verified": ""} == {
        "due": "2026-12-31", "left_years": 0, "standing": "unknown", "binding": "recommendation", "document": "", "says": "",
        "body": "EU NIS Cooperation Group", "seen": "quoted", "last_verified": ""
    }  # fmt: skip
    assert "hybrid: NSA (mandate): not-used against ANSSI (guidance): required" in told["conflicts"]


def test_a_link_without_horizon_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "estate.toml"
    file.write_text('name = "e"\nplanned = 2026-11-28\n[sites.a]\n[sites.b]\n[links.l]\nends = ["a", "b"]\n')
    told = plan("risk", file, "--link", "l")
    assert "unknown: for how long the data must stay confidential" in told.output
    assert json.loads(plan("risk", file, "--json").stdout)["unknown"] == [
        "for how long the data must stay confidential"
    ]


def test_an_estate_may_state_its_own_machine(tmp_path: Path) -> None:
    file = tmp_path / "estate.toml"
    file.write_text(ALLIES + "[assumptions]\nmachine_years = [30.0, 40.0]\n")
    told = plan("risk", file)
    assert "machine in 30 to 40 years, as the estate states" in told.stderr
    assert told.stdout.split()[3:5] == ["0", "%"]  # 20 years and the migration are over before it comes
    file.write_text(ALLIES + '[assumptions]\nsurvey = "1999"\n')
    assert "1999 is not an edition of the survey" in str(plan("risk", file).exception)
