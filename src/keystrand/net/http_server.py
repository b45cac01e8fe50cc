"""HTTP/1.1 for an ASGI application: over mutual TLS with the peer in the scope, or plain on loopback.

The HTTP itself is uvicorn's protocol class on httptools; what is added here is who the peer is, and the bounds on time
and size that uvicorn leaves to a proxy in front. The server lives in the caller's event loop and installs nothing in it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sized
from typing import Any, Final, cast

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from keystrand.core.errors import ConfigError
from keystrand.core.limits import Limits
from keystrand.net.gate import Gate
from keystrand.net.http_whole import Whole, WholeCycle
from keystrand.net.tls import ServerSide
from keystrand.net.tls_transport import PEER, Refusal, accepting

SWEEP_S: Final = 0.5
HEADER_BYTES_MAX: Final = 32_768
STOP_GRACE_S: Final = 5.0
STOP_LOOK_S: Final = 0.01
PIPELINE_MAX: Final = 16  # requests that a client may send before it has the answer to the first
BACKLOG: Final = 1024

App = Callable[..., Any]

# uvicorn warns of every malformed request by itself; here that is the peer's business and counted elsewhere
logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


class _Flow(FlowControl):
    """Reads no more while requests wait: uvicorn resumes after each answer, and the queue would grow without end."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class HttpConnection(HttpToolsProtocol):
    """One connection. `waits` says for what of the client since `since_s`, so that the sweep can end what lingers."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        app_state: dict[str, Any],
        whole: Whole | None = None,
        body_bytes_max: int = 0,
    ) -> None:
        super().__init__(config, state, app_state, asyncio.get_running_loop())
        self._whole = whole
        self._body_bytes_max = body_bytes_max
        self.waits: str | None = "idle"
        self.since_s = self.loop.time()
        self.stalled_s: float | None = None  # since when the client does not read
        self._header_bytes = 0
        self._extensions: dict[str, Any] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._wait("idle")
        peer = transport.get_extra_info(PEER)
        if peer is not None:
            self._extensions = {PEER: peer}

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()  # uvicorn forgets the timer of a connection that was cut
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.waits == "headers":
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response("Request header fields are too large.")

    def send_400_response(self, msg: str) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            super().send_400_response(msg)
        else:
            self.transport.abort()  # a 400 now would be taken for the answer that is still being made

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= PIPELINE_MAX:
            raise ValueError("too many requests at once")
        super().on_message_begin()
        self.scope["extensions"] = self._extensions
        self._header_bytes = 0
        self._wait("headers")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_BYTES_MAX:
            raise ValueError("header fields are too large")  # httptools makes this a parser error, uvicorn a 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._wait("body")  # for all of it: bytes that trickle in buy no time
        if self._whole is not None and self._fits_whole():
            self._begin_whole(self._whole)
        else:
            super().on_headers_complete()

    def _fits_whole(self) -> bool:
        parser = self.parser
        cycle: RequestResponseCycle | None = self.cycle
        if not (cycle is None or cycle.response_complete) or self.flow.write_paused or self.expect_100_continue:
            return False
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return False
        names = [name for name, _ in self.headers]
        lengths = [value for name, value in self.headers if name == b"content-length"]
        if len(lengths) != 1 or b"transfer-encoding" in names or b"upgrade" in names or not self.url.startswith(b"/"):
            return False
        return lengths[0].isdigit() and len(lengths[0]) < 10 and int(lengths[0]) <= self._body_bytes_max

    def _begin_whole(self, whole: Whole) -> None:
        if self.transport.is_closing():
            raise ValueError("nobody would get the answer")
        raw_path, _, query = self.url.partition(b"?")
        scope = cast(dict[str, Any], self.scope)
        scope.update(method="POST", path=raw_path.decode("latin-1"), raw_path=raw_path, query_string=query)
        self.cycle = WholeCycle(self, scope, whole)  # type: ignore[assignment]  # as uvicorn has it

    @property
    def is_answering(self) -> bool:
        return isinstance(self.cycle, WholeCycle) and not self.cycle.response_complete

    def on_message_complete(self) -> None:
        self.waits = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        self.stalled_s = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stalled_s = None
        super().resume_writing()

    def lingers(self, now_s: float, limits: Limits) -> bool:
        """Has the client kept this connection waiting longer than it may?"""
        if self.stalled_s is not None and now_s - self.stalled_s > limits.http_idle_timeout_s:
            return True
        if self.waits is None or self.flow.read_paused:
            return False
        allowed_s = limits.http_header_timeout_s if self.waits == "headers" else limits.http_idle_timeout_s
        return now_s - self.since_s > allowed_s

    def _wait(self, what: str) -> None:
        self.waits, self.since_s = what, self.loop.time()


class HttpServer:
    """`start`, then `port`; `stop` is graceful for STOP_GRACE_S. Without contexts: plain HTTP, loopback only.

    whole: answers those requests that come whole and small (net/http_whole.py); the app answers all others.
    Raises ConfigError for a plain listener that is not on loopback, and where the address cannot be had.
    """

    def __init__(
        self,
        app: App,
        host: str,
        port: int = 0,
        *,
        contexts: ServerSide | None,
        limits: Limits | None = None,
        whole: Whole | None = None,
    ) -> None:
        if contexts is None and not _is_loopback(host):
            raise ConfigError(
                f"plain HTTP on {host} could be reached from outside", hint="listen on 127.0.0.1 or [::1]"
            )
        self._host, self._port = host, port
        self._contexts = contexts
        self._limits = limits or Limits()
        self._whole = whole
        self._config = _config(app, self._limits)
        self._state = ServerState()
        self._lifespan = self._config.lifespan_class(self._config)
        self._gate = Gate(
            connections_max=self._limits.http_connections_max,
            per_holder_max=self._limits.http_connections_per_holder_max,
        )
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port in use, also where 0 was asked for."""
        assert self._server is not None, "not started"
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        return len(self._state.connections)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        await self._lifespan.startup()
        if self._lifespan.should_exit:
            raise ConfigError("the application did not start")
        try:
            self._server = await loop.create_server(self._accept, self._host, self._port, backlog=BACKLOG)
        except OSError as problem:
            raise ConfigError(
                f"cannot listen on {self._host}:{self._port}: {problem.strerror}", hint="is the port in use?"
            ) from None
        self._sweeper = loop.create_task(self._sweep())

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Take no more connections, let running requests finish, then end what is left. Idempotent."""
        if self._server is None or self._sweeper is None:
            return
        self._server.close()
        self._sweeper.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=grace_s)
        end_s = asyncio.get_running_loop().time() + grace_s
        while any(map(_is_answering, self._state.connections)) and asyncio.get_running_loop().time() < end_s:
            await asyncio.sleep(STOP_LOOK_S)
        await asyncio.sleep(0)  # the last answers and their close_notify leave with the turn of the loop
        self._cut_all()
        await asyncio.gather(self._sweeper, *self._state.tasks, return_exceptions=True)
        await self._lifespan.shutdown()
        self._sweeper = None

    def _accept(self) -> asyncio.BaseProtocol:
        if self._contexts is None and self.connections >= self._limits.http_connections_max:
            return Refusal()
        connection = HttpConnection(
            self._config, self._state, self._lifespan.state, self._whole, self._limits.http_body_bytes_max
        )
        if self._contexts is None:
            return connection
        return accepting(self._contexts, self._limits, connection, self._gate)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(SWEEP_S, self._limits.http_header_timeout_s / 4))
            now_s = loop.time()
            for connection in list(self._state.connections):
                if isinstance(connection, HttpConnection) and connection.lingers(now_s, self._limits):
                    connection.transport.abort()

    def _cut_all(self) -> None:
        for task in self._state.tasks:
            task.cancel()
        self._gate.cut_all()  # handshakes included
        for connection in list(self._state.connections):
            connection.transport.abort()


def _is_answering(connection: object) -> bool:
    return isinstance(connection, HttpConnection) and connection.is_answering


def _config(app: App, limits: Limits) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=HttpConnection,
        ws="none",
        lifespan="auto",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=max(1, round(limits.http_idle_timeout_s)),
    )
    config.load()
    return config


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
