"""The page of configuration is what the code prints, and explains every field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def printed(generator: Callable[[str], ModuleType]) -> ModuleType:
    return generator("configuration")


def test_the_page_is_what_the_code_prints(printed: ModuleType) -> None:
    assert (DOCS / "reference" / "configuration.md").read_text() == printed.page(), "run: python docs/configuration.py"


def test_every_field_has_a_meaning(printed: ModuleType) -> None:
    rows = [line for line in printed.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for row in rows:
        assert len(row.rstrip(" |").split(" | ")[-1].split()) >= 1, row
        assert not row.endswith("|  |"), row


def test_the_page_of_the_estate_is_what_the_code_prints(printed: ModuleType) -> None:
    assert printed.ESTATE_PAGE.read_text() == printed.estate_page(), "run: python docs/configuration.py"
    for table in ("[links.NAME]", "[[links.NAME.segments]]", "[certificates.NAME]", "[governance.people.NAME]"):
        assert f"### `{table}`" in printed.estate_page()
