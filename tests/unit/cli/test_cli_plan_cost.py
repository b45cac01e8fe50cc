"""keystrand plan cost, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typed import BANK, ESTATES, plan


@pytest.mark.proves("R125")
def test_pqc_stands_beside_qkd_at_the_price_of_a_point_removed() -> None:
    told = plan("cost", BANK, "--link", "dc-east-west")
    assert max(map(len, told.output.splitlines())) <= 100
    assert "QKD ADDS" in told.stderr
    assert "qkd_pair" in told.stdout
    row, total = (
        json.loads(line) for line in plan("cost", BANK, "--link", "dc-east-west", "--json").stdout.splitlines()
    )
    points = row["per_percentage_point"]
    assert points["qkd_refresh"][0] > 100 * points["pqc"][2]
    assert total["currency"] == "CHF"
    assert total["total"] == row["total"]


@pytest.mark.parametrize("file", sorted(ESTATES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_sample_estate_fits_a_terminal(file: Path) -> None:
    told = plan("cost", file)
    assert told.exception is None, told.output
    assert max(map(len, told.output.splitlines())) <= 100


@pytest.mark.proves("R123")
def test_a_missing_tariff_is_named_and_no_cost_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "estate.toml"
    file.write_text(BANK.read_text().replace("qkd_pair = [180000, 250000]\n", ""))
    told = plan("cost", file)
    assert "tariffs.qkd_pair (published: about EUR 180,000 to 250,000" in told.stderr
    row = next(line for line in told.stdout.splitlines() if line.startswith("dc-east-west"))
    assert row.split()[4:] == ["unknown", "unknown", "unknown"]
    assert "together" not in told.stderr


@pytest.mark.proves("R011")
def test_hardware_before_governance_is_flagged(tmp_path: Path) -> None:
    file = tmp_path / "estate.toml"
    text = BANK.read_text()
    assert "for QKD hardware while" not in plan("cost", BANK).stderr
    file.write_text(text.replace('fallback_by = "head of operations"\n', ""))
    told = plan("cost", file, "--json")
    finding = json.loads(told.stdout.splitlines()[-1])["findings"][0]
    assert finding["requirement"] == "R011"
    assert "questions of governance are open" in finding["says"]


@pytest.mark.proves("R125")
def test_qkd_can_be_priced_beside_what_was_decided(tmp_path: Path) -> None:
    words = ("cost", BANK, "--link", "office-dc")
    plain, beside = plan(*words), plan(*words, "--beside")
    assert plain.stdout.split()[4:6] == ["-", "-"]
    cells = beside.stdout.splitlines()[0].split()
    assert "k-" in cells[4]
    assert "no gain" in beside.stdout  # whether it fails open is not answered, nor how often keys run out
    assert cells[-1] == plain.stdout.splitlines()[0].split()[-1]  # a year of what was decided
    file = tmp_path / "estate.toml"
    ends = 'ends = ["head-office", "dc-east"]\n'
    file.write_text(BANK.read_text().replace(ends, ends + 'on_exhaustion = "fail-closed"\n'))
    row = json.loads(plan("cost", file, "--link", "office-dc", "--beside", "--json").stdout.splitlines()[0])
    assert (row["decided"], row["priced"]) == ("PQC", "PQC + QKD refresh")
    assert row["per_percentage_point"]["qkd_refresh"][0] > 50 * row["per_percentage_point"]["pqc"][2]
