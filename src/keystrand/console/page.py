"""The status page as an ASGI application: read only, no external request, no inline script or style.

The page has no login: it shows what an operator at the console may see, no secret, and listens on the loopback
address unless told otherwise. The Host header is checked against a list, so that a hostile web page cannot reach it
through a name that it rebinds to 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from importlib.resources import files
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keystrand.core.errors import Unavailable
from keystrand.observe.alarms import STALE_S
from keystrand.observe.feed import Feed
from keystrand.observe.metrics import CONTENT_TYPE, Metrics

LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
KEEPALIVE_S: Final = 15.0
SEND_TIMEOUT_S: Final = 10.0
_SECURITY: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)
_TYPES: Final = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "html": "text/html; charset=utf-8",
}
_FILES: Final = (
    "app.js",
    "charts.js",
    "dom.js",
    "network.js",
    "words.js",
    "style.css",
    "mark.svg",
    "vendor/uplot-1.6.32.min.js",
    "vendor/uplot-1.6.32.min.css",
)


def status_app(feed: Feed, metrics: Metrics, *, site: str, hosts: Iterable[str] = LOOPBACK_HOSTS) -> ASGIApp:
    """The application. `hosts`: names (without port) under which the page may be asked for; nothing else is answered."""
    rooms = Starlette(
        routes=[
            Route("/", _fixed(_static("index.html").replace(b"{site}", html.escape(site).encode()), "html")),
            *(Route(f"/static/{name}", _fixed(_static(name), name.rsplit(".", 1)[1])) for name in _FILES),
            Route("/api/v1/status", _status(feed)),
            Route("/api/v1/events", _events(feed)),
            Route("/metrics", _metrics(metrics)),
            Route("/healthz", _health(feed, site)),
        ]
    )
    return _Guard(rooms, frozenset(host.lower() for host in hosts))


def health(age_s: float | None) -> tuple[int, str]:
    """Status code and word for `/healthz`: well only while fresh figures arrive."""
    if age_s is None:
        return 503, "starting"
    return (200, "ok") if age_s <= STALE_S else (503, "stale")


class _Guard:
    """Refuses foreign hosts and writing methods; adds the security headers to every answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, _hardened(send))

    def _refusal(self, scope: Scope) -> Response | None:
        named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(named) != 1 or _host_of(named[0]) not in self._hosts:
            return PlainTextResponse("this page is not served under that name\n", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("read only\n", 405, {"allow": "GET, HEAD"})
        return None


def _host_of(authority: str) -> str:
    """The host of a Host header, lower case, without the port. IPv6 keeps its brackets."""
    name, colon, port = authority.rpartition(":")
    return (name if colon and port.isdigit() else authority).lower()


def _hardened(send: Send) -> Send:
    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            mine = {name for name, _ in _SECURITY}
            message["headers"] = [pair for pair in message.get("headers", ()) if pair[0] not in mine] + [*_SECURITY]
        await send(message)

    return hardened


Endpoint = Callable[[Request], Awaitable[Response]]


def _static(name: str) -> bytes:
    return files("keystrand.console").joinpath("static").joinpath(*name.split("/")).read_bytes()


def _fixed(body: bytes, suffix: str) -> Endpoint:
    async def fixed(request: Request) -> Response:
        return Response(body, media_type=None, headers={"content-type": _TYPES[suffix]})

    return fixed


def _status(feed: Feed) -> Endpoint:
    async def status(request: Request) -> Response:
        return Response(msgspec.json.encode(feed.snapshot()), media_type="application/json")

    return status


def _metrics(metrics: Metrics) -> Endpoint:
    async def exposition(request: Request) -> Response:
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE})

    return exposition


def _health(feed: Feed, site: str) -> Endpoint:
    async def healthz(request: Request) -> Response:
        code, word = health(feed.age_s)
        return Response(msgspec.json.encode({"site": site, "status": word}), code, media_type="application/json")

    return healthz


def _events(feed: Feed) -> Endpoint:
    async def events(request: Request) -> Response:
        stream = feed.subscribe()
        try:
            first = await anext(stream)
        except Unavailable as error:
            return PlainTextResponse(f"{error}\n", 503, {"retry-after": str(int(error.retry_after_s))})
        return _BoundedStream(_server_sent(first, stream), media_type="text/event-stream")

    return events


async def _server_sent(first: dict[str, object], stream: AsyncIterator[dict[str, object]]) -> AsyncIterator[bytes]:
    """Server-sent events (WHATWG HTML, 9.2); a comment every 15 s so that a dead reader is noticed."""
    yield b"retry: 1000\n\n" + _message(first)
    pending = asyncio.ensure_future(anext(stream))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=KEEPALIVE_S)
            if not done:
                yield b": still here\n\n"
                continue
            yield _message(pending.result())
            pending = asyncio.ensure_future(anext(stream))
    except StopAsyncIteration:
        return
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator, though typed as an iterator


def _message(snapshot: dict[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(snapshot) + b"\n\n"


class _BoundedStream(StreamingResponse):
    """Drops a reader that does not take a chunk for ten seconds."""

    async def stream_response(self, send: Send) -> None:
        async def bounded(message: Message) -> None:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)

        try:
            await super().stream_response(bounded)
        except TimeoutError as error:
            raise OSError("the reader stopped reading") from error  # Starlette's word for a client that left
