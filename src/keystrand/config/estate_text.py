"""An estate as text: tables that an import found are written behind what a person wrote, which stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date
from enum import Enum
from typing import Any, Final

from keystrand.config.fields import MISSING, Field, bare, element_of_list, fields_of, is_table
from keystrand.config.lines import Where

BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def tables(kind: str, entries: Mapping[str, Any]) -> Iterator[str]:
    """One text per entry: `[links.NAME]` with its fields and the tables below it. Fields at their default are left out."""
    for name, entry in entries.items():
        yield "\n".join(_table(entry, (kind, name), "[{}]")) + "\n"


def protocols(link: str, found: Mapping[str, Any]) -> Iterator[str]:
    """What protects a link, as further elements of its `protocols`."""
    for protocol in found.values():
        yield "\n".join(_table(protocol, ("links", link, "protocols"), "[[{}]]")) + "\n"


def head(name: str, planned: date) -> str:
    return f"name = {_quoted(name)}\nplanned = {planned}\n"


def _table(part: Any, where: Where, brackets: str) -> Iterator[str]:
    """Own fields first: what stands behind a table's header belongs to it."""
    yield brackets.format(".".join(_key(str(step)) for step in where))
    below: list[tuple[Any, Where, str]] = []
    for field in _fields(part):
        value, kind = getattr(part, field.name), bare(field.type)
        if value is None or (field.default is not MISSING and value == field.default):
            continue
        if element_of_list(kind) is not None:
            below += [(each, (*where, field.key), "[[{}]]") for each in value]
        elif isinstance(value, Mapping):
            below += [(each, (*where, field.key, name), "[{}]") for name, each in value.items()]
        else:
            yield f"{_key(field.key)} = {spelled(value)}"
    for each, place, form in below:
        yield from _table(each, place, form)


def _fields(part: Any) -> tuple[Field, ...]:
    kind: Any = type(part)
    return fields_of(kind)


def spelled(value: Any) -> str:
    """A value as TOML writes it; a table that is a value stands in one line."""
    if isinstance(value, Enum):
        return _quoted(str(value.value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | int | date):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(spelled, value)) + "]"
    if is_table(type(value)):
        fields = ((f.key, getattr(value, f.name), f.default) for f in _fields(value))
        inner = ", ".join(f"{_key(key)} = {spelled(v)}" for key, v, default in fields if v is not None and v != default)
        return "{ " + inner + " }"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """A basic string: JSON's escapes are TOML's too, and DEL needs one besides."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(text: str) -> str:
    return text if BARE.fullmatch(text) else _quoted(text)


def without(known: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What is new; what a person wrote is never overwritten."""
    return {name: entry for name, entry in found.items() if name not in known}
