"""Where each value of a TOML file stands: path -> line. The standard parser tells values but not places.

The text has already been accepted by `tomllib`, so this scanner only needs to find its way, not to validate.
"""

from __future__ import annotations

import bisect
import re
from typing import Final

Where = tuple[str | int, ...]  # ("policy", 0, "require")

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_SCALAR: Final = re.compile(r"[^,\]}#\r\n]+")
_BASIC: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL: Final = re.compile(r"'[^']*'")
_MULTILINE: Final = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:\'{0,2})', re.DOTALL)


def index_lines(text: str) -> dict[Where, int]:
    """The line (from 1) of every table, key and array element of a valid TOML text."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


def line_of(lines: dict[Where, int], where: Where) -> int:
    """The line of `where`, or of the nearest thing that contains it; 0 where only the whole file does."""
    for length in range(len(where), 0, -1):
        if where[:length] in lines:
            return lines[where[:length]]
    return 0


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Where, int] = {}
        self.array_sizes: dict[Where, int] = {}  # of [[arrays of tables]]
        self.starts = [match.end() for match in re.finditer("\n", text)]

    def document(self) -> None:
        table: Where = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            table = self.header() if self.peek("[") else self.pair(table)
            self.skip(_BLANK)

    def header(self) -> Where:
        is_array = self.peek("[[")
        line = self.line()
        self.at += 2 if is_array else 1
        key = self.key()
        self.at += 2 if is_array else 1
        where = self.resolve(key[:-1]) + key[-1:]
        if is_array:
            index = self.array_sizes.get(where, 0)
            self.array_sizes[where] = index + 1
            self.note(where, line)
            where = (*where, index)
        else:
            where = self.resolve(key)
        self.note(where, line)
        return where

    def resolve(self, key: Where) -> Where:
        """`key` with the index of the newest element wherever it passes through an array of tables."""
        where: Where = ()
        for part in key:
            where = (*where, part)
            if where in self.array_sizes:
                where = (*where, self.array_sizes[where] - 1)
        return where

    def pair(self, table: Where) -> Where:
        """One `key = value`; dotted keys open the tables between. Returns `table`, which stays the current one."""
        line = self.line()
        where = table
        for part in self.key():
            where = (*where, part)
            self.note(where, line)
        self.at += 1  # "="
        self.skip(_SPACE)
        self.value(where)
        return table

    def key(self) -> Where:
        parts: list[str] = []
        while True:
            self.skip(_SPACE)
            parts.append(self.key_part())
            self.skip(_SPACE)
            if not self.peek("."):
                return tuple(parts)
            self.at += 1

    def key_part(self) -> str:
        if self.peek('"'):
            return _unquoted(self.take(_BASIC))
        if self.peek("'"):
            return self.take(_LITERAL)[1:-1]
        return self.take(_BARE)

    def value(self, where: Where) -> None:
        if self.peek("["):
            self.array(where)
        elif self.peek("{"):
            self.inline_table(where)
        elif self.peek('"""') or self.peek("'''"):
            self.take(_MULTILINE)
        elif self.peek('"') or self.peek("'"):
            self.take(_BASIC if self.peek('"') else _LITERAL)
        else:
            self.take(_SCALAR)

    def array(self, where: Where) -> None:
        self.at += 1
        index = 0
        while not self.closes("]"):
            self.note((*where, index), self.line())
            self.value((*where, index))
            index += 1

    def inline_table(self, where: Where) -> None:
        self.at += 1
        while not self.closes("}"):
            self.pair(where)

    def closes(self, bracket: str) -> bool:
        """Past blanks and one comma: is the container over? Then step over its bracket."""
        self.skip(_BLANK)
        if self.peek(","):
            self.at += 1
            self.skip(_BLANK)
        if not self.peek(bracket):
            return False
        self.at += 1
        return True

    def peek(self, token: str) -> bool:
        return self.text.startswith(token, self.at)

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        assert match is not None, f"tomllib accepted what the line index does not know at offset {self.at}"
        self.at = match.end()
        return match.group()

    def line(self) -> int:
        return bisect.bisect_right(self.starts, self.at) + 1

    def note(self, where: Where, line: int) -> None:
        self.lines.setdefault(where, line)


def _unquoted(text: str) -> str:
    """A quoted key without its quotes; escapes are left to the standard parser."""
    if "\\" not in text:
        return text[1:-1]
    import tomllib

    return str(next(iter(tomllib.loads(f"{text} = 0"))))
