"""ETSI GS QKD 014 V1.1.1 over mutual TLS, and what connectors report beside it, as one ASGI application.

The caller is whom the client certificate names, never what a path or body says. Every path needs a caller first, so that
a stranger cannot even learn which paths exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from keystrand.api import reports
from keystrand.api.exchange import (
    Answer,
    App,
    Receive,
    Refusal,
    Scope,
    Send,
    caller_of,
    message,
    path_parts,
    query_params,
    read_body,
    retry_after,
    send_answer,
    status_of,
    words_of,
)
from keystrand.api.turnstile import Turnstile
from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import BadRequest, KeystrandError, NotPermitted, QuotaExceeded
from keystrand.core.events import Event, Scalar, Sink
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

    async def status(self, caller: str, other: str, /) -> PoolStatus: ...

    async def get_key(
        self, caller: str, other: str, /, *, number: int | None, size_bits: int | None, additional: tuple[str, ...]
    ) -> list[Key]: ...

    async def get_key_with_ids(self, caller: str, other: str, key_ids: tuple[str, ...], /) -> list[Key]: ...

    async def note_use(self, caller: str, key_id: str, report: UseReport, /) -> KeyStand: ...

    async def note_tunnel(self, caller: str, tunnel: str, report: TunnelReport, /) -> None: ...


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
    receive: Receive

    @property
    def is_get(self) -> bool:
        return bool(self.scope["method"] == "GET")

    def sae(self) -> str:
        return check_name(self.subject, what="SAE ID")


Route = Callable[[_Edge, _Request], Awaitable[Answer]]


def etsi014_app(service: KeyService, *, limits: Limits, sink: Sink, clock: Clock | None = None) -> App:
    """The ASGI application of the SAE listener. Serve it only behind mutual TLS that sets the TLS extension."""
    time = clock or SystemClock()
    edge = _Edge(service, limits, sink, time, Turnstile(time, sink))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served here")
        await send_answer(send, await _answer(edge, scope, receive))

    return app


async def _answer(edge: _Edge, scope: Scope, receive: Receive) -> Answer:
    try:
        caller = caller_of(scope)
        return await _route(edge, caller, scope, receive)
    except Refusal as refusal:
        return refusal.answer
    except Exception as error:  # the edge answers whatever happens; the event says what
        return _refused(edge, scope, error)


async def _route(edge: _Edge, caller: str, scope: Scope, receive: Receive) -> Answer:
    found = _match(path_parts(scope))
    if found is None:
        return message(404, "no such path")
    methods, route, subject = found
    if scope["method"] not in methods:
        return message(405, f"use {' or '.join(methods)}", allow=", ".join(methods))
    return await route(edge, _Request(caller, subject, scope, receive))


def _match(parts: list[str] | None) -> tuple[tuple[str, ...], Route, str] | None:
    match parts:
        case ["api", "v1", "keys", subject, verb] if verb in KEY_ROUTES:
            return (*KEY_ROUTES[verb], subject)
        case ["keystrand", "v1", "transfers", subject]:
            return ("POST",), _report, subject
        case ["keystrand", "v1", "tunnels", subject]:
            return ("POST",), _tunnel, subject
        case ["keystrand", "v1", "keys", subject, "use"]:
            return ("POST",), _use, subject
    return None


def _refused(edge: _Edge, scope: Scope, error: Exception) -> Answer:
    status = status_of(error)
    fields: dict[str, Scalar] = {"status": status, "reason": type(error).__name__, "method": str(scope["method"])[:16]}
    edge.sink.emit(Event("request.refused", edge.clock.now_s(), fields))
    if isinstance(error, NotPermitted):
        return Answer(401)  # the response model of 401 is empty: no oracle
    if isinstance(error, BadRequest):
        return Answer(400, wire.print_error(str(error), error.details))
    return Answer(status, wire.print_error(words_of(error)), retry_after(error))


# the three methods ---------------------------------------------------------------------------------------------------


async def _status(edge: _Edge, request: _Request) -> Answer:
    if query_params(request.scope):
        raise BadRequest("Get status takes no parameters")
    return Answer(200, wire.print_status(await edge.service.status(request.caller, request.sae())))


async def _get_key(edge: _Edge, request: _Request) -> Answer:
    edge.turnstile.check(request.caller, request.subject)
    ask = await _key_request(edge, request)
    wire.require_supported(ask)
    try:
        keys = await edge.service.get_key(
            request.caller, request.sae(), number=ask.number, size_bits=ask.size_bits, additional=ask.additional
        )
    except QuotaExceeded as error:
        edge.turnstile.shut(request.caller, request.subject, error)
        raise
    return _container(keys)


async def _get_key_with_ids(edge: _Edge, request: _Request) -> Answer:
    key_ids = await _key_ids(edge, request)
    return _container(await edge.service.get_key_with_ids(request.caller, request.sae(), key_ids))


async def _key_request(edge: _Edge, request: _Request) -> wire.KeyRequest:
    if request.is_get:
        return wire.key_request_from_query(query_params(request.scope))
    return wire.parse_key_request(await _body(edge, request))


async def _key_ids(edge: _Edge, request: _Request) -> tuple[str, ...]:
    if request.is_get:
        return wire.key_ids_from_query(query_params(request.scope))
    return wire.parse_key_ids(await _body(edge, request))


async def _body(edge: _Edge, request: _Request) -> bytes:
    if query_params(request.scope):
        raise BadRequest("a POST takes its parameters from the body, not from the query")
    return await read_body(request.scope, request.receive, bytes_max=edge.limits.http_body_bytes_max)


def _container(keys: list[Key]) -> Answer:
    try:
        return Answer(200, wire.print_container(keys))
    finally:
        for key in keys:
            key.material.wipe()


async def _report(edge: _Edge, request: _Request) -> Answer:
    body = await _body(edge, request)
    event = reports.transfer_event(request.caller, request.subject, body, at_s=edge.clock.now_s())
    edge.sink.emit(event)
    key_id = event.fields.get("key_id")
    if key_id and event.kind in reports.TAKING_UP:
        with suppress(KeystrandError):  # telemetry: a key that is gone does not make the report wrong
            use = UseReport(consumer=f"transfer {request.subject}", uses=1)
            await edge.service.note_use(request.caller, str(key_id), use)
    return Answer(204)


async def _tunnel(edge: _Edge, request: _Request) -> Answer:
    report = reports.tunnel_report(request.subject, await _body(edge, request))
    if report.happened in AUDITED:
        await edge.service.note_tunnel(request.caller, request.subject, report)
    edge.sink.emit(reports.tunnel_event(request.caller, request.subject, report, at_s=edge.clock.now_s()))
    return Answer(204)


async def _use(edge: _Edge, request: _Request) -> Answer:
    """Whoever says what a key is used for hears what became of it."""
    key_id, report = check_key_id(request.subject), keyuse.parse_use(await _body(edge, request))
    return Answer(200, keyuse.print_stand(await edge.service.note_use(request.caller, key_id, report)))


KEY_ROUTES: Final[dict[str, tuple[tuple[str, ...], Route]]] = {
    "status": (("GET",), _status),
    "enc_keys": (("GET", "POST"), _get_key),
    "dec_keys": (("GET", "POST"), _get_key_with_ids),
}
