"""The administration API: who may see and move what, never a key byte. REST over mutual TLS, JSON only.

Each call runs in one transaction together with its audit record: what is not recorded did not happen and is not answered.
Refusals are recorded too. The order of checks is fixed: identity, route, role, form, reach; a stranger learns nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Final

import msgspec

from keystrand.api.admin_auth import Door, Strangers, holder_of
from keystrand.api.admin_call import ETAG, Call, Result, Route
from keystrand.api.admin_desk import Administration, Declined, Desk, Remembered
from keystrand.api.admin_forms import Problem, encode
from keystrand.api.admin_routes import ROUTES
from keystrand.api.exchange import (
    Answer,
    App,
    Receive,
    Refusal,
    Scope,
    app_of,
    fingerprint_of,
    header,
    method_of,
    path_parts,
    query_params,
    read_body,
    refusal_event,
    retry_after,
)
from keystrand.api.openapi import document
from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import BadRequest, IllegalTransition, KeystrandError, NotPermitted, Unavailable, UnknownKey
from keystrand.core.events import Sink
from keystrand.core.limits import Limits
from keystrand.govern.approval import DualControl
from keystrand.govern.release import Releases
from keystrand.govern.roles import Operation, Principal
from keystrand.wire.strict_json import read_json

REMEMBERED_S: Final = 86_400.0
KEY_LENGTH_MAX: Final = 64
OPENAPI: Final = ["admin", "v1", "openapi.json"]
_STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (NotPermitted, 403),
    (UnknownKey, 404),
    (IllegalTransition, 409),
    (BadRequest, 400),
    (Unavailable, 503),
)


@dataclass(frozen=True, slots=True)
class _Edge:
    administration: Administration
    door: Door
    control: DualControl
    releases: Releases
    limits: Limits
    sink: Sink
    clock: Clock
    strangers: Strangers


def admin_app(
    administration: Administration,
    door: Door,
    control: DualControl,
    *,
    limits: Limits,
    sink: Sink,
    clock: Clock | None = None,
    releases: Releases | None = None,
) -> App:
    """The ASGI application of the administration listener. Serve it only behind mutual TLS that sets the TLS extension."""
    time = clock or SystemClock()
    releases = releases or Releases(time, control.entropy, control.ttl_s)
    edge = _Edge(administration, door, control, releases, limits, sink, time, Strangers(time))

    return app_of(partial(_answer, edge))


async def _answer(edge: _Edge, scope: Scope, receive: Receive) -> Answer:
    who: Principal | None = None
    operation = ""
    try:
        who = await edge.door.principal(scope)
        route, found = _route(scope)
        operation = route.operation.value if route else Operation.STATUS_READ.value
        if not who.permits(Operation(operation)):
            raise NotPermitted("your role does not include this")
        if route is None:
            return await _describe(edge, who)
        return await _serve(edge, who, route, found, scope, receive)
    except Exception as error:  # the edge answers whatever happens; the record says what
        return await _refuse(edge, who, operation, scope, error)


def _route(scope: Scope) -> tuple[Route | None, dict[str, str]]:
    """The route and its parameters; None for the API's own description. Raises Declined 404, 405."""
    parts = path_parts(scope) or []
    if parts == OPENAPI:
        if scope["method"] != "GET":
            raise _MethodRefused(("GET",))
        return None, {}
    matching = [(route, found) for route in ROUTES if (found := route.match(parts)) is not None]
    for route, found in matching:
        if route.method == scope["method"]:
            return route, found
    if matching:
        raise _MethodRefused(tuple(route.method for route, _ in matching))
    raise Declined(404, "no such path")


class _MethodRefused(Declined):
    def __init__(self, methods: tuple[str, ...]) -> None:
        super().__init__(405, f"use {' or '.join(methods)}")
        self.methods = methods


async def _describe(edge: _Edge, who: Principal) -> Answer:
    await edge.administration.act(lambda desk: _record(desk, "admin.call", who, "openapi.read", "GET", "/", 200))
    return Answer(200, msgspec.json.encode(document(ROUTES)))


# serving -------------------------------------------------------------------------------------------------------------


async def _serve(
    edge: _Edge, who: Principal, route: Route, found: dict[str, str], scope: Scope, receive: Receive
) -> Answer:
    query = _query(route, scope)
    raw = await read_body(scope, receive, bytes_max=edge.limits.http_body_bytes_max)
    call = Call(
        principal=who,
        path=_path(route, found),
        query=query,
        body=_body(route, raw, edge.limits),
        if_match=_if_match(route, scope),
        operation=route.operation,
        control=edge.control,
        releases=edge.releases,
        clock=edge.clock,
    )
    once = _idempotency_key(route, scope)
    target = "/".join(["", *route.parts]).format(**found)
    digest = sha256(b"\0".join((route.method.encode(), target.encode(), call.if_match.encode(), raw))).hexdigest()

    def note(desk: Desk, answer: Answer) -> None:
        _record(desk, "admin.call", who, route.operation.value, route.method, target, answer.status)
        if once:
            kept = Remembered(digest=digest, status=answer.status, body=answer.body, at_s=edge.clock.now_s())
            desk.remember(who.name, once, kept)

    def operation(desk: Desk) -> tuple[Answer, Result | None]:
        if once and (kept := desk.remembered(who.name, once)) is not None:
            return _again(desk, kept, digest, call, route, target), None
        result = route.handle(desk, call)
        answer = _answered(result)
        if result.order is None:  # else once it was carried out
            note(desk, answer)
        return answer, result

    answer, result = await edge.administration.act(operation)
    ordered = result is not None and result.order is not None
    while result is not None:
        if result.order is not None:
            await edge.administration.carry_out(result.order)
        result = await edge.administration.act(result.then) if result.then else None
        answer = _answered(result) if result else answer
    if ordered:
        await edge.administration.act(lambda desk: note(desk, answer))
    return answer


