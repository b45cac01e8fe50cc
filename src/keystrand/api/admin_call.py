"""One call on the administration API: its route, its parameters, and what a handler gives back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final

from keystrand.api.admin_desk import Desk, Order
from keystrand.api.admin_forms import NAME, STATES, UUID, Form
from keystrand.core.clock import Clock
from keystrand.core.errors import BadRequest
from keystrand.govern.approval import DualControl
from keystrand.govern.release import Releases
from keystrand.govern.roles import Operation, Principal

PREFIX: Final = "/admin/v1"
ETAG: Final = '^"[0-9a-f-]{1,64}"$'


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """A parameter of a query or a path: how OpenAPI describes it is what `read` takes."""

    name: str
    schema: Mapping[str, Any]
    about: str

    def read(self, text: str) -> Any:
        """Raises BadRequest."""
        reader = _READERS[self.schema["type"]]
        value = reader(text)
        if value is None or not _is_within(value, self.schema):
            raise BadRequest(f"{self.name} is not {self.about}")
        return value


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?(0|[1-9][0-9]{0,14})", text) else None


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{0,18})?([eE][+-]?[0-9]{1,2})?", text) else None


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {"integer": _integer, "number": _number, "string": str}


def _is_within(value: Any, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, str):
        pattern = schema.get("pattern")
        fits = pattern is None or re.fullmatch(pattern.removeprefix("^").removesuffix("$"), value) is not None
        return fits and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 4096)
    return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


def _text(name: str, about: str, pattern: str, longest: int) -> Param:
    return Param(
        name=name, about=about, schema={"type": "string", "pattern": pattern, "minLength": 1, "maxLength": longest}
    )


TENANT, SAE, PEER, LINK, RELAY = (
    _text(name, f"the name of a {name}", NAME, 64) for name in ("tenant", "sae", "peer", "link", "relay")
)
STATE = _text("state", "a state of SP 800-57", STATES, 16)
TAG = _text("tag", "name=value", "^[a-z_]+=[!-~]+$", 256)
SOURCE = _text("source", "the name of a source", "^[!-~]+$", 128)
SINCE_S, UNTIL_S = (
    Param(name=name, about="a time in Unix seconds", schema={"type": "number", "minimum": 0, "maximum": 1e11})
    for name in ("since_s", "until_s")
)
CURSOR = _text("cursor", "a cursor as the page before gave it", "^[!-~]+$", 128)
LIMIT = Param(
    name="limit", about="1 to 1000", schema={"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
)
FIRST = Param(name="first", about="a record number", schema={"type": "integer", "minimum": 0, "maximum": 10**12})
KEY_ID = _text("key_id", "a key ID", UUID, 36)
RELEASE_ID = _text("release_id", "the ID of a release", UUID, 36)
PROPOSAL_ID = _text("proposal_id", "the ID of a proposal", UUID, 36)
WINDOW_ID = _text("window_id", "the ID of a window", UUID, 36)
SITE = _text("site", "the name of a site", NAME, 64)
JOB = _text("job", "the name of a job", NAME, 64)
NUMBER = Param(name="number", about="a record number", schema={"type": "integer", "minimum": 0, "maximum": 10**12})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An authenticated call whose form is right. What it may reach is for the handler to check."""

    principal: Principal
    path: Mapping[str, Any]
    query: Mapping[str, Any]
    body: Any
    if_match: str
    operation: Operation
    control: DualControl
    releases: Releases
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a handler did. order: to be carried out once this is durable, before anything is answered. then: the next part
    of a long operation, in a transaction of its own, after the order."""

    form: Form
    status: int = 200
    etag: str = ""
    order: Order | None = None
    then: Callable[[Desk], Result] | None = None


Handler = Callable[[Desk, Call], Result]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API; the OpenAPI document is made of these and of nothing else.

    path: below PREFIX, with {names}. changes: it alters something, so it wants an Idempotency-Key. guarded: it wants the
    ETag of what it would replace. answers: status -> form.
    """

    method: str
    path: str
    operation: Operation
    handle: Handler
    summary: str
    answers: Mapping[int, type[Form]]
    _: KW_ONLY
    params: tuple[Param, ...] = ()
    query: tuple[Param, ...] = ()
    body: type[Form] | None = None
    changes: bool = False
    guarded: bool = False
    parts: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(f"{PREFIX}{self.path}".split("/")[1:]))

    def match(self, parts: list[str]) -> dict[str, str] | None:
        """The path's parameters as they stand there, or None for another path."""
        if len(parts) != len(self.parts):
            return None
        found = {}
        for mine, theirs in zip(self.parts, parts, strict=True):
            if mine.startswith("{"):
                found[mine[1:-1]] = theirs
            elif mine != theirs:
                return None
        return found
