"""keystrand network: the commands of the guide, as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from keystrand.cli.program import root

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "guides" / "networks.md").read_text()
COMMANDS = list(re.findall(r"^\$ keystrand (network .*)$", GUIDE, re.M))
METRO = "examples/networks/metro.toml"


def run(*words: str, cwd: Path = ROOT, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(cwd)
    result = CliRunner().invoke(root, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.proves("R036", "R039")
def test_the_guide_can_be_typed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(*shlex.split(command), monkeypatch=monkeypatch)


def test_the_guide_has_commands() -> None:
    assert len(COMMANDS) >= 4


@pytest.mark.proves("R038", "R113")
def test_the_statement_names_who_sees_a_block_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(run("network", "trust", METRO, "--json", monkeypatch=monkeypatch))
    pairs = {tuple(pair["pair"]): pair for pair in told["pairs"]}
    assert pairs["airport", "depot"]["seen_whole_by"] == {"Clinic Lakeside": ["clinic", "fort"]}
    assert pairs["bank", "fort"]["parts"] == 1
    assert "airport sees key material" in " ".join(pairs["bank", "fort"]["statement"])


def test_a_network_with_a_fault_is_refused_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / METRO).read_text().replace('ends = ["airport", "bank"]', 'ends = ["airport", "nowhere"]')
    (tmp_path / "n.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(root, ["network", "check", "n.toml"], standalone_mode=False)
    assert result.return_value == 1
    assert "nowhere is not a site" in result.output


@pytest.mark.proves("R001", "R038")
def test_a_statement_that_claims_too_much_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / METRO).read_text().replace("Clinic Lakeside", "Lakeside, the unbreakable network")
    (tmp_path / "n.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(root, ["network", "trust", "n.toml"], standalone_mode=False)
    assert result.return_value == 1
    assert "claims too much" in result.output
    assert "“unbreakable”" in result.output
