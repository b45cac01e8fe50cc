"""CSV with one link a row. The first row names the columns; an empty cell is unknown; a column that nobody knows is refused."""

from __future__ import annotations

import csv
import difflib
import io
from typing import Any, Final

import msgspec

from keystrand.plan.estate import Control, Impact, Link, Medium, PathType, Segment, Site
from keystrand.plan.fact import Basis, Source, Stated
from keystrand.plan.imports.found import Found, Names, NotReadable

ENDS: Final = ("from", "to")
COLUMNS: Final = {
    "link": "name of the link",
    "from": "one site",
    "to": "the other site",
    "path": "what it joins",
    "impact": "low, medium, high, critical",
    "medium": "of its path",
    "control": "who decides over it",
    "owner": "organisation that owns it",
    "fibre_id": "name of the fibre",
    "length_km": "of the route: a number or a range as in 40-45",
    "loss_db": "end to end",
    "loss_basis": "measured, simulated or assumed",
    "reroutes_per_year": "how often the path changes",
    "rate_bps": "traffic at its busiest",
}
WORDS: Final = {"path": PathType, "impact": Impact, "medium": Medium, "control": Control, "loss_basis": Basis}


def read(data: bytes, file: str) -> Found:
    """Raises NotReadable with the line of what is off."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise NotReadable(f"not CSV in UTF-8: {error}") from None
    _check_columns(list(rows[0]) if rows else [])
    names, labels, source = Names(), Names(), Source(what=file, tool="CSV")
    sites: dict[str, Site] = {}
    links = {}
    for line, row in enumerate(rows, 2):
        cells = {key: value.strip() for key, value in row.items() if isinstance(value, str) and value.strip()}
        if None in row or any(end not in cells for end in ENDS):
            raise NotReadable(f"line {line}: has too many cells, or lacks `from` or `to`")
        ends = (names.of(cells["from"], cells["from"]), names.of(cells["to"], cells["to"]))
        if ends[0] == ends[1]:
            raise NotReadable(f"line {line}: leads from {ends[0]} to itself")
        sites |= {end: Site(source=source) for end in ends}
        label = cells.get("link") or "--".join(end[:30] for end in ends)
        links[labels.of(line, label)] = _link(ends, cells, source, line)
    return Found("csv", sites=sites, links=links)


def _check_columns(columns: list[str]) -> None:
    for column in columns:
        if column not in COLUMNS:
            close = difflib.get_close_matches(str(column), COLUMNS, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(COLUMNS)}"
            raise NotReadable(f"column {column!r} is not known", hint=hint)
    if not set(ENDS) <= set(columns):
        raise NotReadable("no table of links: it needs the columns from and to", hint=f"known: {', '.join(COLUMNS)}")


def _link(ends: tuple[str, str], cells: dict[str, str], source: Source, line: int) -> Link:
    def word(name: str, default: Any) -> Any:
        if name not in cells:
            return default
        try:
            return WORDS[name](cells[name].lower())
        except ValueError:
            raise NotReadable(
                f"line {line}: {name} is {cells[name]!r}", hint=f"one of {', '.join(WORDS[name])}"
            ) from None

    def number(name: str, basis: Basis = Basis.ASSUMED) -> Stated | None:
        return _stated(cells[name], basis, source, f"line {line}: {name}") if name in cells else None

    segment = Segment(
        medium=word("medium", Medium.UNKNOWN),
        control=word("control", Control.UNKNOWN),
        owner=cells.get("owner", ""),
        fibre_id=cells.get("fibre_id", ""),
        length_km=number("length_km"),
        loss_db=number("loss_db", word("loss_basis", Basis.ASSUMED)),
    )
    return Link(
        ends=ends,
        impact=word("impact", None),
        path=word("path", PathType.UNKNOWN),
        segments=() if segment == Segment() else (segment,),
        reroutes_per_year=number("reroutes_per_year"),
        rate_bps=number("rate_bps"),
        source=msgspec.structs.replace(source, what=f"{source.what}, line {line}"),
    )


def _stated(words: str, basis: Basis, source: Source, where: str) -> Stated:
    """`42`, `1e9`, or `40-45`; no unit, no thousands separator."""
    parts = [words] if words.count("-") != 1 or "e-" in words.lower() else words.split("-")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        raise NotReadable(f"{where} is {words!r}, not a number", hint="write 42 or a range as in 40-45") from None
    if not all(0 <= value < float("inf") for value in values) or values != sorted(values):
        raise NotReadable(f"{where} is {words!r}: not finite, negative, or upside down")
    if len(values) == 1:
        return Stated(likely=values[0], basis=basis, source=source.what)
    return Stated(low=values[0], high=values[1], basis=basis, source=source.what)
