"""The commands of the planning guide are carried out as they stand, on the estates that it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from keystrand.cli import exits
from keystrand.cli.program import run

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "guides" / "planning.md").read_text()
COMMANDS = [line for line in re.findall(r"^\$ keystrand (.*)$", GUIDE, re.MULTILINE) if "examples/estates" in line]
SERVED = "plan verify"  # needs sites that run: tests/integration/test_plan_verify.py


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_guide_works(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    words = [
        str(tmp_path / word) if word.startswith("report.") else str(ROOT / word) if "examples/" in word else word
        for word in words
    ]
    # a plan with findings is a plan: the next gate of the bank is open, so nothing here may be refused but by `check`
    assert run(words) in ((exits.OK, exits.REFUSED) if "check" in words else (exits.OK,))
    shown = capsys.readouterr()
    assert shown.out or "written" in shown.err


def test_the_guide_names_every_estate_and_shows_every_verb_of_the_report() -> None:
    assert {path.name for path in (ROOT / "examples" / "estates").glob("*.toml")} <= set(
        re.findall(r"\w[\w-]*\.toml", GUIDE)
    )
    assert {"roadmap", "gates", "report"} <= {shlex.split(command)[1] for command in COMMANDS}
    assert SERVED in GUIDE
