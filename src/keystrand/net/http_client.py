"""HTTP/1.1 clients over mutual TLS: an asynchronous one with a pool of connections, and a blocking one for threads.

A request that has been sent is never repeated: the server may have handed out a key for it. Redirects are answers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import Final, cast

from keystrand.core.errors import KeystrandError, PeerFault, PeerUnavailable
from keystrand.core.limits import Limits
from keystrand.net.blocking import IDLE_S, BlockingStream, KeptStream, authority
from keystrand.net.http_exchange import NO_HEADERS, RESPONSE_BYTES_MAX, Headers, Response, ResponseParser, print_request
from keystrand.net.tls import TlsContexts, TlsPeer
from keystrand.net.tls_transport import TlsTransport, connect_tls

REQUEST_TIMEOUT_S: Final = 30.0
CONNECTIONS_MAX: Final = 16
CONNECT_TRIES: Final = 2


class _Exchange(asyncio.Protocol):
    """One connection of the pool, one request at a time."""

    def __init__(self, body_bytes_max: int) -> None:
        self._parser = ResponseParser(body_bytes_max)
        self._answer: asyncio.Future[Response] | None = None
        self._transport: TlsTransport | None = None
        self.idle_since_s = 0.0
        self.usable = False

    @property
    def peer(self) -> TlsPeer:
        assert self._transport is not None
        return self._transport.peer

    async def request(self, wire: bytes) -> Response:
        assert self._transport is not None
        assert self._answer is None, "two requests at once on one connection"
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        try:
            response = await self._answer
        except BaseException:
            self.abort()  # an answer that nobody waits for would be taken for the next request's
            raise
        finally:
            self._answer = None
        return response

    def abort(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(TlsTransport, transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.abort()  # nobody asked
            return
        try:
            self._parser.feed(data)
        except PeerFault as problem:
            self.usable = False
            self._answer.set_exception(problem)
            return
        if self._parser.response is not None:
            self._finish(self._parser.response, self._parser.keeps_alive)

    def eof_received(self) -> bool:
        self.usable = False
        if self._answer is not None and not self._answer.done() and self._parser.finish():
            assert self._parser.response is not None
            self._finish(self._parser.response, keeps_alive=False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            problem = exc if isinstance(exc, KeystrandError) else PeerUnavailable("the server hung up")
            self._answer.set_exception(problem)

    def _finish(self, response: Response, keeps_alive: bool) -> None:
        assert self._answer is not None
        self._parser.reset()
        self.usable = self.usable and keeps_alive
        self._answer.set_result(response)


class HttpClient:
    """Requests to one server, `expect` (kind, name), over at most `connections_max` connections that are kept open.

    Must be used within one event loop. Close it at the end, or use it as an asynchronous context manager.
    """

    def __init__(
        self,
        host: str,
        port: int,
        contexts: TlsContexts,
        *,
        expect: tuple[str | None, str],
        limits: Limits | None = None,
        connections_max: int = CONNECTIONS_MAX,
        timeout_s: float = REQUEST_TIMEOUT_S,
        body_bytes_max: int = RESPONSE_BYTES_MAX,
    ) -> None:
        self._host, self._port, self._contexts, self._expect = host, port, contexts, expect
        self._limits = limits or Limits()
        self._timeout_s = timeout_s
        self._body_bytes_max = body_bytes_max
        self._idle: deque[_Exchange] = deque()
        self._free = asyncio.Semaphore(connections_max)
        self._authority = authority(host, port)
        self._closed = False
        self.peer: TlsPeer | None = None  # of the newest connection

    async def request(
        self, method: str, path: str, body: bytes | None = None, *, headers: Headers = NO_HEADERS
    ) -> Response:
        """The response, whatever its status. `body` is JSON.

        Raises PeerUnavailable (no answer in time: it may have been served), NotPermitted, PeerFault.
        """
        wire = print_request(method, path, body, authority=self._authority, headers=headers)
        try:
            async with asyncio.timeout(self._timeout_s), self._free:
                return await self._exchange(wire)
        except TimeoutError:
            raise PeerUnavailable(f"{self._authority} did not answer within {self._timeout_s:g} s") from None

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.popleft().close()
        await asyncio.sleep(0)

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _exchange(self, wire: bytes) -> Response:
        exchange = self._take_idle() or await self._connect()
        response = await exchange.request(wire)
        if exchange.usable and not self._closed:
            exchange.idle_since_s = time.monotonic()
            self._idle.append(exchange)
        else:
            exchange.close()
        return response

    def _take_idle(self) -> _Exchange | None:
        oldest_s = time.monotonic() - IDLE_S
        while self._idle:
            exchange = self._idle.pop()  # the newest: the others may grow old and be dropped
            if exchange.usable and exchange.idle_since_s > oldest_s:
                return exchange
            exchange.close()
        return None

    async def _connect(self) -> _Exchange:
        for left in reversed(range(CONNECT_TRIES)):
            exchange = _Exchange(self._body_bytes_max)
            try:
                transport = await connect_tls(
                    self._host, self._port, self._contexts, exchange, expect=self._expect, limits=self._limits
                )
            except PeerUnavailable:
                if not left:
                    raise
            else:
                self.peer = transport.peer
                return exchange
        raise AssertionError("unreachable")


class SyncHttpClient:
    """The same for threads: one connection, one request at a time, blocking."""

    def __init__(
        self,
        host: str,
        port: int,
        contexts: TlsContexts,
        *,
        expect: tuple[str | None, str],
        limits: Limits | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
        body_bytes_max: int = RESPONSE_BYTES_MAX,
    ) -> None:
        limits = limits or Limits()
        self._timeout_s = timeout_s
        self._parser = ResponseParser(body_bytes_max)
        self._lock = threading.Lock()
        self._line = KeptStream(
            host,
            port,
            contexts,
            expect=expect,
            limits=limits,
            handshake_s=limits.tls_handshake_timeout_s,
            tries=CONNECT_TRIES,
        )

    @property
    def peer(self) -> TlsPeer | None:
        """Of the newest connection."""
        return self._line.peer

    def request(self, method: str, path: str, body: bytes | None = None, *, headers: Headers = NO_HEADERS) -> Response:
        """As HttpClient.request."""
        wire = print_request(method, path, body, authority=self._line.authority, headers=headers)
        with self._lock:
            stream = self._line.ready(self._timeout_s)
            try:
                response = self._exchange(stream, wire)
            except BaseException:
                self._line.drop()
                raise
            stream.idle_since_s = time.monotonic()
            return response

    def close(self) -> None:
        with self._lock:
            self._line.drop()

    def __enter__(self) -> SyncHttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, stream: BlockingStream, wire: bytes) -> Response:
        self._parser.reset()
        stream.write(wire)
        while self._parser.response is None:
            data = stream.read()
            if data:
                self._parser.feed(data)
            elif not self._parser.finish():
                raise PeerUnavailable("the server hung up")
        if not self._parser.keeps_alive:
            self._line.drop()
        return self._parser.response
