"""The KME pair under test, seen through its SAEs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Response(Protocol):
    """Status, headers (names in any case) and body of one answer."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class Caller(Protocol):
    """An HTTP client with one SAE's certificate, connected to that SAE's KME."""

    async def request(self, method: str, path: str, body: bytes | None = None, /) -> Response: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Who asks whom. `third` is a second SAE of the responder's site that the initiator may draw keys for (multicast).

    `stranger` is an SAE of the initiator's site with a valid certificate and no rule. Cases that need an SAE that is
    not given are reported as not run, with the reason.
    """

    initiator_id: str
    responder_id: str
    initiator: Caller
    responder: Caller
    third_id: str = ""
    third: Caller | None = None
    stranger_id: str = ""
    stranger: Caller | None = None


class Nonconformance(Exception):
    """What the KME did, and what it should have done. Never quotes key material."""


async def ask(caller: Caller, method: str, path: str, body: bytes | None = None) -> Response:
    return await caller.request(method, path, body)


def header_of(response: Response, name: str) -> str:
    """The header's value whatever the case of its name; empty when it is absent."""
    return next((value for key, value in response.headers.items() if key.lower() == name), "")


def expect_status(response: Response, *statuses: int) -> None:
    """Any of them will do. Raises Nonconformance."""
    if response.status not in statuses:
        raise Nonconformance(f"answered {response.status} instead of {' or '.join(map(str, statuses))}")
