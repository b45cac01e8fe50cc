"""ETSI GS QKD 015 V2.1.1 for SDN controllers: the node's tree over RESTCONF (RFC 8040), to read and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, Protocol

from keystrand.api.exchange import TLS_EXTENSION, App, PeerIdentity, Receive, Scope, Send, header, path_parts
from keystrand.core.clock import Clock, SystemClock
from keystrand.core.events import Event, Scalar, Sink
from keystrand.wire import etsi015 as wire

MEDIA: Final = "application/yang-data+json"
METHODS: Final = "GET, HEAD, OPTIONS"
YANG_LIBRARY: Final = "2016-06-21"  # RFC 7895
_TAGS: Final = {
    400: "invalid-value",
    401: "access-denied",
    404: "invalid-value",
    405: "operation-not-supported",
    406: "invalid-value",
    503: "resource-denied",
}


class NodeSource(Protocol):
    """Where the picture of the node comes from. Raises KeystrandError when there is none now."""

    async def node(self) -> wire.Node: ...


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def etsi015_app(
    source: NodeSource, *, may_read: Callable[[PeerIdentity], bool], sink: Sink, clock: Clock | None = None
) -> App:
    """The ASGI application for controllers. Serve it only behind mutual TLS that sets the TLS extension."""
    time = clock or SystemClock()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served here")
        try:
            content = await _answer(source, may_read, scope)
            await _send(send, scope, 200, content)
        except Exception as error:  # the edge answers whatever happens; the event says what
            status = error.status if isinstance(error, _Refused) else 503
            reason = str(error) if isinstance(error, _Refused) else "the node cannot be read now"
            fields: dict[str, Scalar] = {
                "status": status,
                "reason": type(error).__name__,
                "method": str(scope["method"])[:16],
            }
            sink.emit(Event("request.refused", time.now_s(), fields))
            await _send(send, scope, status, _error(status, reason))

    return app


async def _answer(source: NodeSource, may_read: Callable[[PeerIdentity], bool], scope: Scope) -> dict[str, Any] | None:
    _check_caller(scope, may_read)
    parts = path_parts(scope)
    if parts is None or parts[:1] != ["restconf"]:
        raise _Refused(404, "no such path")
    if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
        raise _Refused(405, "this tree is only read here")
    if scope["method"] == "OPTIONS":
        return None
    if not _accepts(header(scope, b"accept")):
        raise _Refused(406, f"only {MEDIA} is served")
    if scope.get("query_string"):
        raise _Refused(400, "query parameters are not supported")
    found = await _resource(source, [part for part in parts[1:] if part])
    if found is None:
        raise _Refused(404, "no such resource")
    return found


def _check_caller(scope: Scope, may_read: Callable[[PeerIdentity], bool]) -> None:
    """Before anything else, so that a stranger cannot even learn which paths exist."""
    peer = (scope.get("extensions") or {}).get(TLS_EXTENSION)
    identity: PeerIdentity | None = getattr(peer, "identity", None)
    if identity is None or not may_read(identity):
        raise _Refused(401, "no permission")


async def _resource(source: NodeSource, parts: list[str]) -> dict[str, Any] | None:
    match parts:
        case []:
            return {"ietf-restconf:restconf": {"data": {}, "operations": {}, "yang-library-version": YANG_LIBRARY}}
        case ["yang-library-version"]:
            return {"ietf-restconf:yang-library-version": YANG_LIBRARY}
        case ["data"]:
            return {"ietf-restconf:data": wire.resource(await source.node(), [])}
        case ["data", wire.ROOT, *steps]:
            return wire.resource(await source.node(), steps)
    return None


def _accepts(accept: bytes | None) -> bool:
    """RFC 9110, 12.5.1, without weights beyond none at all: whether JSON of YANG data will do."""
    if accept is None:
        return True
    wanted = [entry.split(b";") for entry in accept.lower().replace(b" ", b"").split(b",")]
    offered = (
        MEDIA.encode(),
        b"application/json",
        b"application/*",
        b"*/*",
    )  # TeraFlowSDN's driver asks for plain JSON
    return any(media in offered and b"q=0" not in parameters for media, *parameters in wanted)


def _error(status: int, reason: str) -> dict[str, Any]:
    tag = _TAGS.get(status, "operation-failed")
    return {"ietf-restconf:errors": {"error": [{"error-type": "protocol", "error-tag": tag, "error-message": reason}]}}


async def _send(send: Send, scope: Scope, status: int, content: dict[str, Any] | None) -> None:
    body = json.dumps(content, separators=(",", ":")).encode() if content is not None else b""
    headers = [(b"cache-control", b"no-store"), (b"content-length", b"%d" % len(body))]
    if body:
        headers.append((b"content-type", MEDIA.encode()))
    if status == 405 or content is None:
        headers.append((b"allow", METHODS.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
