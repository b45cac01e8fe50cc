"""Requests that are answered without a task of their own: the body comes whole and small, the answer goes out in one piece.

A key costs tens of microseconds, and so does an ASGI task with its messages. Whoever answers whole requests gets a scope
(as ASGI has it) and the body, and calls `reply` once, then or later. Everything else takes the ASGI way: other methods
than POST, no length, a body that is too long, pipelining, a client that does not read its answers.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

Headers = Sequence[tuple[bytes, bytes]]
Reply = Callable[[int, Headers, bytes], None]
# must not raise; the scope has method, path, raw_path, query_string, headers and extensions
Whole = Callable[[MutableMapping[str, Any], bytes, Reply], None]

_CLOSE: Final = b"connection: close\r\n"


class Line(Protocol):
    """What a cycle needs of its connection."""

    @property
    def transport(self) -> Any: ...
    def on_response_complete(self) -> None: ...


def print_head(status: int, headers: Headers, length_bytes: int, *, keep_alive: bool) -> bytes:
    """Status line and header. `headers` are our own words, never a client's."""
    lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in headers)]
    if status != 204:  # RFC 9110, 8.6: 204 has none
        lines.append(b"content-length: %d\r\n" % length_bytes)
    if not keep_alive:
        lines.append(_CLOSE)
    lines.append(b"\r\n")
    return b"".join(lines)


class WholeCycle:
    """One request and its answer, in the place of uvicorn's RequestResponseCycle, whose names and duties it has."""

    __slots__ = (
        "_begun",
        "_line",
        "_scope",
        "_whole",
        "body",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
    )

    def __init__(self, line: Line, scope: MutableMapping[str, Any], whole: Whole) -> None:
        self._line = line
        self._scope = scope
        self._whole = whole
        self._begun = False
        self.body = bytearray()
        self.more_body = True
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False

    @property
    def message_event(self) -> WholeCycle:
        """What the connection sets when more of the request has come, or none will."""
        return self

    def set(self) -> None:
        if not (self._begun or self.more_body or self.disconnected):
            self._begun = True
            self._whole(self._scope, bytes(self.body), self.reply)

    def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """Send the answer; it goes nowhere where the client has left."""
        if self.disconnected:
            return
        assert not self.response_complete, "one request, one answer"
        self.response_complete = True
        transport = self._line.transport
        closes = not self.keep_alive or any(name == b"connection" for name, _ in headers)
        transport.write(print_head(status, headers, len(body), keep_alive=self.keep_alive) + body)
        if closes:
            transport.close()
        self._line.on_response_complete()
