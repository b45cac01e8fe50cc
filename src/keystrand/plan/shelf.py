"""The data that ships with the planner: tables of `plan/data/`, read once each."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TypeVar

import msgspec

T = TypeVar("T")


def shipped(name: str, kind: type[T]) -> T:
    """The table `data/NAME.toml` as `kind`. Unknown fields and wrong types are our own mistakes, and raise."""
    return msgspec.toml.decode(_text(name), type=kind)


def shipped_rows(name: str, table: str, kind: type[T]) -> tuple[T, ...]:
    """The rows `[[table]]` of `data/NAME.toml`, in their order."""
    return tuple(msgspec.convert(row, type=kind) for row in msgspec.toml.decode(_text(name))[table])


@cache
def _text(name: str) -> str:
    return (files("keystrand.plan") / "data" / f"{name}.toml").read_text("utf-8")
