"""Progress for people: one line on a terminal, silence elsewhere."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.cli.terminal import ProgressLine, amount, progress_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_sees_nothing() -> None:
    out = io.StringIO()
    line = ProgressLine("x", out)
    line.update(10, 10)
    line.end()
    assert out.getvalue() == ""


def test_a_terminal_sees_the_last_state_and_a_newline() -> None:
    out = Terminal()
    line = ProgressLine("file", out)
    for done in range(0, 1_000_001, 1000):
        line.update(done, 1_000_000, "key 2")
    line.end()
    text = out.getvalue()
    assert text.endswith("100 % of 1.0 MB key 2\n")
    assert text.count("\r") <= 5, "redrawn too often"


def test_a_shorter_line_covers_a_longer_one() -> None:
    out = Terminal()
    line = ProgressLine("f", out)
    line.update(5, 5, "a very long note")
    line.update(5, 5, "")
    first, second = out.getvalue().split("\r")[1:]
    assert len(second) == len(first)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 10**15), st.none() | st.integers(0, 10**15))
def test_any_amount_fits_a_line(done: int, total: int | None) -> None:
    text = progress_text("name", done, total, "")
    assert len(text) < 80
    assert "\n" not in text


def test_amounts() -> None:
    assert [amount(n) for n in (0, 999, 1000, 1_234_567, 5e9)] == ["0 B", "999 B", "1.0 kB", "1.2 MB", "5.0 GB"]
