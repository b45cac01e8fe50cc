"""ETSI GS QKD 020 V1.1.1 over mutual TLS, as one ASGI application: what the KMEs of other networks may ask of this one.

The peer is whom its certificate names, and only KMEs of the table are served. An ack goes to the URL of the table, which a
request has to state letter by letter: nobody makes this KME call somewhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from keystrand.api.exchange import (
    Answer,
    App,
    Receive,
    Refusal,
    Scope,
    app_of,
    identity_of,
    message,
    path_parts,
    read_body,
    refusal_event,
    retry_after,
)
from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import (
    BadRequest,
    ConfigError,
    KeyUnavailable,
    NotPermitted,
    PeerUnavailable,
    Unavailable,
)
from keystrand.core.events import Sink
from keystrand.wire import etsi020 as wire
from keystrand.wire.etsi020 import Ack, ExtKeys, ProblemType, Refused, Void

CONTENT_TYPE: Final = b"application/json; charset=UTF-8"
BODY_BYTES_MAX: Final = 1 << 20


class InterdomainService(Protocol):
    """What stands behind the edge. `peer` is the authenticated KME; what a method did is durable before it returns.

    A method does all that it is asked, or raises and has done nothing. Refused is the answer as it is; BadRequest is 400 and
    NotPermitted 401: then no association may remain for the keys, so keys that are held already are answered from
    their record (`wire.interworking` does). PeerUnavailable is 408, every other Unavailable 503: the peer has to assume that
    the keys are held. Each request may come again, and late; it has the same outcome then.
    """

    async def holds(self, peer: str, key_ids: tuple[str, ...], /) -> bool:
        """Is there a record of any of these keys? Then 400 and 401 would be untrue, and 503 is the answer to what is off."""
        ...

    async def receive_keys(self, peer: str, keys: ExtKeys, /) -> tuple[Ack, ...] | None:
        """Take keys of another network. With a callback_url the result is not used: acks follow. Without one it is the
        outcome of every key, and None where that is not known in time. The material of `keys` is wiped afterwards."""
        ...

    async def acknowledge(self, peer: str, acks: tuple[Ack, ...], /) -> None:
        """The peer says what became of keys that this KME sent, or voided."""
        ...

    async def void_keys(self, peer: str, void: Void, /) -> tuple[Ack, ...] | None:
        """Make keys unusable. With a callback_url the result is not used; without one it is the outcome of every key."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InterdomainPeer:
    """A KME of another network, by the ID of its certificate. callback_url: where it wants its acks. Raises ConfigError."""

    kme_id: str
    callback_url: str

    def __post_init__(self) -> None:
        if not self.callback_url.startswith("https://") or "/" not in self.callback_url[8:]:
            raise ConfigError(f"callback_url of {self.kme_id} is not https://host/path")

    @property
    def callback_path(self) -> str:
        return "/" + self.callback_url[8:].partition("/")[2]


@dataclass(frozen=True, slots=True)
class _Edge:
    service: InterdomainService
    peers: Mapping[str, InterdomainPeer]
    sink: Sink
    clock: Clock
    synchronous: bool
    supported: frozenset[str]


Route = Callable[[_Edge, InterdomainPeer, bytes], Awaitable[Answer]]


def etsi020_app(
    service: InterdomainService,
    peers: Mapping[str, InterdomainPeer],
    *,
    sink: Sink,
    clock: Clock | None = None,
    synchronous: bool = True,
    supported: frozenset[str] = frozenset(),
) -> App:
    """The ASGI application of the listener for other networks' KMEs. Serve it only behind mutual TLS 1.3.

    supported: names of mandatory extensions that the service knows; all others are refused, and optional ones passed to it.
    """
    edge = _Edge(service, peers, sink, clock or SystemClock(), synchronous, supported)

    return app_of(partial(_answer, edge), CONTENT_TYPE)


async def _answer(edge: _Edge, scope: Scope, receive: Receive) -> Answer:
    try:
        peer = _peer_of(edge, scope)
        found = _ROUTES.get(tuple(path_parts(scope) or ()))
        if found is None:
            return message(404, "no such path")
        method, route = found
        if scope["method"] != method:
            return message(405, f"use {method}", allow=method)
        if scope.get("query_string"):
            raise Refused(ProblemType.INVALID_PARAMETER, "no query is taken here")
        body = await _body(scope, receive) if method == "POST" else b""
        return await route(edge, peer, body)
    except Exception as error:  # the edge answers whatever happens; the event says what
        return _refused(edge, error)


def _peer_of(edge: _Edge, scope: Scope) -> InterdomainPeer:
    identity = identity_of(scope)
    peer = edge.peers.get(identity.name) if identity is not None and identity.kind == "kme" else None
    if peer is None:
        raise NotPermitted("only KMEs of other networks are served here")
    return peer


