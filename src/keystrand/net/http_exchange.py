"""One HTTP/1.1 request as bytes, and its response from bytes (RFC 9112). No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import httptools

from keystrand.core.errors import PeerFault

RESPONSE_BYTES_MAX: Final = 16 << 20
HEADER_BYTES_MAX: Final = 65_536
_ILLEGAL: Final = frozenset("\r\n\0 ")


@dataclass(frozen=True, slots=True)
class Response:
    """status; headers by lower-case name (repeated ones joined by a comma); body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Headers = Mapping[str, str]
NO_HEADERS: Final[Headers] = MappingProxyType({})


def print_request(
    method: str, path: str, body: bytes | None, *, authority: str, headers: Headers = NO_HEADERS
) -> bytes:
    """A request that keeps the connection. `body` is JSON. Raises ValueError for what could smuggle a second one."""
    if not method.isalpha() or not path.startswith("/") or not path.isascii() or _ILLEGAL.intersection(path):
        raise ValueError("not a method and an absolute path")
    head = f"{method} {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: application/json\r\n"
    head += "".join(map(_header_line, headers.items()))
    if body is None:
        return (head + "\r\n").encode("ascii")
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode("ascii") + body


def _header_line(header: tuple[str, str]) -> str:
    name, value = header
    if not (name + value).isascii() or not name.replace("-", "").isalnum() or not value.isprintable():
        raise ValueError(f"not a header field: {name!r}")
    return f"{name}: {value}\r\n"


class ResponseParser:
    """Feed until `response` is there, then `reset` for the next. Raises PeerFault for what is no HTTP or too long."""

    def __init__(self, body_bytes_max: int = RESPONSE_BYTES_MAX) -> None:
        self._body_bytes_max = body_bytes_max
        self.reset()

    def reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._too_long = ""
        self._interim = False
        self._headers_done = False
        self.response: Response | None = None
        self.keeps_alive = False

    def feed(self, data: bytes) -> None:
        if self.response is not None:
            raise PeerFault("the server sent bytes after its response")
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise PeerFault(self._too_long or "the server's answer is no HTTP/1.1 response") from None
        self._count_header(0 if self._headers_done else len(data))

    def finish(self) -> bool:
        """The stream ended properly (close_notify): was that the end of the response, too? RFC 9112 §6.3, case 8."""
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        if self.response is None and self._headers_done and not framed:
            self._complete()
        return self.response is not None

    def _count_header(self, length: int) -> None:
        self._header_bytes += length
        if self._header_bytes > HEADER_BYTES_MAX:
            self._too_long = "the response's header is too long"
            raise PeerFault(self._too_long)

    # called by httptools ------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._interim = 100 <= self._parser.get_status_code() < 200
        self._headers_done = not self._interim

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            self._too_long = f"the response is longer than {self._body_bytes_max} bytes"
            raise ValueError(self._too_long)
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim, self._headers = False, {}
            return
        if self.response is not None:
            self._too_long = "the server sent two responses"
            raise ValueError(self._too_long)
        self.keeps_alive = self._parser.should_keep_alive()
        self._complete()

    def _complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self.response = Response(self._parser.get_status_code(), self._headers, body)
