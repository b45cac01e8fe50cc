"""An HTTP edge with one stated fault, wrapped around a right one: what the conformance suite must find."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from enum import StrEnum
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class EdgeFault(StrEnum):
    """What a faulty edge does. F3 names findings in published implementations."""

    ROUNDED_SIZE = "size 257 is answered with a 256-bit key"  # F3
    NEGATIVE_NUMBER = "number -1 is answered with 200 and no keys"  # F3
    IGNORED_EXTENSION = "an unknown mandatory extension is ignored"
    WORDY_401 = "401 has a body"
    CACHEABLE = "answers may be stored by caches"
    OWN_WORDS = "the mandated messages are worded otherwise"
    SERVER_ERROR = "a refused request is answered with 500"
    KEPT_DUPLICATES = "the last of two equal JSON members wins"


def faulty_edge(app: App, fault: EdgeFault | None) -> App:
    """`app` with `fault`; None: `app` as it is."""
    if fault is None:
        return app

    async def edge(scope: Message, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if fault is EdgeFault.NEGATIVE_NUMBER and b"-1" in body:
            await _send_all(send, [_start(200), {"type": "http.response.body", "body": b'{"keys":[]}'}])
            return
        sent: list[Message] = []
        await app(scope, _replay(_altered(fault, body)), _gather(sent))
        await _send_all(send, _distort(fault, sent))

    return edge


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    return body


def _altered(fault: EdgeFault, body: bytes) -> bytes:
    if fault is EdgeFault.ROUNDED_SIZE:
        return body.replace(b"257", b"256")
    if fault is EdgeFault.IGNORED_EXTENSION:
        return body.replace(b"extension_mandatory", b"extension_optional")
    if fault is EdgeFault.KEPT_DUPLICATES and body.count(b'"number"') == 2:
        return json.dumps(json.loads(body)).encode()
    return body


def _distort(fault: EdgeFault, sent: list[Message]) -> list[Message]:
    start, end = sent
    if fault is EdgeFault.WORDY_401 and start["status"] == 401:
        return [_start(401), {**end, "body": b'{"message":"key 1 belongs to sae-x"}'}]
    if fault is EdgeFault.CACHEABLE:
        start = {**start, "headers": [pair for pair in start["headers"] if pair[0] != b"cache-control"]}
    if fault is EdgeFault.OWN_WORDS and start["status"] == 400:
        return [_start(400), {**end, "body": b'{"message":"Bad request"}'}]
    if fault is EdgeFault.SERVER_ERROR and start["status"] == 400:
        return [_start(500), {**end, "body": b"<h1>Internal Server Error</h1>"}]
    return [start, end]


def _start(status: int) -> Message:
    headers = [(b"cache-control", b"no-store"), (b"content-type", b"application/json")]
    return {"type": "http.response.start", "status": status, "headers": headers}


def _replay(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _gather(sent: list[Message]) -> Send:
    async def send(message: Message) -> None:
        sent.append(message)

    return send


async def _send_all(send: Send, messages: list[Message]) -> None:
    for message in messages:
        await send(message)
