"""The foot of the terminal: drawn in place, what was said stays above, nothing is left behind."""

from __future__ import annotations

import io
import os
import pty
from collections.abc import Sequence

import pytest

from keystrand.cli import screen as module
from keystrand.cli.screen import Screen, is_screen
from keystrand.testing.replay import Replay


class Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


class Latin(Terminal):
    encoding = "latin-1"  # type: ignore[assignment]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw is shown."""
    monkeypatch.setattr(module, "REDRAW_S", 0.0)


def shown(out: io.StringIO) -> list[str]:
    terminal = Replay()
    terminal.feed(out.getvalue())
    assert terminal.cursor, "the cursor is hidden for ever"
    return terminal.lines


@pytest.mark.usefixtures("hasty")
def test_one_picture_stands_below_all_that_was_said() -> None:
    out = Terminal()
    with Screen(out) as screen:
        screen.say("first")
        for step in range(5):
            screen.draw(lambda _, step=step: [f"picture {step}", *["more"] * (3 - step)])
            screen.say(f"said {step}")
    assert shown(out) == ["first", *(f"said {step}" for step in range(5)), "picture 4", ""]


def test_it_is_drawn_four_times_a_second_and_the_last_state_stays() -> None:
    out, drawn = Terminal(), []

    def picture(number: int) -> Sequence[str]:
        drawn.append(number)
        return [str(number)]

    with Screen(out) as screen:
        for number in range(1000):
            screen.draw(lambda _, number=number: picture(number))
    assert len(drawn) <= 4
    assert shown(out) == ["999", ""]


@pytest.mark.usefixtures("hasty")
def test_an_error_gives_the_cursor_back() -> None:
    def interrupted() -> None:
        with Screen(out) as screen:
            screen.draw(lambda _: ["x"])
            raise KeyboardInterrupt

    out = Terminal()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert shown(out) == ["x", ""]


@pytest.mark.usefixtures("hasty")
def test_a_picture_that_is_too_high_loses_its_end() -> None:
    out = Terminal()
    with Screen(out) as screen:
        screen.draw(lambda _: [str(row) for row in range(100)])
        screen.draw(lambda _: [str(row) for row in range(100)])
    assert shown(out)[-2:] == ["21", ""]  # of 24 rows; a cursor cannot go up to what has scrolled away


@pytest.mark.usefixtures("hasty")
def test_a_terminal_without_the_characters_gets_others() -> None:
    out = Latin()
    with Screen(out) as screen:
        screen.draw(lambda canvas: [f"blocks {canvas.blocks}", "cut…"])
    assert shown(out) == ["blocks False", "cut?", ""]


@pytest.mark.parametrize(("setting", "colour"), [("", True), ("1", False)])
def test_no_color_is_heard(monkeypatch: pytest.MonkeyPatch, setting: str, colour: bool) -> None:
    monkeypatch.setenv("NO_COLOR", setting)
    out = Terminal()
    with Screen(out) as screen:
        screen.draw(lambda canvas: [f"colour {canvas.colour}"])
    assert shown(out) == [f"colour {colour}", ""]


@pytest.mark.parametrize(("term", "screen"), [("xterm", True), ("dumb", False)])
def test_pipes_and_dumb_terminals_are_no_screens(monkeypatch: pytest.MonkeyPatch, term: str, screen: bool) -> None:
    monkeypatch.setenv("TERM", term)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours):
        assert is_screen(terminal) is screen
    assert not is_screen(io.StringIO())
