"""A client that leaves the processor to what is measured: mutual TLS, kept-alive connections, one request at a time on each.

The load shares its two processors with the servers, so what it wastes they lack. Same TLS as everybody (net/tls_engine), but
requests are put together once, answers are read by their length alone, and keys are compared as they stand in the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple, cast

import msgspec

from keystrand.core.errors import PeerFault, PeerUnavailable
from keystrand.core.limits import Limits
from keystrand.net.tls import TlsContexts
from keystrand.net.tls_transport import TlsTransport, connect_tls

_LENGTH: Final = b"content-length: "


class Lean(NamedTuple):
    """One answer."""

    status: int
    body: bytes


class Entry(msgspec.Struct):
    """One key of a container (ETSI GS QKD 014 V1.1.1, 6.3)."""

    key_ID: str  # noqa: N815
    key: str


class Container(msgspec.Struct):
    keys: list[Entry]


containers: Final = msgspec.json.Decoder(Container)


def materials(body: bytes) -> Mapping[str, str]:
    """Key ID -> base64 of a container. Raises msgspec.MsgspecError."""
    return {entry.key_ID: entry.key for entry in containers.decode(body).keys}


class _Line(asyncio.Protocol):
    """One connection. Servers of ours write a header and its body at once, with the length in lower case."""

    def __init__(self) -> None:
        self._transport: TlsTransport | None = None
        self._answer: asyncio.Future[Lean] | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(TlsTransport, transport)

    def ask(self, wire: bytes) -> asyncio.Future[Lean]:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._data = data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        at = data.find(_LENGTH, 0, end + 2)
        length = int(data[at + len(_LENGTH) : data.index(b"\r", at)]) if at >= 0 else 0
        if len(data) < end + 4 + length:
            return
        assert self._answer is not None
        assert len(data) == end + 4 + length, "more than one answer"
        self._data = b""
        self._answer.set_result(Lean(int(data[9:12]), data[end + 4 :]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or PeerUnavailable("the server hung up"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class LeanClient:
    """A Caller of one server over at most `connections_max` connections. POST only."""

    def __init__(
        self, host: str, port: int, contexts: TlsContexts, *, expect: tuple[str | None, str], connections_max: int
    ) -> None:
        self._host, self._port, self._contexts, self._expect = host, port, contexts, expect
        self._idle: list[_Line] = []
        self._all: list[_Line] = []
        self._connections_max = connections_max
        self._heads: dict[str, bytes] = {}

    async def request(self, method: str, path: str, body: bytes | None = None) -> Lean:
        """Raises PeerUnavailable, PeerFault, NotPermitted."""
        if method != "POST" or body is None:
            raise PeerFault("this client posts")
        line = self._idle.pop() if self._idle else await self._connect()
        answer = await line.ask(self._head(path) + b"%d\r\n\r\n" % len(body) + body)
        self._idle.append(line)
        return answer

    def _head(self, path: str) -> bytes:
        head = self._heads.get(path)
        if head is None:
            text = f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
            head = self._heads[path] = text.encode("ascii") + b"Content-Length: "
        return head

    async def _connect(self) -> _Line:
        if len(self._all) >= self._connections_max:
            raise PeerFault("every connection is busy")
        line = _Line()
        self._all.append(line)
        await connect_tls(self._host, self._port, self._contexts, line, expect=self._expect, limits=Limits())
        return line

    async def close(self) -> None:
        for line in self._all:
            line.close()
        await asyncio.sleep(0)
