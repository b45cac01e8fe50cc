"""Drive an ASGI application in memory, as one authenticated caller: no socket, no HTTP parser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class CertificateName:
    kind: str | None
    name: str


@dataclass(frozen=True, slots=True)
class TlsSide:
    """What the TLS layer says of the peer: here only who it is, and by which certificate."""

    identity: CertificateName
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class AsgiCaller:
    """A client with the certificate `urn:keystrand:<kind>:<name>`; kind None: no certificate at all."""

    app: App
    name: str
    kind: str | None = "sae"
    headers: tuple[tuple[bytes, bytes], ...] = field(default=((b"content-type", b"application/json"),))
    fingerprint: str = ""

    async def request(self, method: str, path: str, body: bytes | None = None) -> Reply:
        raw, _, query = path.partition("?")
        tls = {"keystrand.tls": TlsSide(CertificateName(self.kind, self.name), self.fingerprint)} if self.kind else {}
        scope: Message = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": unquote(raw, errors="replace"),
            "raw_path": raw.encode(),
            "query_string": query.encode(),
            "headers": list(self.headers),
            "extensions": tls,
        }
        return await _exchange(self.app, scope, body or b"")


async def _exchange(app: App, scope: Message, body: bytes) -> Reply:
    sent: list[Message] = []
    # in two pieces, as a network may deliver it
    pieces = [(body[: len(body) // 2], True), (body[len(body) // 2 :], False)]

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.disconnect"}
        piece, more = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": more}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Reply(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))
