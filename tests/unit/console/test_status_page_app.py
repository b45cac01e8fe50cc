"""The page's application: read only, answers only to its own names, and says so in its headers."""

from __future__ import annotations

import asyncio
import hashlib
import re
from importlib.resources import files
from typing import Any

import pytest

from keystrand.console.page import health, status_app
from keystrand.core.events import KINDS, Event
from keystrand.observe.feed import Feed, Gauges, History
from keystrand.observe.metrics import Metrics

STATIC = files("keystrand.console") / "static"


async def ask(
    app: Any, path: str, *, host: str | None = "localhost:8080", method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """One request, straight into the ASGI application; of a stream, the first chunk."""
    headers = [] if host is None else [(b"host", host.encode())]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }
    sent: list[Any] = []
    gone = asyncio.Event()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            gone.set()

    async with asyncio.timeout(60):
        await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, body


def make(**kwargs: Any) -> tuple[Feed, Any]:
    feed = Feed("alpha", history=History(readers_max=1))
    return feed, status_app(feed, Metrics(), site="alpha", **kwargs)


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "[::1]"])
async def test_own_names_are_answered(host: str) -> None:
    assert (await ask(make()[1], "/healthz", host=host))[0] == 503  # starting
    assert (await ask(make()[1], "/", host=host))[0] == 200


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "127.0.0.1.evil.example", "localhost:80@evil", "[::1].x", "localhost."]
)
async def test_a_rebound_name_is_refused(host: str | None) -> None:
    code, _, body = await ask(make()[1], "/api/v1/status", host=host)
    assert code == 421
    assert b"alpha" not in body


async def test_another_name_can_be_allowed() -> None:
    assert (await ask(make(hosts=["kme.example"])[1], "/", host="kme.example:443"))[0] == 200
    assert (await ask(make(hosts=["kme.example"])[1], "/", host="localhost"))[0] == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_nothing_can_be_written(method: str) -> None:
    assert (await ask(make()[1], "/api/v1/status", method=method))[0] == 405


@pytest.mark.parametrize("path", ["/", "/api/v1/status", "/metrics", "/static/app.js", "/nothing", "/api/v1/events"])
async def test_every_answer_is_hardened(path: str) -> None:
    _, headers, _ = await ask(make()[1], path)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize(
    "path", ["/static/../page.py", "/static/vendor/../../page.py", "/static//etc/passwd", "/static/README.md"]
)
async def test_only_listed_files_are_served(path: str) -> None:
    assert (await ask(make()[1], path))[0] == 404


async def test_a_site_name_is_escaped() -> None:
    app = status_app(Feed(), Metrics(), site="<script>x</script>")
    assert b"<script>x" not in (await ask(app, "/"))[2]


async def test_the_stream_begins_with_the_whole_snapshot_and_frees_its_place() -> None:
    feed, app = make()
    feed.emit(Event("peer.up", 1.0, {"peer": "bravo"}))
    for _ in range(3):  # one reader at most: each must have left
        code, headers, body = await ask(app, "/api/v1/events")
        assert code == 200
        assert headers["content-type"].startswith("text/event-stream")
        assert b'"full":true' in body
        assert b"peer.up" in body


async def test_a_stream_too_many_is_told_to_wait() -> None:
    feed, app = make()
    taken = feed.subscribe()
    await anext(taken)
    code, headers, _ = await ask(app, "/api/v1/events")
    assert (code, headers["retry-after"]) == (503, "5")
    await taken.aclose()


async def test_health_follows_the_figures() -> None:
    feed, app = make()
    assert (await ask(app, "/healthz"))[0] == 503
    feed.update(Gauges())
    assert (await ask(app, "/healthz"))[0] == 200
    assert health(60.0) == (503, "stale")


async def test_metrics_are_prometheus_text() -> None:
    code, headers, body = await ask(make()[1], "/metrics")
    assert (code, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"# TYPE qkd_qber_ratio gauge" in body


def test_the_page_names_nothing_outside_and_nothing_inline() -> None:
    page = (STATIC / "index.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!/|#)""", page)
    assert not re.findall(r"\son\w+=|\sstyle=|<style|<script>", page)
    for name in ("app.js", "charts.js", "words.js", "style.css"):
        assert not re.findall(r"https?://|url\(|innerHTML|eval\(", (STATIC / name).read_text())


def test_the_page_has_words_for_every_event_that_it_lists() -> None:
    feed = Feed()
    for kind in KINDS:
        feed.emit(Event(kind, 1.0))
    listed = {event["kind"] for event in feed.snapshot()["events"]}
    said = set(re.findall(r'^  "([a-z_.]+)": \(', (STATIC / "words.js").read_text(), re.M))
    assert listed <= said <= set(KINDS)


def test_vendored_files_are_the_listed_ones() -> None:
    listed = dict(
        re.findall(r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", (STATIC / "vendor" / "README.md").read_text(), re.M)
    )
    there = {item.name for item in (STATIC / "vendor").iterdir() if item.name.endswith(("js", "css"))}
    assert listed.keys() == there
    for name, digest in listed.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest
