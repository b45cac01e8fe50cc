"""One HTTP exchange over ASGI, reduced to what the edge needs: who asks, for which path, with what body, what goes back.

Raw ASGI instead of a framework: three routes, and the path must be split before it is decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from keystrand.core.errors import BadRequest, NotPermitted, Unavailable
from keystrand.core.events import Event, Scalar

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

TLS_EXTENSION: Final = "keystrand.tls"
JSON: Final = b"application/json"
_PERCENT: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_JSON_TYPE: Final = re.compile(rb"application/json\s*(?:;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE)


class PeerIdentity(Protocol):
    """What a certificate says of its holder."""

    @property
    def kind(self) -> str | None: ...
    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and the headers beyond those that every answer has."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Refusal(Exception):
    """An answer that ends the exchange early, raised by the reader of a request."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def _peer(scope: Scope) -> object:
    return (scope.get("extensions") or {}).get(TLS_EXTENSION)


def identity_of(scope: Scope) -> PeerIdentity | None:
    """Whom the client certificate names; None without one."""
    return getattr(_peer(scope), "identity", None)


def fingerprint_of(scope: Scope) -> str:
    """SHA-256 of the client certificate, hex; "" without one."""
    return str(getattr(_peer(scope), "fingerprint", ""))


def caller_of(scope: Scope) -> str:
    """The SAE that the client certificate names. Raises NotPermitted for anybody else, or without a certificate."""
    identity = identity_of(scope)
    if identity is None or identity.kind != "sae" or not identity.name:
        raise NotPermitted("only SAEs are served here")
    return identity.name


def path_parts(scope: Scope) -> list[str] | None:
    """The path's parts, decoded once after the split. None when a part hides a slash, a dot segment or another escape."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    parts = [_decoded(part) for part in raw.partition(b"?")[0].split(b"/")]
    if parts[0] != "" or any(part is None for part in parts):
        return None
    return [part for part in parts[1:] if part is not None]


def _decoded(part: bytes) -> str | None:
    plain = _PERCENT.sub(lambda match: bytes([int(match[1], 16)]), part)
    if plain in (b".", b"..") or b"/" in plain or b"%" in plain or not plain.isascii():
        return None
    return plain.decode()


def query_params(scope: Scope) -> list[tuple[str, str]]:
    """The query, decoded. Raises BadRequest."""
    raw: bytes = scope.get("query_string", b"")
    if not raw:
        return []
    try:
        return parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=8
        )
    except ValueError:
        raise BadRequest("the query cannot be read") from None


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this (lower-case) name."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((value for key, value in headers if key == name), None)


async def read_body(scope: Scope, receive: Receive, *, bytes_max: int) -> bytes:
    """The whole body of a POST. Raises Refusal: 413 beyond `bytes_max`, 415 for a content type that is not JSON."""
    length = header(scope, b"content-length")
    if length is not None and (not length.isdigit() or len(length) > 12 or int(length) > bytes_max):
        raise Refusal(message(413, f"the body is longer than {bytes_max} bytes", close=True))
    chunks = bytearray()
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Refusal(Answer(400))
        chunks += event.get("body", b"")
        more = event.get("more_body", False)
        if len(chunks) > bytes_max:
            raise Refusal(message(413, f"the body is longer than {bytes_max} bytes", close=True))
    check_json(scope, chunks)
    return bytes(chunks)


def check_json(scope: Scope, body: bytes | bytearray) -> None:
    """Raises Refusal: 415 for a body whose content type is not JSON."""
    if body and not _JSON_TYPE.fullmatch(header(scope, b"content-type") or b""):
        raise Refusal(message(415, "the body is not application/json in UTF-8"))


def headers_of(answer: Answer, content_type: bytes = JSON) -> list[tuple[bytes, bytes]]:
    """All headers but the length: every answer forbids to be stored."""
    headers = [(b"cache-control", b"no-store"), *answer.headers]
    if answer.body:
        headers.append((b"content-type", content_type))
    return headers


def app_of(answer: Callable[[Scope, Receive], Awaitable[Answer]], content_type: bytes = JSON) -> App:
    """The ASGI application that gives these answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        require_http(scope)
        await send_answer(send, await answer(scope, receive), content_type=content_type)

    return app


def require_http(scope: Scope) -> None:
    """A server asks for nothing else; one that does is not ours. Raises ValueError."""
    if scope["type"] != "http":
        raise ValueError(f"{scope['type']} is not served here")


def refusal_event(error: BaseException, status: int, at_s: float, **fields: Scalar) -> Event:
    """The event of a request that was refused."""
    return Event("request.refused", at_s, {"status": status, "reason": type(error).__name__, **fields})


def method_of(scope: Scope) -> str:
    """As events and records have it."""
    return str(scope["method"])[:16]


async def send_answer(send: Send, answer: Answer, *, content_type: bytes = JSON) -> None:
    """Every answer with content says its length."""
    headers = headers_of(answer, content_type)
    if answer.status != 204:  # RFC 9110, 8.6: 204 has none
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def message(status: int, text: str, *, close: bool = False, allow: str = "") -> Answer:
    """An error answer with the standard's error object."""
    headers = [(b"connection", b"close")] if close else []
    if allow:
        headers.append((b"allow", allow.encode()))
    return Answer(status, json.dumps({"message": text}).encode(), tuple(headers))


def status_of(error: BaseException) -> int:
    """The one table from errors to HTTP: 401 no permission, 400 the request's fault, 503 everything of ours."""
    if isinstance(error, NotPermitted):
        return 401
    return 400 if isinstance(error, BadRequest) else 503


def retry_after(error: BaseException) -> tuple[tuple[bytes, bytes], ...]:
    """Retry-After in whole seconds, at least 1, for what is worth repeating."""
    seconds = error.retry_after_s if isinstance(error, Unavailable) else 1.0
    return ((b"retry-after", b"%d" % max(1, min(3600, round(seconds)))),)


def words_of(error: BaseException) -> str:
    """What the caller may read: our own words, or nothing of an inner fault."""
    return str(error) if isinstance(error, BadRequest | Unavailable) else "the KME cannot serve this now"
