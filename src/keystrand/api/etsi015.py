"""ETSI GS QKD 015 V2.1.1 for SDN controllers: the node's tree over RESTCONF (RFC 8040), to read, to hear
of changes, and to take a hop out of use: the one thing that a controller may set alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, Protocol
from uuid import UUID

from keystrand.api.etsi015_stream import STREAM, Stream, streams
from keystrand.api.exchange import (
    App,
    PeerIdentity,
    Receive,
    Refusal,
    Scope,
    Send,
    header,
    identity_of,
    method_of,
    path_parts,
    read_body,
    refusal_event,
    require_http,
)
from keystrand.core.clock import SystemClock
from keystrand.core.errors import BadRequest, IllegalTransition, UnknownKey
from keystrand.core.events import Sink
from keystrand.wire import etsi015 as wire
from keystrand.wire.strict_json import read_json

MEDIA: Final = "application/yang-data+json"
METHODS: Final = "GET, HEAD, OPTIONS"
WRITES: Final = ("PUT", "PATCH")
BODY_BYTES_MAX: Final = 1024
ENABLE: Final = f"{wire.MODULE}:qkdl_enable"
YANG_LIBRARY: Final = "2016-06-21"  # RFC 7895
_TAGS: Final = {
    400: "invalid-value",
    401: "access-denied",
    403: "access-denied",
    404: "invalid-value",
    405: "operation-not-supported",
    406: "invalid-value",
    409: "operation-failed",
    413: "too-big",
    415: "invalid-value",
    503: "resource-denied",
}


class NodeSource(Protocol):
    """Where the picture of the node comes from. Raises KeystrandError when there is none now."""

    async def node(self) -> wire.Node: ...

    async def enable(self, link: UUID, *, enabled: bool, actor: str) -> None:
        """Let relays use a hop, or not. Raises UnknownKey, BadRequest, and IllegalTransition while pools do not suffice."""
        ...


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def etsi015_app(
    source: NodeSource,
    *,
    may_read: Callable[[PeerIdentity], bool],
    may_write: Callable[[PeerIdentity], bool] = lambda identity: False,
    sink: Sink,
    period_s: float = 1.0,
) -> App:
    """The ASGI application for controllers. Serve it only behind mutual TLS that sets the TLS extension.

    may_write: of those that may read; period_s: between two looks at the node for notifications.
    """
    time = SystemClock()
    stream = Stream(source.node, time, period_s)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        require_http(scope)
        try:
            who = _check_caller(scope, may_read)
            if scope["method"] == "GET" and path_parts(scope) == ["restconf", "streams", STREAM]:
                if stream.is_full:
                    raise _Refused(503, "there are too many listeners")
                await stream.serve(receive, send)
            elif scope["method"] in WRITES and (link := _link_to_set(scope)) is not None:
                if not may_write(who):
                    raise _Refused(403, "this controller may only read")
                await _set(source, link, who, await read_body(_as_json(scope), receive, bytes_max=BODY_BYTES_MAX))
                await _send(send, scope, 204, None)
            else:
                await _send(send, scope, 200, await _answer(source, scope))
        except Exception as error:  # the edge answers whatever happens; the event says what
            status, reason = _refusal(error)
            sink.emit(refusal_event(error, status, time.now_s(), method=method_of(scope)))
            await _send(send, scope, status, _error(status, reason))

    return app


def _refusal(error: Exception) -> tuple[int, str]:
    if isinstance(error, _Refused):
        return error.status, str(error)
    if isinstance(error, Refusal):
        asks = f"the body's Content-Type shall be {MEDIA}" if error.answer.status == 415 else "the body cannot be read"
        return error.answer.status, asks
    for kind, status in ((UnknownKey, 404), (IllegalTransition, 409), (BadRequest, 400)):
        if isinstance(error, kind):
            return status, str(error)
    return 503, "the node cannot be read now"


def _link_to_set(scope: Scope) -> UUID | None:
    """The link of which qkdl_enable is to be set; None for every other place."""
    parts = [part.removeprefix(f"{wire.MODULE}:") for part in path_parts(scope) or []]
    match parts:
        case ["restconf", "data", "qkd_node", "qkd_links", entry, "qkdl_enable"] if entry.startswith("qkd_link="):
            try:
                return UUID(entry.removeprefix("qkd_link="))
            except ValueError:
                raise _Refused(404, "no such resource") from None
    return None


def _as_json(scope: Scope) -> Scope:
    """JSON of YANG data is JSON."""
    headers = [
        (k, v.replace(MEDIA.encode(), b"application/json") if k == b"content-type" else v) for k, v in scope["headers"]
    ]
    return {**scope, "headers": headers}


async def _set(source: NodeSource, link: UUID, who: PeerIdentity, body: bytes) -> None:
    try:
        value = read_json(body, depth_max=4)
    except BadRequest as error:
        raise _Refused(400, str(error)) from None
    if not isinstance(value, dict) or list(value) != [ENABLE] or not isinstance(value[ENABLE], bool):
        raise _Refused(400, f'the body shall be {{"{ENABLE}": true or false}}')
    await source.enable(link, enabled=value[ENABLE], actor=f"controller {who.name}")


async def _answer(source: NodeSource, scope: Scope) -> dict[str, Any] | None:
    parts = path_parts(scope)
    if parts is None or parts[:1] != ["restconf"]:
        raise _Refused(404, "no such path")
    if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
        raise _Refused(405, "this place is only read here")
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


def _check_caller(scope: Scope, may_read: Callable[[PeerIdentity], bool]) -> PeerIdentity:
    """Before anything else, so that a stranger cannot even learn which paths exist."""
    identity = identity_of(scope)
    if identity is None or not may_read(identity):
        raise _Refused(401, "no permission")
    return identity


async def _resource(source: NodeSource, parts: list[str]) -> dict[str, Any] | None:
    match parts:
        case []:
            return {"ietf-restconf:restconf": {"data": {}, "operations": {}, "yang-library-version": YANG_LIBRARY}}
        case ["yang-library-version"]:
            return {"ietf-restconf:yang-library-version": YANG_LIBRARY}
        case ["data"]:
            return {"ietf-restconf:data": wire.resource(await source.node(), [])}
        case ["data", "ietf-restconf-monitoring:restconf-state"]:
            return streams()
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
    headers = [(b"cache-control", b"no-store")]
    if status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    if body:
        headers.append((b"content-type", MEDIA.encode()))
    if status == 405 or (content is None and status == 200):
        headers.append((b"allow", METHODS.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
