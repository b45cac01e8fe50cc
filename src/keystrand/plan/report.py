"""The report of a plan: a page as data, refused where its words claim what the topology does not bear out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import date
from typing import Any

import msgspec

from keystrand.core.errors import NotPermitted
from keystrand.plan.board import board
from keystrand.plan.buffer import EXPOSURE_MEANS
from keystrand.plan.chapters import curves, links, reasons, threat_matrix, where
from keystrand.plan.claims import offences, physics_words
from keystrand.plan.comparison import comparison
from keystrand.plan.fact import Basis, Source, Stated, figure
from keystrand.plan.faq import faq
from keystrand.plan.outcome import Plan
from keystrand.plan.page import Page, Section, Table, ranged, row, shares
from keystrand.plan.positions import catalogue
from keystrand.plan.programme import dates, people, way
from keystrand.plan.survey import arrival

DEFINITIONS = (
    (
        "chance of being read",
        "that traffic sent until the migration ends is read while it must still be secret, under the assumptions here",
    ),
    ("keys lie in store", EXPOSURE_MEANS + " (Little's law); the window for whoever breaks into a store"),
    (
        "key rate",
        "secret bits per second that the link gives, from the least published field links suggest to the model's own figure",
    ),
    ("share of traffic-hours", "time in which keys of one making protect traffic, over all time"),
    ("M, S, A", "measured, simulated, assumed: the weakest of all inputs of a figure"),
)


def report(plan: Plan) -> Page:
    """Raises NotPermitted where a text, the estate's own names included, claims too much or the board's page speaks physics."""
    sections = (
        board(plan),
        where(plan),
        comparison(plan),
        curves(plan),
        links(plan),
        reasons(plan),
        threat_matrix(plan),
        way(plan),
        people(plan),
        dates(plan),
        faq(plan),
        _assumptions(plan),
    )
    page = Page(
        title=f"Which links need what: {plan.estate.name}",
        subtitle=f"Planned for {plan.estate.planned}. {len(plan.estate.sites)} sites, {len(plan.outcomes)} links.",
        sections=sections,
        footer=tuple(_footer(plan, sections)),
    )
    return checked(page, plan)


def checked(page: Page, plan: Plan) -> Page:
    """The page itself, if everything it says may be said."""
    found = offences(page.words(), plan.ground)
    if found:
        raise NotPermitted(
            f"the report claims what nothing bears out: “{found[0].text}” ({found[0].claim.because})",
            hint="the words come from the estate's file: reword them there",
        )
    if words := physics_words(page.words(board=True)):
        raise NotPermitted(
            f"the page for the board speaks physics: {', '.join(words)}", hint="rename the links or classes that say so"
        )
    return page


def _assumptions(plan: Plan) -> Section:
    """Everything that the figures rest on."""
    a = plan.estate.assumptions
    fields = {field.name: field for field in msgspec.structs.fields(a)}
    rows = []
    for name in fields:
        value = getattr(a, name)
        if isinstance(value, str):
            rows.append(row(name, value, "", "expert survey, see data dates"))
            continue
        if value is None:
            continue  # the estate's own years of the machine: the survey is taken
        stated = figure(value)
        rows.append(
            row(
                name,
                ranged(stated.span, ""),
                stated.basis.value,
                stated.source.what or "the estate's file, or the default",
            )
        )
    defined = tuple(row(word, meaning) for word, meaning in DEFINITIONS)
    return Section(
        name="assumptions",
        title="What the figures rest on",
        parts=(
            Table(
                name="assumptions", title="Assumptions", columns=("name", "range", "basis", "source"), rows=tuple(rows)
            ),
            Table(name="definitions", title="What the words mean", columns=("word", "meaning"), rows=defined),
        ),
    )


def _footer(plan: Plan, sections: tuple[Section, ...]) -> Iterator[str]:
    inputs = digest(plan.estate.assumptions, plan.estate.tariffs)
    yield f"Assumptions and tariffs {inputs} · estate {digest(plan.estate)} (SHA-256, first 16 digits)"
    found = sorted(dated(plan.estate))
    facts = f"facts of the estate from {found[0]} to {found[-1]}" if found else "no fact of the estate is dated"
    machine = arrival(plan.estate.assumptions, plan.estate.planned).told
    yield f"Data: {facts}; {machine}; positions of agencies as of {catalogue().as_of}."
    parts = shares(sections)
    told = ", ".join(f"{100 * parts.get(basis, 0):.0f} % {basis} ({basis.value[0].upper()})" for basis in Basis)
    yield f"Of the figures in the tables: {told}." if parts else "No table holds a figure."


def digest(*parts: Any) -> str:
    """The same for the same content, whatever the order of its tables."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:16]


def dated(part: Any) -> Iterator[date]:
    """Days of finding, of every fact below `part`."""
    if isinstance(part, Stated | Source):
        if part.dated is not None:
            yield part.dated
    elif isinstance(part, msgspec.Struct):
        for field in msgspec.structs.fields(type(part)):
            yield from dated(getattr(part, field.name))
    elif isinstance(part, dict):
        for value in part.values():
            yield from dated(value)
    elif isinstance(part, tuple):
        for value in part:
            yield from dated(value)
