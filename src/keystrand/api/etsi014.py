"""ETSI GS QKD 014 V1.1.1 over mutual TLS, and what connectors report beside it, as one ASGI application.

The caller is whom the client certificate names, never what a path or body says. Every path needs a caller first, so that
a stranger cannot even learn which paths exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from keystrand.api import reports
from keystrand.api.exchange import (
    Answer,
    Headers,
    Receive,
    Refusal,
    Scope,
    Send,
    caller_of,
    check_json,
    headers_of,
    message,
    method_of,
    path_parts,
    query_params,
    read_body,
    refusal_event,
    require_http,
    retry_after,
    send_answer,
    status_of,
    words_of,
)
from keystrand.api.turnstile import Turnstile
from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import BadRequest, KeystrandError, NotPermitted, QuotaExceeded
from keystrand.core.events import Sink
from keystrand.core.identity import check_key_id, check_name
from keystrand.core.key import Key
from keystrand.core.limits import Limits
from keystrand.core.pool import PoolStatus
from keystrand.wire import etsi014 as wire
from keystrand.wire import keyuse
from keystrand.wire.keyuse import KeyStand, UseReport
from keystrand.wire.tunnelreport import AUDITED, TunnelReport


class KeyService(Protocol):
    """What stands behind the edge. `caller` is authenticated; errors are those of core.errors.

    The material of returned keys belongs to the edge, which wipes it once the answer is built.
    """

    def status(self, caller: str, other: str, /) -> Awaitable[PoolStatus]: ...

    def get_key(
        self, caller: str, other: str, /, *, number: int | None, size_bits: int | None, additional: tuple[str, ...]
    ) -> Awaitable[list[Key]]: ...

    def get_key_with_ids(self, caller: str, other: str, key_ids: tuple[str, ...], /) -> Awaitable[list[Key]]: ...

    def note_use(self, caller: str, key_id: str, report: UseReport, /) -> Awaitable[KeyStand]: ...

    def note_tunnel(self, caller: str, tunnel: str, report: TunnelReport, /) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class _Edge:
    service: KeyService
    limits: Limits
    sink: Sink
    clock: Clock
    turnstile: Turnstile


@dataclass(frozen=True, slots=True)
class _Request:
    """An authenticated request: who, about which SAE (or transfer), how."""

    caller: str
    subject: str
    scope: Scope
    body: bytes = b""

    @property
    def is_get(self) -> bool:
        return bool(self.scope["method"] == "GET")

    def sae(self) -> str:
        return check_name(self.subject, what="SAE ID")


@dataclass(frozen=True, slots=True)
class _Route:
    """ask: read the request and begin to serve it; tell: the answer of what comes of that. Both raise what refuses."""

    methods: tuple[str, ...]
    ask: Callable[[_Edge, _Request], Awaitable[Any]]
    tell: Callable[[Any], Answer]
    by_quota: bool = False  # who has drawn its quota is sent away before the body is read


class Etsi014:
    """The ASGI application of the SAE listener. Serve it only behind mutual TLS that sets the TLS extension."""

    def __init__(self, service: KeyService, *, limits: Limits, sink: Sink, clock: Clock | None = None) -> None:
        time = clock or SystemClock()
        self._edge = _Edge(service, limits, sink, time, Turnstile(time, sink))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        require_http(scope)
        await send_answer(send, await self._answer(scope, receive))

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        request = None
        try:
            route, request = _routed(self._edge, scope)
            if not request.is_get:
                body = await read_body(scope, receive, bytes_max=self._edge.limits.http_body_bytes_max)
                request = replace(request, body=body)
            return route.tell(await route.ask(self._edge, request))
        except Exception as error:  # the edge answers whatever happens; the event says what
            return _refused(self._edge, scope, error, request)

    def whole(self, scope: Scope, body: bytes, reply: Callable[[int, Headers, bytes], None]) -> None:
        """The same for a POST whose body is there already: `reply` is called once, with status, headers and body."""

        def settle(begun: asyncio.Future[Any]) -> None:
            try:
                answer = route.tell(begun.result())
            except (Exception, asyncio.CancelledError) as error:
                answer = _refused(self._edge, scope, error, request)
            reply(answer.status, headers_of(answer), answer.body)

        try:
            route, request = _routed(self._edge, scope)
            check_json(scope, body)
            asyncio.ensure_future(route.ask(self._edge, replace(request, body=body))).add_done_callback(settle)
        except Exception as error:
            answer = _refused(self._edge, scope, error)
            reply(answer.status, headers_of(answer), answer.body)


def _routed(edge: _Edge, scope: Scope) -> tuple[_Route, _Request]:
    caller = caller_of(scope)
    found = _match(path_parts(scope))
    if found is None:
        raise Refusal(message(404, "no such path"))
    route, subject = found
    if scope["method"] not in route.methods:
        raise Refusal(message(405, f"use {' or '.join(route.methods)}", allow=", ".join(route.methods)))
    if route.by_quota:
        edge.turnstile.check(caller, subject)
    return route, _Request(caller, subject, scope)


def _match(parts: list[str] | None) -> tuple[_Route, str] | None:
    match parts:
        case ["api", "v1", "keys", subject, verb] if verb in KEY_ROUTES:
            return KEY_ROUTES[verb], subject
        case ["keystrand", "v1", "transfers" | "tunnels" as kind, subject]:
            return REPORT_ROUTES[kind], subject
        case ["keystrand", "v1", "keys", subject, "use"]:
            return REPORT_ROUTES["use"], subject
    return None


def _refused(edge: _Edge, scope: Scope, error: BaseException, request: _Request | None = None) -> Answer:
    if isinstance(error, Refusal):
        return error.answer
    if isinstance(error, QuotaExceeded) and request is not None:
        edge.turnstile.shut(request.caller, request.subject, error)
    status = status_of(error)
    edge.sink.emit(refusal_event(error, status, edge.clock.now_s(), method=method_of(scope)))
    if isinstance(error, NotPermitted):
        return Answer(401)  # the response model of 401 is empty: no oracle
    if isinstance(error, BadRequest):
        return Answer(400, wire.print_error(str(error), error.details))
    return Answer(status, wire.print_error(words_of(error)), retry_after(error))


# the three methods ---------------------------------------------------------------------------------------------------


def _status(edge: _Edge, request: _Request) -> Awaitable[PoolStatus]:
    if query_params(request.scope):
        raise BadRequest("Get status takes no parameters")
    return edge.service.status(request.caller, request.sae())


def _get_key(edge: _Edge, request: _Request) -> Awaitable[list[Key]]:
    ask = _key_request(request)
    wire.require_supported(ask)
    return edge.service.get_key(
        request.caller, request.sae(), number=ask.number, size_bits=ask.size_bits, additional=ask.additional
    )


def _get_key_with_ids(edge: _Edge, request: _Request) -> Awaitable[list[Key]]:
    key_ids = _key_ids(request)
    return edge.service.get_key_with_ids(request.caller, request.sae(), key_ids)


def _key_request(request: _Request) -> wire.KeyRequest:
    if request.is_get:
        return wire.key_request_from_query(query_params(request.scope))
    return wire.parse_key_request(_body(request))


def _key_ids(request: _Request) -> tuple[str, ...]:
    if request.is_get:
        return wire.key_ids_from_query(query_params(request.scope))
    return wire.parse_key_ids(_body(request))


def _body(request: _Request) -> bytes:
    if query_params(request.scope):
        raise BadRequest("a POST takes its parameters from the body, not from the query")
    return request.body


def _container(keys: list[Key]) -> Answer:
    try:
        return Answer(200, wire.print_container(keys))
    finally:
        for key in keys:
            key.material.wipe()


async def _report(edge: _Edge, request: _Request) -> None:
    body = _body(request)
    event = reports.transfer_event(request.caller, request.subject, body, at_s=edge.clock.now_s())
    edge.sink.emit(event)
    key_id = event.fields.get("key_id")
    if key_id and event.kind in reports.TAKING_UP:
        with suppress(KeystrandError):  # telemetry: a key that is gone does not make the report wrong
            use = UseReport(consumer=f"transfer {request.subject}", uses=1)
            await edge.service.note_use(request.caller, str(key_id), use)


async def _tunnel(edge: _Edge, request: _Request) -> None:
    report = reports.tunnel_report(request.subject, _body(request))
    if report.happened in AUDITED:
        await edge.service.note_tunnel(request.caller, request.subject, report)
    edge.sink.emit(reports.tunnel_event(request.caller, request.subject, report, at_s=edge.clock.now_s()))


def _use(edge: _Edge, request: _Request) -> Awaitable[KeyStand]:
    """Whoever says what a key is used for hears what became of it."""
    key_id, report = check_key_id(request.subject), keyuse.parse_use(_body(request))
    return edge.service.note_use(request.caller, key_id, report)


KEY_ROUTES: Final = {
    "status": _Route(("GET",), _status, lambda status: Answer(200, wire.print_status(status))),
    "enc_keys": _Route(("GET", "POST"), _get_key, _container, by_quota=True),
    "dec_keys": _Route(("GET", "POST"), _get_key_with_ids, _container),
}
REPORT_ROUTES: Final = {
    "transfers": _Route(("POST",), _report, lambda _: Answer(204)),
    "tunnels": _Route(("POST",), _tunnel, lambda _: Answer(204)),
    "use": _Route(("POST",), _use, lambda stand: Answer(200, keyuse.print_stand(stand))),
}
