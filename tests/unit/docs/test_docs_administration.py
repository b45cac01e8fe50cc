"""The reference of the administration API is what the code serves."""

from __future__ import annotations

from test_docs_generated import DOCS, Generator


def test_API9_the_reference_is_what_the_route_table_says(generator: Generator) -> None:
    pages = generator("administration")
    assert pages.PAGE.read_text() == pages.page(), "run: python docs/administration.py"
    assert pages.OPENAPI.read_text() == pages.openapi(), "run: python docs/administration.py"
    assert DOCS / "reference" / "administration.md" == pages.PAGE
