"""Requests that are answered without a task: what comes whole goes that way, everything else does not."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from keystrand.core.limits import Limits
from keystrand.net.http_server import HttpServer
from keystrand.testing.patience import PATIENCE_S, until

HERE = "127.0.0.1"
LIMITS = Limits(http_header_timeout_s=0.4, http_idle_timeout_s=0.6, http_body_bytes_max=1000)


async def by_task(request):
    return Response(b"task " + await request.body())


class Edge:
    """Holds back its answers while `held` says so."""

    def __init__(self) -> None:
        self.held = False
        self.waiting = []

    def __call__(self, scope, body, reply) -> None:
        def answer() -> None:
            reply(200, [(b"x-path", scope["raw_path"])], b"whole " + body)

        if self.held:
            self.waiting.append(answer)
        else:
            answer()


@pytest.fixture
async def edge():
    return Edge()


@pytest.fixture
async def server(edge):
    app = Starlette(routes=[Route("/{rest:path}", by_task, methods=["GET", "POST", "PUT"])])
    server = HttpServer(app, HERE, contexts=None, limits=LIMITS, whole=edge)
    await server.start()
    yield server
    await server.stop(grace_s=1.0)


def post(body: bytes, *headers: bytes, method: bytes = b"POST", target: bytes = b"/a?b=c") -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, target), b"host: x", *headers, b"content-length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def talk(server, *sent: bytes, answers: int = 1) -> list[bytes]:
    """What the server says, one element an answer."""
    reader, writer = await asyncio.open_connection(HERE, server.port)
    try:
        for part in sent:
            writer.write(part)
            await asyncio.sleep(0.01)
        return [await one_answer(reader) for _ in range(answers)]
    finally:
        writer.close()


async def one_answer(reader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        return await one_answer(reader)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    return head + await reader.readexactly(length)


async def test_a_small_post_is_answered_whole(server):
    (answer,) = await talk(server, post(b"hello"))
    assert answer == b"HTTP/1.1 200 OK\r\nx-path: /a\r\ncontent-length: 11\r\n\r\nwhole hello"


async def test_a_body_may_come_in_pieces_and_the_connection_goes_on(server):
    wire = post(b"12345")
    answers = await talk(server, wire[:-3], wire[-3:], post(b""), post(b"x"), answers=3)
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [b"whole 12345", b"whole ", b"whole x"]


@pytest.mark.parametrize(
    "wire",
    [
        post(b"x", method=b"PUT"),
        post(b"x" * 1001),
        post(b"x", b"expect: 100-continue"),
        post(b"x", b"connection: close"),
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nhost: x\r\ncontent-length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["other method", "long", "expects", "closes", "chunked", "HTTP/1.0", "GET"],
)
async def test_everything_else_takes_the_way_of_tasks(server, wire):
    (answer,) = await talk(server, wire)
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"task")


async def test_pipelined_requests_are_answered_in_their_order(server, edge):
    edge.held = True
    asking = asyncio.create_task(talk(server, post(b"1") + post(b"2") + post(b"3"), answers=3))
    await until(lambda: edge.waiting)
    edge.held = False
    edge.waiting[0]()
    answers = [answer.partition(b"\r\n\r\n")[2] for answer in await asking]
    assert answers == [b"whole 1", b"task 2", b"task 3"]


async def test_an_answer_for_a_client_that_has_left_goes_nowhere(server, edge):
    edge.held = True
    _, writer = await asyncio.open_connection(HERE, server.port)
    writer.write(post(b"1"))
    await until(lambda: edge.waiting)
    writer.transport.abort()
    await until(lambda: server.connections == 0)
    edge.waiting[0]()


async def test_a_stop_waits_for_the_answer_and_says_that_it_closes(server, edge):
    edge.held = True
    asking = asyncio.create_task(talk(server, post(b"1")))
    await until(lambda: edge.waiting)
    stopping = asyncio.create_task(server.stop(grace_s=PATIENCE_S))
    await asyncio.sleep(0.05)
    assert not stopping.done()
    edge.waiting[0]()
    (answer,) = await asking
    assert b"connection: close" in answer
    await stopping


async def test_a_body_that_trickles_in_is_cut_off(server):
    reader, writer = await asyncio.open_connection(HERE, server.port)
    writer.write(post(b"0123456789")[:-9])
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
    finally:
        writer.close()
