"""The page of the command line is what the program says of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_what_the_program_prints(generator: Callable[[str], ModuleType]) -> None:
    assert (DOCS / "reference" / "cli.md").read_text() == generator("cli").page(), "run: python docs/cli.py"
