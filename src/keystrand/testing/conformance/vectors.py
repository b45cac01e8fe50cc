"""Single exchanges from a text file: what is asked, and what must come back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

from keystrand.testing.conformance.target import Caller, Nonconformance, Response, Target, ask, expect_status

_BYTES: Final = {
    b"<ff>": b"\xff",
    b"<bom>": b"\xef\xbb\xbf",
    b"<deep>": b"[" * 5000 + b"]" * 5000,
    b"<big>": b" " * 70_000,
}


@dataclass(frozen=True, slots=True)
class Vector:
    """One line of the file, tokens still in place."""

    name: str
    clause: str
    level: str
    caller: str
    line: str
    body: str
    statuses: tuple[int, ...]
    pattern: str


def vectors() -> list[Vector]:
    """The packaged cases, in order."""
    text = resources.files("keystrand.testing.conformance").joinpath("etsi014.txt").read_text(encoding="utf-8")
    return [_vector(line) for line in text.splitlines() if line and not line.startswith("#")]


def _vector(line: str) -> Vector:
    name, clause, level, caller, request, body, status, pattern = line.split(" | ")
    assert level in ("must", "should"), line
    return Vector(name, clause, level, caller, request, body, tuple(map(int, status.split("/"))), pattern)


async def check_vector(vector: Vector, target: Target, words: Mapping[str, str]) -> None:
    """Ask and compare. Raises Nonconformance."""
    caller: Caller = target.initiator if vector.caller == "initiator" else target.responder
    method, path = filled(vector.line, words).split(" ", 1)
    response = await ask(caller, method, path, _body(vector, words))
    expect_status(response, *vector.statuses)
    _check_body(vector, words, response)


def filled(text: str, words: Mapping[str, str]) -> str:
    """`text` with its <tokens> replaced."""
    for token, value in words.items():
        text = text.replace(token, value)
    return text


def _body(vector: Vector, words: Mapping[str, str]) -> bytes | None:
    if vector.body == "-":
        return None if vector.line.startswith("GET") else b""
    body = filled(vector.body, words).encode()
    for token, value in _BYTES.items():
        body = body.replace(token, value)
    return body


def _check_body(vector: Vector, words: Mapping[str, str], response: Response) -> None:
    if vector.pattern == "*":
        return
    if vector.pattern == "-":
        if response.body:
            raise Nonconformance("the answer has a body")
        return
    pattern = filled(vector.pattern, {token: re.escape(value) for token, value in words.items()})
    if not re.search(pattern.encode(), response.body):
        raise Nonconformance(f"the answer's body does not match {pattern}")
