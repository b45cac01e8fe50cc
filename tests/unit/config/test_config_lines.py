"""The line index: every place that tomllib finds a value at has a line, and it is the right one."""

from __future__ import annotations

import string
import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.config.lines import index_lines, line_of

TEXT = '''\
# a comment with = and [brackets]
top = 1
[tls]   # header
certificate = "a # no comment"
"quoted key" = 'lit'
a.b . "c.d" = 3

[[policy]]
from = "x"
[policy.waiver]
reason = """
many
lines = "here"
"""
[[policy]]
from = "y"
list = [
  1,  # one
  [2, 3],
  { deep = { er = "z" }, more = 2 },
]
[[policy.sub]]
k = 2026-01-01T00:00:00Z
[[policy.sub]]
k = 4
["sp ace".'li.t']
end = """"quoted""""
'''


def test_each_kind_of_place() -> None:
    lines = index_lines(TEXT)
    for where, line in {
        ("top",): 2,
        ("tls",): 3,
        ("tls", "certificate"): 4,
        ("tls", "quoted key"): 5,
        ("tls", "a", "b", "c.d"): 6,
        ("policy", 0): 8,
        ("policy", 0, "waiver"): 10,
        ("policy", 0, "waiver", "reason"): 11,
        ("policy", 1): 15,
        ("policy", 1, "from"): 16,
        ("policy", 1, "list"): 17,
        ("policy", 1, "list", 0): 18,
        ("policy", 1, "list", 1, 1): 19,
        ("policy", 1, "list", 2, "deep", "er"): 20,
        ("policy", 1, "sub", 0, "k"): 23,
        ("policy", 1, "sub", 1, "k"): 25,
        ("sp ace", "li.t", "end"): 27,
    }.items():
        assert lines[where] == line, where


def test_what_is_missing_gets_the_line_of_what_contains_it() -> None:
    lines = index_lines(TEXT)
    assert line_of(lines, ("policy", 1, "to")) == 15
    assert line_of(lines, ("nowhere",)) == 0


KEYS = st.text(string.ascii_letters + " .\"'\\[]#=é", min_size=1, max_size=6)
LEAVES = st.integers(-9, 9) | st.booleans() | st.text(string.printable, max_size=8)
TREES = st.dictionaries(
    KEYS, st.recursive(LEAVES, lambda t: st.lists(t, max_size=3) | st.dictionaries(KEYS, t, max_size=3)), max_size=4
)


def _quoted(text: str) -> str:
    return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\u{ord(c):04x}" for c in text) + '"'


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(k)} = {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",\n".join(_inline(v) for v in value) + "]"
    return _quoted(value) if isinstance(value, str) else str(value).lower()


def _places(value: Any, where: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, v in inner for found in [(*where, key), *_places(v, (*where, key))]]


@settings(deadline=None, derandomize=True)  # other work on the machine must not fail a scanner
@given(TREES)
def test_every_place_of_any_document_has_a_line(tree: dict[str, Any]) -> None:
    text = "".join(f"{_quoted(k)} = {_inline(v)}\n" for k, v in tree.items())
    assert tomllib.loads(text) == tree
    lines = index_lines(text)
    assert set(lines) == set(_places(tree))
    for (key, *_rest), line in lines.items():
        first = text.splitlines().index(next(row for row in text.splitlines() if row.startswith(f"{_quoted(key)} =")))
        assert line >= first + 1
