"""Cisco SKIP (draft-cisco-skip-02) as an ASGI application: the KME as key provider of routers and other encryptors.

An encryptor is an SAE: the certificate or the pre-shared key of its connection says which. `remoteSystemID` names the other
encryptor, by the site's own table, never by what the request says about itself. A keyId is given out once to each end, and
only to the encryptor whose remote it was made for: the rules are those of ETSI GS QKD 014 below.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from keystrand.api.etsi014 import KeyService
from keystrand.api.exchange import (
    Answer,
    App,
    Receive,
    Scope,
    app_of,
    caller_of,
    path_parts,
    query_params,
    refusal_event,
    retry_after,
)
from keystrand.core.clock import Clock, Entropy, SystemClock, SystemEntropy
from keystrand.core.errors import BadRequest, ConfigError, NotPermitted, Unavailable, UnknownKey
from keystrand.core.events import Sink
from keystrand.core.identity import check_name
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.wire import skip as wire

NO_SUCH_KEY: Final = "no such key for this remoteSystemID"
NO_SUCH_REMOTE: Final = "this remoteSystemID is not served"
_ANY: Final = "([A-Za-z0-9._~@:-]+)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipEncryptor:
    """One encryptor of the site. system_id: what it is told as localSystemID, and the far end uses as remoteSystemID.

    remotes: system ID of a far encryptor -> its SAE ID. A system ID may be a pattern with one `*`, which stands for at least
    one character; a `*` in the SAE ID then stands for the same. Raises ConfigError for IDs that are none.
    """

    system_id: str
    remotes: Mapping[str, str]

    def __post_init__(self) -> None:
        _check(self.system_id, "system ID", stars=0)
        for remote, sae in self.remotes.items():
            _check(remote, "remote system ID", stars=1)
            _check(sae, "SAE ID", stars=remote.count("*"))

    def sae_of(self, remote: str) -> str | None:
        """The SAE behind a system ID: the entry with just this ID, else the pattern with most letters that fits."""
        if remote in self.remotes and "*" not in remote:
            return self.remotes[remote]
        for pattern in sorted(self.remotes, key=len, reverse=True):
            found = "*" in pattern and re.fullmatch(re.escape(pattern).replace(r"\*", _ANY), remote)
            if found:
                return self.remotes[pattern].replace("*", found[1])
        return None


def _check(text: str, what: str, *, stars: int) -> None:
    try:
        check_name(text.replace("*", "x"), what=what)
    except BadRequest as problem:
        raise ConfigError(str(problem)) from None
    if text.count("*") > stars:
        raise ConfigError(f"{what} {text} has more * than {stars}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipSite:
    """Who may come: SAE ID -> encryptor. algorithm: how keys come about, in words for whoever reads the capabilities."""

    encryptors: Mapping[str, SkipEncryptor]
    algorithm: str = "QKD, ML-KEM-768"


@dataclass(frozen=True, slots=True)
class _Edge:
    service: KeyService
    site: SkipSite
    sink: Sink
    clock: Clock
    entropy: Entropy


@dataclass(frozen=True, slots=True)
class _Request:
    caller: str
    encryptor: SkipEncryptor
    subject: str
    params: list[tuple[str, str]] = field(repr=False)

    def sae(self, remote: str) -> str:
        """Raises BadRequest: the same words for a remote that does not exist and for one that policy refuses."""
        sae = self.encryptor.sae_of(remote)
        if sae is None or sae == self.caller:
            raise BadRequest(NO_SUCH_REMOTE)
        return sae


def skip_app(service: KeyService, site: SkipSite, *, sink: Sink, entropy: Entropy | None = None) -> App:
    """The ASGI application of the encryptors' listener. Serve it only behind mutual TLS or TLS-PSK, which say who calls."""
    edge = _Edge(service, site, sink, SystemClock(), entropy or SystemEntropy())

    return app_of(partial(_answer, edge))


async def _answer(edge: _Edge, scope: Scope, receive: Receive) -> Answer:
    try:
        return await _route(edge, scope)
    except Exception as error:  # the edge answers whatever happens; the event says what
        answer = _refusal(error)
        edge.sink.emit(refusal_event(error, answer.status, edge.clock.now_s()))
        return answer


async def _route(edge: _Edge, scope: Scope) -> Answer:
    caller = caller_of(scope)
    encryptor = edge.site.encryptors.get(caller)
    if encryptor is None:
        raise NotPermitted(f"{caller} is no encryptor of this site")
    if scope["method"] != "GET":
        return Answer(405, wire.print_error("use GET"), ((b"allow", b"GET"),))
    found = _match(path_parts(scope))
    if found is None:
        return Answer(404, wire.print_error("no such path"))
    route, subject = found
    return await route(edge, _Request(caller, encryptor, subject, query_params(scope)))


Route = Callable[[_Edge, _Request], Awaitable[Answer]]


def _match(parts: list[str] | None) -> tuple[Route, str] | None:
    match parts:
        case ["capabilities"]:
            return _capabilities, ""
        case ["key"]:
            return _new_key, ""
        case ["key", key_id]:
            return _known_key, key_id
        case ["entropy"]:
            return _entropy, ""
    return None


def _refusal(error: Exception) -> Answer:
    if isinstance(error, NotPermitted):
        return Answer(401)  # no encryptor of ours: not even words
    if isinstance(error, BadRequest):
        return Answer(400, wire.print_error(str(error)))
    if isinstance(error, Unavailable):
        return Answer(503, wire.print_error(str(error)), retry_after(error))
    return Answer(500, wire.print_error("the key provider failed"))


# the four methods ----------------------------------------------------------------------------------------------------


async def _capabilities(edge: _Edge, request: _Request) -> Answer:
    encryptor = request.encryptor
    return Answer(
        200,
        wire.print_capabilities(
            algorithm=edge.site.algorithm, local=encryptor.system_id, remotes=sorted(encryptor.remotes)
        ),
    )


async def _new_key(edge: _Edge, request: _Request) -> Answer:
    query = wire.parse_key_query(request.params)
    sae = request.sae(query.remote)
    try:
        keys = await edge.service.get_key(request.caller, sae, number=1, size_bits=query.size_bits, additional=())
    except NotPermitted:
        raise BadRequest(NO_SUCH_REMOTE) from None
    return _key(keys)


async def _known_key(edge: _Edge, request: _Request) -> Answer:
    key_id = wire.parse_key_id(request.subject)
    sae = request.sae(wire.parse_pickup_query(request.params))
    try:
        keys = await edge.service.get_key_with_ids(request.caller, sae, (key_id,))
    except (NotPermitted, UnknownKey):  # one answer for never made, not yours, gone: no oracle
        raise BadRequest(NO_SUCH_KEY) from None
    return _key(keys)


def _key(keys: list[Key]) -> Answer:
    try:
        (key,) = keys
        return Answer(200, wire.print_key(key))
    finally:
        for key in keys:
            key.material.wipe()


async def _entropy(edge: _Edge, request: _Request) -> Answer:
    bits = wire.parse_entropy_query(request.params)
    try:
        material = Secret(edge.entropy.bytes(bits // 8))
    except OSError:
        raise Unavailable("no entropy now") from None
    try:
        return Answer(200, wire.print_entropy(material))
    finally:
        material.wipe()
