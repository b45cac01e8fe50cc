"""A page as one HTML file: escaped by default, nothing from outside, readable without colour. The one door to jinja2."""

from __future__ import annotations

from importlib.resources import files

from keystrand.core.extra import extra
from keystrand.plan.page import Page


def html(page: Page) -> str:
    """The whole file. Only our own drawings go in unescaped; ElementTree escaped what they hold."""
    with extra("report"):
        from jinja2 import Environment, StrictUndefined
    source = (files("keystrand.plan") / "data" / "report.html.jinja").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(page=page)
