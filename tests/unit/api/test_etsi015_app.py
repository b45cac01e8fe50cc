"""The controller's door: who may read, which paths there are, and what each refusal says."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from uuid import UUID

import pytest

from keystrand.api.etsi015 import MEDIA, etsi015_app
from keystrand.api.etsi015_stream import LOCATION as STREAM_PATH
from keystrand.core.errors import IllegalTransition, StoreUnavailable, UnknownKey
from keystrand.testing.asgi import App, AsgiCaller, CertificateName, Message, TlsSide
from keystrand.testing.sinks import Ears
from keystrand.wire.etsi015 import Link, LinkStatus, Node, NodeStatus, entity_id

NODE_PATH = "/restconf/data/etsi-qkd-sdn-node:qkd_node"
LAB, HERE, THERE = entity_id("link", "lab"), entity_id("kme", "a"), entity_id("kme", "b")
LINK = Link(link_id=LAB, status=LinkStatus.PASSIVE, remote_node=THERE)


class Source:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self.refusal: Exception | None = None
        self.link = LINK
        self.asked: list[tuple[UUID, bool, str]] = []

    async def node(self) -> Node:
        if self.error is not None:
            raise self.error
        return Node(node_id=HERE, status=NodeStatus.OPERATING, version="1", links=(self.link,))

    async def enable(self, link: UUID, *, enabled: bool, actor: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append((link, enabled, actor))


def edge(source: Source | None = None) -> tuple[App, Ears]:
    heard = Ears()
    return etsi015_app(source or Source(), may_read=lambda who: who.name == "controller", sink=heard), heard


def caller(app: App, name: str = "controller", accept: bytes | None = None, kind: str | None = "sae") -> AsgiCaller:
    return AsgiCaller(app, name, kind=kind, headers=((b"accept", accept),) if accept else ())


@pytest.mark.parametrize("path", [NODE_PATH, f"{NODE_PATH}/", "/restconf/data/etsi-qkd-sdn-node%3Aqkd_node"])
async def test_the_node_is_read(path: str) -> None:
    reply = await caller(edge()[0]).request("GET", path)
    assert (reply.status, reply.headers["content-type"], reply.headers["cache-control"]) == (200, MEDIA, "no-store")
    node = json.loads(reply.body)["etsi-qkd-sdn-node:qkd_node"]
    assert node["qkdn_id"] == str(HERE)


async def test_parts_of_the_node_are_read() -> None:
    app, _ = edge()
    link = await caller(app).request("GET", f"{NODE_PATH}/qkd_links/qkd_link={LAB}/qkdl_status")
    assert json.loads(link.body) == {"etsi-qkd-sdn-node:qkdl_status": "etsi-qkd-node-types:PASSIVE"}
    root = await caller(app).request("GET", "/restconf")
    assert "data" in json.loads(root.body)["ietf-restconf:restconf"]
    data = await caller(app).request("GET", "/restconf/data")
    assert "etsi-qkd-sdn-node:qkd_node" in json.loads(data.body)["ietf-restconf:data"]
    library = await caller(app).request("GET", "/restconf/yang-library-version")
    assert json.loads(library.body) == {"ietf-restconf:yang-library-version": "2016-06-21"}


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    app, _ = edge()
    head, get = await caller(app).request("HEAD", NODE_PATH), await caller(app).request("GET", NODE_PATH)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(get.body)))


async def test_options_says_that_it_is_only_read() -> None:
    reply = await caller(edge()[0]).request("OPTIONS", NODE_PATH)
    assert (reply.status, reply.body, reply.headers["allow"]) == (200, b"", "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("accept", [b"application/yang-data+json", b"*/*", b"text/html, application/json;q=0.5"])
async def test_what_controllers_accept_is_served(accept: bytes) -> None:
    assert (await caller(edge()[0], accept=accept).request("GET", NODE_PATH)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "accept", "status", "tag"),
    [
        ("GET", "/restconf/data/other:node", None, 404, "invalid-value"),
        ("GET", f"{NODE_PATH}/qkd_links/qkd_link={HERE}", None, 404, "invalid-value"),
        ("GET", "/elsewhere", None, 404, "invalid-value"),
        ("GET", f"{NODE_PATH}/../x", None, 404, "invalid-value"),
        ("PUT", NODE_PATH, None, 405, "operation-not-supported"),
        ("PATCH", NODE_PATH, None, 405, "operation-not-supported"),
        ("DELETE", NODE_PATH, None, 405, "operation-not-supported"),
        ("POST", NODE_PATH, None, 405, "operation-not-supported"),
        ("GET", NODE_PATH, b"application/yang-data+xml", 406, "invalid-value"),
        ("GET", NODE_PATH, b"application/json;q=0", 406, "invalid-value"),
        ("GET", f"{NODE_PATH}?depth=1", None, 400, "invalid-value"),
    ],
)
async def test_refusals_say_why_in_restconf(
    method: str, path: str, accept: bytes | None, status: int, tag: str
) -> None:
    app, heard = edge()
    reply = await caller(app, accept=accept).request(method, path)
    error = json.loads(reply.body)["ietf-restconf:errors"]["error"][0]
    assert (reply.status, error["error-type"], error["error-tag"]) == (status, "protocol", tag)
    assert ("allow" in reply.headers) == (status == 405)
    assert [event.kind for event in heard.events] == ["request.refused"]


@pytest.mark.parametrize("kind", [None, "sae"])
@pytest.mark.parametrize("path", [NODE_PATH, "/elsewhere"])
async def test_strangers_learn_nothing(kind: str | None, path: str) -> None:
    reply = await caller(edge()[0], "stranger", kind=kind).request("GET", path)
    assert reply.status == 401


async def test_fault_within_is_told_without_words() -> None:
    source = Source()
    source.error = StoreUnavailable("the secret reason")
    reply = await caller(edge(source)[0]).request("GET", NODE_PATH)
    assert reply.status == 503
    assert b"secret" not in reply.body


# setting --------------------------------------------------------------------------------------------------------------

ENABLE_PATH = f"{NODE_PATH}/qkd_links/qkd_link={LAB}/qkdl_enable"


def writer(source: Source) -> App:
    return etsi015_app(
        source,
        may_read=lambda who: who.name in ("controller", "reader"),
        may_write=lambda who: who.name == "controller",
        sink=Ears(),
        period_s=0.01,
    )


@pytest.mark.parametrize("media", [b"application/yang-data+json", b"application/json"])
async def test_a_controller_that_may_takes_a_hop_out_of_use(media: bytes) -> None:
    source = Source()
    body = b'{"etsi-qkd-sdn-node:qkdl_enable": false}'
    one = AsgiCaller(writer(source), "controller", headers=((b"content-type", media),))
    reply = await one.request("PATCH", ENABLE_PATH, body)
    assert (reply.status, reply.body) == (204, b"")
    assert (await one.request("PUT", ENABLE_PATH, body.replace(b"false", b"true"))).status == 204
    assert source.asked == [(LAB, False, "controller controller"), (LAB, True, "controller controller")]


@pytest.mark.parametrize(
    ("who", "path", "body", "error", "status"),
    [
        ("reader", ENABLE_PATH, b'{"etsi-qkd-sdn-node:qkdl_enable": false}', None, 403),
        ("stranger", ENABLE_PATH, b'{"etsi-qkd-sdn-node:qkdl_enable": false}', None, 401),
        ("controller", ENABLE_PATH, b'{"etsi-qkd-sdn-node:qkdl_enable": "no"}', None, 400),
        ("controller", ENABLE_PATH, b'{"x": false}', None, 400),
        ("controller", ENABLE_PATH, b"[]", None, 400),
        ("controller", ENABLE_PATH, b"{" * 2000, None, 413),
        ("controller", NODE_PATH, b'{"etsi-qkd-sdn-node:qkdl_enable": false}', None, 405),
        ("controller", ENABLE_PATH.replace(str(LAB), "x"), b'{"etsi-qkd-sdn-node:qkdl_enable": false}', None, 404),
        ("controller", ENABLE_PATH, b'{"etsi-qkd-sdn-node:qkdl_enable": false}', IllegalTransition("short"), 409),
        ("controller", ENABLE_PATH, b'{"etsi-qkd-sdn-node:qkdl_enable": false}', UnknownKey("no such link"), 404),
    ],
)
@pytest.mark.proves("R061")
async def test_nothing_else_is_set(who: str, path: str, body: bytes, error: Exception | None, status: int) -> None:
    source = Source()
    source.refusal = error
    reply = await AsgiCaller(writer(source), who).request("PATCH", path, body)
    assert reply.status == status
    assert source.asked == []


async def test_a_body_of_another_kind_is_told_which_is_read() -> None:
    form = ((b"content-type", b"application/x-www-form-urlencoded"),)  # what curl says of itself
    reply = await AsgiCaller(writer(Source()), "controller", headers=form).request("PATCH", ENABLE_PATH, b"{}")
    assert reply.status == 415
    assert f"Content-Type shall be {MEDIA}" in reply.body.decode()


# hearing --------------------------------------------------------------------------------------------------------------


async def test_a_listener_hears_what_changes_and_may_go() -> None:
    source, gone, heard = Source(), asyncio.Event(), asyncio.Queue[bytes]()
    app = writer(source)

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert (b"content-type", b"text/event-stream") in message["headers"]
        else:
            await heard.put(message["body"])

    scope: Message = {
        "type": "http",
        "method": "GET",
        "path": STREAM_PATH,
        "raw_path": STREAM_PATH.encode(),
        "headers": [],
        "extensions": {"keystrand.tls": TlsSide(CertificateName("sae", "reader"))},
    }
    listening = asyncio.create_task(app(scope, receive, send))
    assert await asyncio.wait_for(heard.get(), 20) == b": listening\n\n"
    source.link = replace(LINK, status=LinkStatus.OFF)
    told = await asyncio.wait_for(heard.get(), 20)
    message = json.loads(told.removeprefix(b"data: "))["ietf-restconf:notification"]
    assert message["etsi-qkd-sdn-node:alarm"]["link"]["qkdl_id"] == str(LAB)
    source.error = StoreUnavailable("busy")
    gone.set()
    await asyncio.wait_for(listening, 20)


async def test_the_stream_is_listed_and_closed_to_strangers() -> None:
    app = writer(Source())
    listed = await caller(app).request("GET", "/restconf/data/ietf-restconf-monitoring:restconf-state")
    (stream,) = json.loads(listed.body)["ietf-restconf-monitoring:restconf-state"]["streams"]["stream"]
    assert stream["access"] == [{"encoding": "json", "location": STREAM_PATH}]
    assert (await caller(app, "stranger").request("GET", STREAM_PATH)).status == 401