def _answered(result: Result) -> Answer:
    headers = ((b"etag", result.etag.encode()),) if result.etag else ()
    return Answer(result.status, encode(result.form), headers)


def _again(desk: Desk, kept: Remembered, digest: str, call: Call, route: Route, target: str) -> Answer:
    if kept.digest != digest:
        raise Declined(422, "this Idempotency-Key stands for another request", hint="use a fresh key for each request")
    _record(desk, "admin.call", call.principal, route.operation.value, route.method, target, kept.status, again=True)
    return Answer(kept.status, kept.body, ((b"idempotency-replayed", b"true"),))


def _record(
    desk: Desk, kind: str, who: Principal, operation: str, method: str, target: str, status: int, *, again: bool = False
) -> None:
    desk.record(
        kind,
        actor=who.name,
        by=who.method,
        certificate=who.fingerprint,
        operation=operation,
        method=method,
        target=target,
        status=status,
        again=again,
    )


# the form of a request -----------------------------------------------------------------------------------------------


def _path(route: Route, found: dict[str, str]) -> dict[str, Any]:
    """Raises Declined 404: a name that cannot be is one that is not there."""
    try:
        return {param.name: param.read(found[param.name]) for param in route.params}
    except BadRequest:
        raise Declined(404, "no such path") from None


def _query(route: Route, scope: Scope) -> dict[str, Any]:
    """Each parameter at most once, and only those of the route (a policy target never comes from a stray parameter)."""
    known = {param.name: param for param in route.query}
    values: dict[str, Any] = {}
    for name, text in query_params(scope):
        if name not in known or name in values:
            raise BadRequest("a query parameter is unknown here, or stands twice")
        values[name] = known[name].read(text)
    return values


def _body(route: Route, raw: bytes, limits: Limits) -> Any:
    if route.body is None:
        if raw:
            raise BadRequest("this takes no body")
        return None
    value = read_json(raw, depth_max=limits.json_depth_max)
    try:
        return msgspec.convert(value, type=route.body)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None


def _if_match(route: Route, scope: Scope) -> str:
    if not route.guarded:
        return ""
    value = _single(scope, b"if-match")
    if not value:
        raise Declined(428, "If-Match is missing", hint="read it first, and send back its ETag")
    if not re.fullmatch(ETAG.removeprefix("^").removesuffix("$"), value):
        raise BadRequest("If-Match is not an ETag of this service")
    return value


def _idempotency_key(route: Route, scope: Scope) -> str:
    if not route.changes:
        return ""
    value = _single(scope, b"idempotency-key")
    if not 1 <= len(value) <= KEY_LENGTH_MAX or not value.replace("-", "").replace("_", "").isalnum():
        raise BadRequest(f"Idempotency-Key shall be 1 to {KEY_LENGTH_MAX} letters, digits, - or _")
    return value


def _single(scope: Scope, name: bytes) -> str:
    """The one header of this name, "" without. Raises BadRequest for several, and for what is not ASCII."""
    if sum(key == name for key, _ in scope["headers"]) > 1:
        raise BadRequest(f"{name.decode()} stands twice")
    try:
        return (header(scope, name) or b"").decode("ascii")
    except UnicodeDecodeError:
        raise BadRequest(f"{name.decode()} is not ASCII") from None


# refusing ------------------------------------------------------------------------------------------------------------


async def _refuse(edge: _Edge, who: Principal | None, operation: str, scope: Scope, error: Exception) -> Answer:
    answer = _problem(who, error)
    edge.sink.emit(refusal_event(error, answer.status, edge.clock.now_s(), method=method_of(scope)))
    if who is None and not edge.strangers.is_recorded(holder_of(scope)):
        return answer  # the event above counts it

    def note(desk: Desk) -> None:
        desk.record(
            "admin.refused",
            actor=who.name if who else holder_of(scope),
            by=who.method if who else "",
            certificate=who.fingerprint if who else fingerprint_of(scope),
            operation=operation,
            method=method_of(scope),
            target=str(scope["path"])[:256],
            status=answer.status,
            reason=type(error).__name__,
        )

    try:
        await edge.administration.act(note)
    except KeystrandError as unrecorded:
        return _problem(who, unrecorded)
    return answer


def _problem(who: Principal | None, error: Exception) -> Answer:
    if isinstance(error, Refusal):
        return _told(
            error.answer.status, _STATUS_WORDS.get(error.answer.status, "refused"), headers=error.answer.headers
        )
    if who is None and isinstance(error, NotPermitted):
        return _told(401, "not authenticated", headers=((b"www-authenticate", b"Bearer"),))  # why is in the log
    status = error.status if isinstance(error, Declined) else _status_of(error)
    if isinstance(error, _MethodRefused):
        return _told(405, str(error), headers=((b"allow", ", ".join(error.methods).encode()),))
    if status == 503:
        words = str(error) if isinstance(error, Unavailable) else "the key manager cannot do this now"
        return _told(503, words, headers=retry_after(error))
    return _told(status, str(error), hint=getattr(error, "hint", None) or "")


_STATUS_WORDS: Final = {
    400: "the request was cut off",
    413: "the body is too long",
    415: "the body is not application/json",
}


def _status_of(error: Exception) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 503)


def _told(status: int, message: str, *, hint: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    return Answer(status, encode(Problem(message=message, hint=hint)), headers)
