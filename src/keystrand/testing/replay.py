"""A terminal for tests: what stands on the screen after a program wrote to it. Knows what keystrand writes, no more."""

from __future__ import annotations

import re

TOKEN = re.compile(r"\x1b\[(\??[0-9]*)([A-Za-z])|(.)", re.DOTALL)


class Replay:
    """All lines ever written (a screen without an end); raises ValueError for a sequence that it does not know."""

    def __init__(self, columns: int = 80) -> None:
        self.columns = columns
        self.lines: list[str] = [""]
        self.row = self.column = 0
        self.cursor = True
        self.colours = 0

    def feed(self, text: str) -> None:
        for match in TOKEN.finditer(text):
            argument, verb, char = match.groups()
            if verb:
                self._steer(argument, verb)
            else:
                self._put(char)

    def _put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        else:
            if self.column == self.columns:  # the line goes on below, as on a real screen
                self._put("\n")
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1

    def _steer(self, argument: str, verb: str) -> None:
        match argument, verb:
            case _, "A":
                self.row -= int(argument)
                assert self.row >= 0, "above the first line"
            case "0", "J":
                self.lines[self.row] = self.lines[self.row][: self.column]
                del self.lines[self.row + 1 :]
            case "?25", "l" | "h":
                self.cursor = verb == "h"
            case _, "m":
                self.colours += 1
            case _:
                raise ValueError(f"unknown sequence {argument}{verb}")
