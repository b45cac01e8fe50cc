"""A few lines at the foot of a terminal that are drawn anew in place, with what was said above them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TextIO

from keystrand.console.live import Canvas

REDRAW_S: Final = 0.25
_HIDE, _SHOW, _ERASE_BELOW = "\x1b[?25l", "\x1b[?25h", "\x1b[0J"


Picture = Callable[[Canvas], Sequence[str]]


def is_screen(out: TextIO) -> bool:
    """Whether `out` is a terminal that can move its cursor."""
    return out.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    """Owns the foot of the terminal while it is entered; the last picture stays when it is left."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._colour = not os.environ.get("NO_COLOR")  # https://no-color.org
        self._blocks = _can_show("▁█…", self._out.encoding)
        self._lines: list[str] = []
        self._shown: Picture = lambda _: ()
        self._drawn_s = 0.0

    def __enter__(self) -> Self:
        self._write(_HIDE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._redraw()
        self._write(_SHOW)

    def say(self, text: str) -> None:
        """A line that stays, above the picture."""
        self._write(self._over(f"{text}\n") + self._picture())

    def draw(self, picture: Picture) -> None:
        """Show this from now on; the terminal is written to at most four times a second."""
        self._shown = picture
        if time.monotonic() - self._drawn_s >= REDRAW_S:
            self._redraw()

    def _redraw(self) -> None:
        """What does not fit the height is left out at the end."""
        self._drawn_s = time.monotonic()
        columns, rows = _size(self._out)
        canvas = Canvas(columns=max(8, columns - 1), colour=self._colour, blocks=self._blocks)
        before = self._over("")
        self._lines = [*self._shown(canvas)][: max(1, rows - 2)]
        self._write(before + self._picture())

    def _over(self, text: str) -> str:
        """Go back to where the picture begins and write there."""
        up = f"\x1b[{len(self._lines)}A" if self._lines else ""
        return f"{up}\r{_ERASE_BELOW}{text}"

    def _picture(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)

    def _write(self, text: str) -> None:
        shown = text if self._blocks else text.encode("ascii", "replace").decode()
        self._out.write(shown)
        self._out.flush()


def _can_show(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _size(out: TextIO) -> tuple[int, int]:
    """Columns and rows; a serial line that does not know its size says 0."""
    try:
        size = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24
