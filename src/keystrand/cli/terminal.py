"""Words for people: on stderr, readable without colour, quiet where nobody watches."""

from __future__ import annotations

import sys
import time
from typing import Final, TextIO

REDRAW_S: Final = 0.2
BAR_WIDTH: Final = 30


def say(text: str) -> None:
    """One line for a person. What strangers wrote may be in it, and does not steer the terminal."""
    shown = "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)
    print(shown, file=sys.stderr, flush=True)


def complain(message: str, hint: str | None = None) -> None:
    say(f"keystrand: error: {message}")
    if hint:
        say(f"keystrand: hint: {hint}")


def amount(count_bytes: float) -> str:
    """1234567 -> '1.2 MB'; decimal prefixes."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count_bytes >= scale:
            return f"{count_bytes / scale:.1f} {unit}"
    return f"{count_bytes:.0f} B"


class ProgressLine:
    """One line that is redrawn on a terminal and stays silent elsewhere; `end` leaves the last state standing."""

    def __init__(self, label: str, out: TextIO | None = None) -> None:
        self.label = label
        self.out = out or sys.stderr
        self.live = self.out.isatty()
        self._drawn_s = 0.0
        self._width = 0

    def update(self, done_bytes: int, total_bytes: int | None, note: str = "") -> None:
        now_s = time.monotonic()
        if self.live and (now_s - self._drawn_s >= REDRAW_S or done_bytes == total_bytes):
            self._drawn_s = now_s
            self._draw(progress_text(self.label, done_bytes, total_bytes, note))

    def end(self) -> None:
        if self._width:
            self.out.write("\n")
            self.out.flush()
        self._width = 0

    def _draw(self, text: str) -> None:
        self.out.write("\r" + text.ljust(self._width))
        self.out.flush()
        self._width = len(text)


def progress_text(label: str, done_bytes: int, total_bytes: int | None, note: str) -> str:
    """`report.pdf [#####.....] 50 % of 2.0 MB, key 3`"""
    if not total_bytes:
        return f"{label} {amount(done_bytes)} {note}".rstrip()
    share = min(1.0, done_bytes / total_bytes)
    filled = int(BAR_WIDTH * share)
    bar = "#" * filled + "." * (BAR_WIDTH - filled)
    return f"{label} [{bar}] {100 * share:3.0f} % of {amount(total_bytes)} {note}".rstrip()
