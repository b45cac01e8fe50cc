"""Where devices push their keys, as an ASGI application: the key container of ETSI GS QKD 014 V1.1.1, 6.3, the other way round.

    POST /keystrand/v1/sources/LINK/keys     {"keys": [{"key_ID": "…", "key": "…"}, …]}

A device pushes each key to the KMEs at both ends, under one key ID. 200: they are durable here, and become key at both ends or
are burnt at both; the same keys again are answered the same way. 503: there is no room, or the store is away: repeat later;
400: a key came before in another way, or is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from keystrand.api.exchange import (
    Answer,
    App,
    Receive,
    Refusal,
    Scope,
    Send,
    identity_of,
    message,
    path_parts,
    read_body,
    retry_after,
    send_answer,
    status_of,
    words_of,
)
from keystrand.core.errors import BadRequest, KeystrandError, NotPermitted, PeerFault
from keystrand.sources.device import DeviceKey
from keystrand.wire import etsi014 as wire

BODY_BYTES_MAX: Final = 1_048_576


class Place(Protocol):
    """Where pushed keys wait, as sources.push.PushDevice."""

    async def push(self, keys: list[DeviceKey], /) -> int: ...  # the bits that wait


@dataclass(frozen=True, slots=True)
class Pusher:
    """The device of one link, by the ID in its certificate, the length of its keys, and where they wait."""

    module: str
    key_bits: int
    place: Place = field(repr=False)


def push_app(pushers: Mapping[str, Pusher], refused: Callable[[str, str, str], None]) -> App:
    """pushers: by link; refused: told link, name of the device and reason."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await _answer(pushers, scope, receive, refused)
        except Refusal as refusal:
            answer = refusal.answer
        except KeystrandError as error:
            status = status_of(error)
            more = retry_after(error) if status == 503 else ()
            words = Answer(401) if status == 401 else message(status, words_of(error))
            answer = Answer(words.status, words.body, more)
        await send_answer(send, answer)

    return app


async def _answer(
    pushers: Mapping[str, Pusher], scope: Scope, receive: Receive, refused: Callable[[str, str, str], None]
) -> Answer:
    parts = path_parts(scope)
    link = parts[3] if parts is not None and len(parts) == 5 else ""
    pusher = pushers.get(link)
    if pusher is None or not _is(scope, pusher.module):  # a stranger does not learn which links there are
        raise NotPermitted("no device of a link here")
    if parts != ["keystrand", "v1", "sources", link, "keys"]:
        return message(404, "no such path")
    if scope["method"] != "POST":
        return message(405, "keys are pushed by POST", allow="POST")
    body = await read_body(scope, receive, bytes_max=BODY_BYTES_MAX)
    try:
        waiting_bits = await pusher.place.push(_keys(body, pusher.key_bits))
    except BadRequest as error:
        refused(link, pusher.module, str(error))
        raise
    return Answer(200, json.dumps({"waiting_bits": waiting_bits}).encode())


def _is(scope: Scope, module: str) -> bool:
    identity = identity_of(scope)
    return identity is not None and identity.kind in (None, "module") and identity.name == module


def _keys(body: bytes, key_bits: int) -> list[DeviceKey]:
    try:
        keys = wire.parse_container(body)
    except PeerFault as error:
        raise BadRequest(str(error)) from None
    odd = [key.material.length_bits for key in keys if key.material.length_bits != key_bits]
    if odd:
        raise BadRequest(f"a key of {odd[0]} bits, where this link has keys of {key_bits}")
    return [DeviceKey(key.key_id, key.material) for key in keys]
