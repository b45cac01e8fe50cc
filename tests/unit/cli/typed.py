"""`keystrand plan`, as a user types it."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from keystrand.cli.program import root

ESTATES = Path(__file__).parents[3] / "examples" / "estates"
BANK = ESTATES / "bank.toml"


def plan(*words: object) -> Result:
    return CliRunner().invoke(root, ["plan", *map(str, words)], standalone_mode=False)
