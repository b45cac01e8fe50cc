"""A page as PDF: the same sections, tables and drawings, set by typst. The one door to it.

The page goes to typst as data, so no text of an estate is ever read as markup.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import msgspec

from keystrand.core.extra import extra
from keystrand.plan.page import Page, Picture, Section, Table


def pdf(page: Page) -> bytes:
    """The whole file, tagged for reading aloud (PDF/UA-1)."""
    with extra("report"):
        import typst
    source = (files("keystrand.plan") / "data" / "report.typ").read_bytes()
    data = msgspec.json.encode(_plain(page)).decode()
    printed = typst.compile(source, format="pdf", sys_inputs={"page": data}, pdf_standards=["ua-1"])
    assert isinstance(printed, bytes)
    return printed


def _plain(page: Page) -> dict[str, Any]:
    sections = [_section(section) for section in page.sections]
    return {"title": page.title, "subtitle": page.subtitle, "sections": sections, "footer": page.footer}


def _section(section: Section) -> dict[str, Any]:
    parts = [_part(part) for part in section.parts]
    return {"title": section.title, "name": section.name, "paragraphs": section.paragraphs, "parts": parts}


def _part(part: Table | Picture) -> dict[str, Any]:
    if isinstance(part, Picture):
        return {"title": part.title, "says": part.says, "svg": part.svg}
    rows = [[{"text": cell.text, "sign": cell.sign} for cell in row] for row in part.rows]
    return {"title": part.title, "columns": part.columns, "rows": rows, "note": part.note}
