"""Data classes to start from, as they come with the program; every figure of them may be replaced in the estate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from keystrand.plan.estate import DataClass, Impact
from keystrand.plan.fact import Basis, Figure, Quantity, Source, figure
from keystrand.plan.shelf import shipped


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of data that many estates have."""

    title: str
    horizon_years: Quantity
    impact: Impact
    confidence: str
    source: str
    standing: Annotated[
        Literal["cited", "judgement"], Meta(description="whether the source was looked at, or only remembered")
    ]
    written: Annotated[date, Meta(description="day of the row")]
    checked: Annotated[date | None, Meta(description="day on which its source was looked at")] = None


@cache
def templates() -> Mapping[str, Template]:
    """By name, in the order of the file."""
    return shipped("classes", dict[str, Template])


def horizon_of(stated: DataClass) -> Figure | None:
    """Years of confidentiality: the class's own, or of its template; None where neither says."""
    if stated.horizon_years is not None:
        return figure(stated.horizon_years)
    template = templates().get(stated.template)
    if template is None:
        return None
    known = "" if template.standing == "cited" else " (a judgement)"
    source = Source(
        what=f"template {stated.template}: {template.source}{known}", dated=template.checked or template.written
    )
    return Figure(figure(template.horizon_years).span, Basis.ASSUMED, source)


def impact_of(stated: DataClass) -> Impact | None:
    """The class's own, or of its template."""
    template = templates().get(stated.template)
    return stated.impact or (template.impact if template else None)
