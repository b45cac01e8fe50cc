"""Rows for people: aligned on stdout, under headings that go to stderr, so that a pipe gets rows alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import click

from keystrand.cli.options import print_json
from keystrand.cli.terminal import say
from keystrand.console.terminal import fit

T = TypeVar("T")
CELL_MAX = 60


def show_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """The last column is not padded, and not cut either: it holds words."""
    cells = [[fit(str(cell), CELL_MAX) for cell in row[:-1]] + [fit(str(row[-1]), 256)] for row in rows]
    if not cells:
        say("nothing to show")
        return
    widths = [max(len(row[at]) for row in (headings, *cells)) for at in range(len(headings))]
    say(_line([heading.upper() for heading in headings], widths))
    for row in cells:
        click.echo(_line(row, widths))


def show_list(
    found: Iterable[T], headings: Sequence[str], row: Callable[[T], Sequence[object]], *, as_json: bool
) -> None:
    """For programs every one as a line of JSON, for people a row each."""
    if not as_json:
        show_table(headings, map(row, found))
        return
    for one in found:
        print_json(one)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def moment(at_s: float) -> str:
    """Unix seconds as `2030-01-31 18:00:00Z`; `-` for 0, which stands for never."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at_s)) if at_s else "-"


def span(seconds: float) -> str:
    """`45 s`, `12 min`, `5 h`, `3 d`"""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.3g} s"
