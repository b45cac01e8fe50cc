"""The page of configuration is what the code prints, and explains every field."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[3] / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_configuration", DOCS / "configuration.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_code_prints() -> None:
    assert (DOCS / "reference" / "configuration.md").read_text() == generator().page(), (
        "run: python docs/configuration.py"
    )


def test_every_field_has_a_meaning() -> None:
    rows = [line for line in generator().page().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for row in rows:
        assert len(row.rstrip(" |").split(" | ")[-1].split()) >= 1, row
        assert not row.endswith("|  |"), row


def test_the_page_of_the_estate_is_what_the_code_prints() -> None:
    pages = generator()
    assert pages.ESTATE_PAGE.read_text() == pages.estate_page(), "run: python docs/configuration.py"
    for table in ("[links.NAME]", "[[links.NAME.segments]]", "[certificates.NAME]", "[governance.people.NAME]"):
        assert f"### `{table}`" in pages.estate_page()
