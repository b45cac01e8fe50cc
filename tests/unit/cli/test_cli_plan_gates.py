"""keystrand plan gates and roadmap: what a person sees, what a machine reads, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keystrand.cli.program import run

ESTATES = Path(__file__).parents[3] / "examples" / "estates"
BANK = str(ESTATES / "bank.toml")


def lines(*words: str, capsys: pytest.CaptureFixture[str], status: int = 0) -> list[str]:
    assert run(["plan", *words]) == status
    return capsys.readouterr().out.splitlines()


@pytest.mark.proves("R109", "R126")
def test_gates_tell_what_is_asked_and_what_was_reached(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shown = lines("gates", BANK, capsys=capsys)
    assert [line for line in shown if line.startswith("into")] == [
        "into pqc: open",
        "into pilot: open",
        "into production: shut by 11",
    ]
    assert sum("Review: " in line for line in shown) == 4
    assert max(map(len, shown)) <= 100
    told = [json.loads(line) for line in lines("gates", BANK, "--json", capsys=capsys)]
    assert [gate["open"] for gate in told] == [True, True, False]
    shut = tmp_path / "estate.toml"
    shut.write_text(
        Path(BANK)
        .read_text()
        .replace('[governance.replies.runbooks]\nanswer = "', '[governance.replies.runbooks]\nanswer = ""\n# "')
    )
    shown = lines("gates", str(shut), capsys=capsys, status=1)
    assert any("Where is the runbook of each failure" in line for line in shown)


@pytest.mark.proves("R108", "R127", "R143")
def test_owners_skills_and_risks_are_exported(capsys: pytest.CaptureFixture[str]) -> None:
    owners = [json.loads(line) for line in lines("gates", BANK, "--show", "raci", "--json", capsys=capsys)]
    assert all(row["accountable"] and "," not in row["accountable"] for row in owners)
    skilled = [json.loads(line) for line in lines("gates", BANK, "--show", "skills", "--json", capsys=capsys)]
    assert {row["missing"] for row in skilled} == {0}
    risks = [json.loads(line) for line in lines("gates", BANK, "--show", "risks", "--json", capsys=capsys)]
    assert {risk["risk"] for risk in risks} >= {"cost", "theatre", "skills"}
    for show in ("raci", "skills", "risks"):
        assert lines("gates", BANK, "--show", show, capsys=capsys)
    lines("gates", str(ESTATES / "telecom.toml"), "--show", "skills", capsys=capsys)


@pytest.mark.proves("R149")
def test_a_roadmap_out_of_order_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shown = lines("roadmap", BANK, capsys=capsys)
    assert shown[0].startswith("inventory")
    assert max(map(len, shown)) <= 100
    hasty = tmp_path / "estate.toml"
    text = Path(BANK).read_text()
    hasty.write_text(
        text.replace(
            "[governance.milestones.pilot]\nstarts = 2027-07-01", "[governance.milestones.pilot]\nstarts = 2026-02-01"
        )
    )
    *_, last = [json.loads(line) for line in lines("roadmap", str(hasty), "--json", capsys=capsys, status=1)]
    assert last["rejected"]
    assert {finding["requirement"] for finding in last["findings"]} == {"R149", "R094"}
    lines("roadmap", str(hasty), capsys=capsys, status=1)
