"""A report as data: sections of paragraphs, tables and pictures, which HTML and PDF are printed from.

A figure is a cell with its basis: a reader sees whether it was measured, simulated or assumed, and a page counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from keystrand.plan.fact import Basis, Figure, Span, Unknown


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table. `basis`: of the figure that it holds; None: it holds none."""

    text: str
    basis: Basis | None = None

    @property
    def sign(self) -> str:
        """`M`, `S` or `A`, explained in the footer."""
        return self.basis.value[0].upper() if self.basis else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under headings. `note` stands below."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawing, and the same in words."""

    name: str
    title: str
    says: str
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with what stands under it. `board`: for readers without physics."""

    name: str
    title: str
    paragraphs: tuple[str, ...] = ()
    parts: tuple[Table | Picture, ...] = ()
    board: bool = False

    def words(self) -> Iterator[str]:
        """Every text of it, pictures included."""
        yield from (self.title, *self.paragraphs)
        for part in self.parts:
            yield part.title
            if isinstance(part, Picture):
                yield from (part.says, part.svg)
            else:
                yield from (*part.columns, part.note)
                yield from (cell.text for row in part.rows for cell in row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    footer: tuple[str, ...]

    def words(self, *, board: bool = False) -> str:
        """All text, one piece a line; with `board`, that of the leadership page alone."""
        chosen = [section for section in self.sections if section.board or not board]
        return "\n".join([self.title, self.subtitle, *(w for section in chosen for w in section.words()), *self.footer])


def shares(sections: tuple[Section, ...]) -> dict[Basis, float]:
    """Of all figures in the tables, the share of each basis; empty where there are no figures."""
    tables = (part for section in sections for part in section.parts if isinstance(part, Table))
    counted = Counter(cell.basis for table in tables for row in table.rows for cell in row if cell.basis)
    return {basis: counted[basis] / counted.total() for basis in Basis} if counted else {}


# figures in words ---------------------------------------------------------------------------------------------------


def shown(found: Figure | Unknown | None, unit: str, *, why: str = "not stated") -> Cell:
    """A figure with its range and basis, or why there is none."""
    if isinstance(found, Unknown):
        return Cell(str(found))
    if found is None:
        return Cell(f"unknown: {why}")
    return Cell(ranged(found.span, unit), found.basis)


def chance(span: Span, basis: Basis) -> Cell:
    """A chance in per cent. Never a point, for none of it is known so well."""
    return Cell(f"{_percent(span.low)} to {_percent(span.high)} %", basis)


def _percent(value: float) -> str:
    return f"{100 * value:.0f}" if value >= 0.1 else f"{100 * value:.1f}" if value >= 0.001 else "<0.1"


def ranged(span: Span, unit: str) -> str:
    """`5.1 to 5.6 dB`, `85 bit/s to 1.2 kbit/s`; a point without `to`."""
    low, high = (_with_unit(value, unit) for value in (span.low, span.high))
    if low == high:
        return high
    same = low.partition(" ")[2] == high.partition(" ")[2]
    return f"{low.partition(' ')[0] if same else low} to {high}"


def _with_unit(value: float, unit: str) -> str:
    if unit != "bit/s":
        return f"{three(value)} {unit}".rstrip()
    scale, prefix = next(((s, p) for s, p in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= s), (1.0, ""))
    return f"{three(value / scale)} {prefix}{unit}"


def lifelong(found: Figure | None) -> Cell:
    """A horizon of data: in years, or in days where that says more."""
    if found is None:
        return Cell("unknown: nobody has stated it")
    if found.span.high == 0:
        return Cell("not at all", found.basis)
    if found.span.high < 0.1:
        days = max(1.0, found.span.high * 365.25)
        return Cell(f"{days:.0f} day{'s' if days >= 1.5 else ''} at most", found.basis)
    return Cell(ranged(found.span, "years"), found.basis)


def three(value: float) -> str:
    """Three digits at most, thousands apart."""
    if value >= 1000:
        digits = 10 ** max(0, len(str(int(value))) - 3)
        return f"{round(value / digits) * digits:,.0f}".replace(",", "\u202f")
    return f"{value:.3g}"


def lasting(seconds: float) -> str:
    """`45 s`, `12 min`, `5 h`, `3 d`"""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def row(*cells: Cell | str) -> tuple[Cell, ...]:
    """A row of a table; plain words become cells without a figure."""
    return tuple(Cell(cell) if isinstance(cell, str) else cell for cell in cells)


def merged(rows: Iterable[tuple[Cell, ...]], at: int = 0) -> tuple[tuple[Cell, ...], ...]:
    """Rows that are alike but for their name (cell `at`) as one, with all names: what is the same is read once."""
    found: dict[tuple[Cell, ...], list[str]] = {}
    for cells in rows:
        found.setdefault((*cells[:at], *cells[at + 1 :]), []).append(cells[at].text)
    return tuple((*rest[:at], Cell(", ".join(names)), *rest[at:]) for rest, names in found.items())
