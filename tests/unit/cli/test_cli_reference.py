"""The page of the command line is what the program says of itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_what_the_program_prints() -> None:
    spec = importlib.util.spec_from_file_location("docs_cli", DOCS / "cli.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "reference" / "cli.md").read_text() == module.page(), "run: python docs/cli.py"