async def _body(scope: Scope, receive: Receive) -> bytes:
    try:
        return await read_body(scope, receive, bytes_max=BODY_BYTES_MAX)
    except Refusal as refusal:  # the standard knows 400 only
        raise Refused(ProblemType.INVALID_PARAMETER, "the body is too long, or not JSON in UTF-8") from refusal


def _refused(edge: _Edge, error: Exception) -> Answer:
    problem = _problem(error)
    edge.sink.emit(refusal_event(error, problem.status, edge.clock.now_s(), problem=str(problem.kind)))
    headers = retry_after(error) if problem.status == 503 else ()
    if isinstance(error.__cause__, Refusal):
        headers = (*headers, (b"connection", b"close"))  # the rest of the body was not read
    return Answer(problem.status, wire.print_problem(problem), headers)


def _problem(error: Exception) -> Refused:
    match error:
        case Refused():
            return error
        case NotPermitted():
            return Refused(ProblemType.UNAUTHORIZED, "not permitted")
        case BadRequest():
            return Refused(ProblemType.INVALID_PARAMETER, str(error))
        case KeyUnavailable():
            words = "insufficient key material"
            return Refused(ProblemType.INSUFFICIENT_KEY_MATERIAL, words, details={"insufficient_key_material": words})
        case PeerUnavailable():
            return Refused(ProblemType.TIMEOUT, "no outcome in time")
        case Unavailable():
            return Refused(ProblemType.SERVER_ERROR, str(error))
    return Refused(ProblemType.SERVER_ERROR, "the KME cannot serve this now")


# the four methods ----------------------------------------------------------------------------------------------------


async def _versions(edge: _Edge, peer: InterdomainPeer, body: bytes) -> Answer:
    capabilities = (wire.SYNCHRONOUS,) if edge.synchronous else ()
    return Answer(200, wire.print_versions(wire.Versions((wire.VERSION,), capabilities)))


async def _ext_keys(edge: _Edge, peer: InterdomainPeer, body: bytes) -> Answer:
    keys = wire.parse_ext_keys(body)
    try:
        await _check_new(edge, peer, keys)
        unknown = ", ".join(sorted(keys.mandatory.keys() - edge.supported))
        if unknown:
            words = f"not supported: {unknown[:200]}"
            details = {"unsupported_mandatory_extension": words}
            raise Refused(ProblemType.UNSUPPORTED_MANDATORY_EXTENSION, words, details=details)
        return _outcome(keys.callback_url, await edge.service.receive_keys(peer.kme_id, keys))
    finally:
        for key in keys.keys:
            key.material.wipe()


async def _ack(edge: _Edge, peer: InterdomainPeer, body: bytes) -> Answer:
    await edge.service.acknowledge(peer.kme_id, wire.parse_acks(body))
    return Answer(200)


async def _void(edge: _Edge, peer: InterdomainPeer, body: bytes) -> Answer:
    void = wire.parse_void(body)
    _check_callback(edge, peer, void.callback_url)
    return _outcome(void.callback_url, await edge.service.void_keys(peer.kme_id, void))


async def _check_new(edge: _Edge, peer: InterdomainPeer, keys: ExtKeys) -> None:
    try:
        _check_callback(edge, peer, keys.callback_url)
    except Refused as problem:
        if await edge.service.holds(peer.kme_id, keys.key_ids):
            raise Refused(ProblemType.SERVER_ERROR, str(problem), details=problem.details) from None
        raise


def _check_callback(edge: _Edge, peer: InterdomainPeer, url: str | None) -> None:
    if url is None and not edge.synchronous:
        details = {"ack_callback_url": "is missing"}
        raise Refused(ProblemType.MISSING_PARAMETERS, "there is no synchronous mode here", details=details)
    if url is not None and url != peer.callback_url:
        words = "is not the URL that is configured for this KME"
        raise Refused(ProblemType.INVALID_PARAMETER, f"ack_callback_url {words}", details={"ack_callback_url": words})


def _outcome(callback_url: str | None, acks: tuple[Ack, ...] | None) -> Answer:
    if callback_url is not None:
        return Answer(202)
    if not acks:
        raise Refused(ProblemType.TIMEOUT, "no outcome in time")
    return Answer(200, wire.print_acks(acks))


_ROUTES: Final[dict[tuple[str, ...], tuple[str, Route]]] = {
    tuple(path.strip("/").split("/")): found
    for path, found in {
        wire.VERSIONS_PATH: ("GET", _versions),
        wire.KEYS_PATH: ("POST", _ext_keys),
        wire.ACK_PATH: ("POST", _ack),
        wire.VOID_PATH: ("POST", _void),
    }.items()
}
