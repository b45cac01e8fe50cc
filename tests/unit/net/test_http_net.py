"""HTTP over mutual TLS: our server with our two clients, and what a hostile client gets."""

import asyncio
import json
import socket
from collections import deque
from dataclasses import replace

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from keystrand.core.errors import ConfigError, NotPermitted, PeerFault, PeerUnavailable
from keystrand.core.limits import Limits
from keystrand.net.http_client import HttpClient, SyncHttpClient
from keystrand.net.http_exchange import ResponseParser, print_request
from keystrand.net.http_server import PIPELINE_MAX, HttpServer
from keystrand.testing.patience import PATIENCE_S, until

LIMITS = Limits(http_connections_max=20)
HERE = "127.0.0.1"
BEGUN = []  # requests that are slow to answer


async def who(request):
    peer = request.scope["extensions"]["keystrand.tls"]
    body = await request.body()
    return JSONResponse({"kind": peer.identity.kind, "name": peer.identity.name, "group": peer.group, "got": len(body)})


async def eat(request):
    return Response(str(len(await request.body())).encode())


async def long(request):
    return Response(bytes(5_000_000))


async def huge(request):
    return Response(bytes(50_000_000))


async def slow(request):
    BEGUN.append(request)
    await asyncio.sleep(0.3)
    return Response(b"done")


async def never(request):
    await asyncio.Event().wait()


async def stream(request):
    async def chunks():
        for number in range(3):
            yield f"data: {number}\n\n"

    return StreamingResponse(chunks())


APP = Starlette(
    routes=[
        Route("/who", who, methods=["GET", "POST"]),
        Route("/eat", eat, methods=["POST"]),
        Route("/long", long),
        Route("/huge", huge),
        Route("/slow", slow),
        Route("/never", never),
        Route("/stream", stream),
    ]
)


@pytest.fixture
async def server(estate):
    server = HttpServer(APP, HERE, contexts=estate.contexts("kme-kme-a"), limits=LIMITS)
    await server.start()
    yield server
    await server.stop(grace_s=1.0)


def client(estate, port, holder="sae-sae-1", **more):
    return HttpClient(HERE, port, estate.contexts(holder), expect=("kme", "kme-a"), **more)


async def test_identity_and_group_come_from_the_handshake(server, estate):
    async with client(estate, server.port) as http:
        answer = await http.request("POST", "/who", b"x" * 100_000)
        assert answer.status == 200
        expected = {"kind": "sae", "name": "sae-1", "group": "X25519MLKEM768", "got": 100_000}
        assert json.loads(answer.body) == expected
        assert "server" not in answer.headers
        assert "date" not in answer.headers
        assert http.peer.identity.name == "kme-a"


async def test_long_and_streamed_answers_arrive_whole(server, estate):
    async with client(estate, server.port) as http:
        assert (await http.request("GET", "/long")).body == bytes(5_000_000)
        assert (await http.request("GET", "/stream")).body.count(b"data") == 3
        assert (await http.request("GET", "/nowhere")).status == 404


async def test_many_requests_share_few_connections(server, estate):
    async with client(estate, server.port, connections_max=4) as http:
        answers = await asyncio.gather(*(http.request("GET", "/who") for _ in range(100)))
        assert {answer.status for answer in answers} == {200}
        assert server.connections <= 4


async def test_answer_in_no_time_is_unavailable_and_the_connection_is_not_used_again(server, estate):
    BEGUN.clear()
    async with client(estate, server.port, timeout_s=1.0) as http:
        with pytest.raises(PeerUnavailable, match="did not answer"):
            await http.request("GET", "/never")
    async with client(estate, server.port, connections_max=1) as http:
        waiting = asyncio.create_task(http.request("GET", "/slow"))
        await until(lambda: BEGUN)
        waiting.cancel()
        answer = await http.request("GET", "/who")
        assert b"sae-1" in answer.body


async def test_answer_over_the_limit_is_refused(server, estate):
    async with client(estate, server.port, body_bytes_max=1000) as http:
        with pytest.raises(PeerFault, match="longer than 1000"):
            await http.request("GET", "/long")


async def test_stop_lets_the_running_request_finish(estate):
    server = HttpServer(APP, HERE, contexts=estate.contexts("kme-kme-a"), limits=LIMITS)
    await server.start()
    async with client(estate, server.port) as http:
        BEGUN.clear()
        running = asyncio.create_task(http.request("GET", "/slow"))
        await until(lambda: BEGUN)
        await server.stop()
        assert (await running).body == b"done"
        with pytest.raises(PeerUnavailable):
            await http.request("GET", "/who")


async def test_blocking_client_gets_the_same(server, estate):
    def use():
        with SyncHttpClient(HERE, server.port, estate.contexts("sae-sae-1"), expect=("kme", "kme-a")) as http:
            bodies = [http.request("POST", "/who", b"abc").body for _ in range(20)]
            long = http.request("GET", "/long").body
            return bodies, long, http.peer

    bodies, long, peer = await asyncio.to_thread(use)
    assert {json.loads(body)["name"] for body in bodies} == {"sae-1"}
    assert long == bytes(5_000_000)
    assert peer.group == "X25519MLKEM768"


async def test_blocking_client_notices_that_the_server_closed_an_idle_connection(estate):
    server = HttpServer(
        APP, HERE, contexts=estate.contexts("kme-kme-a"), limits=replace(LIMITS, http_idle_timeout_s=1.0)
    )
    await server.start()
    http = SyncHttpClient(HERE, server.port, estate.contexts("sae-sae-1"), expect=("kme", "kme-a"))
    await asyncio.to_thread(http.request, "GET", "/who")
    await until(lambda: server.connections == 0)
    assert (await asyncio.to_thread(http.request, "GET", "/who")).status == 200
    http.close()
    await server.stop()


async def test_blocking_client_refuses_another_server(server, estate):
    http = SyncHttpClient(HERE, server.port, estate.contexts("sae-sae-1"), expect=("kme", "kme-b"))
    with pytest.raises(NotPermitted, match="not kme kme-b"):
        await asyncio.to_thread(http.request, "GET", "/who")


async def plain_server(**limits):
    server = HttpServer(APP, HERE, contexts=None, limits=Limits(**limits))
    await server.start()
    return server


async def test_slow_headers_idle_connections_and_slow_bodies_are_ended():
    server = await plain_server(http_header_timeout_s=0.3, http_idle_timeout_s=0.6)
    for said in (b"", b"GET /slow HTTP/1.1\r\nHost: x\r\nA: ", b"POST /eat HTTP/1.1\r\nContent-Length: 9\r\n\r\na"):
        reader, writer = await asyncio.open_connection(HERE, server.port)
        writer.write(said)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), PATIENCE_S)
        writer.close()
    await server.stop()


async def test_trickled_header_does_not_buy_time():
    server = await plain_server(http_header_timeout_s=0.4)
    _, writer = await asyncio.open_connection(HERE, server.port)
    writer.write(b"GET / HTTP/1.1\r\n")

    async def trickle():
        while True:
            writer.write(b"a: b\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(trickle(), 30)
    await server.stop()


@pytest.mark.parametrize(
    "header", [b"a: " + b"b" * 40_000, b"\r\n".join(b"a%d: %s" % (i, b"b" * 90) for i in range(500))]
)
async def test_header_without_end_is_refused(header):
    server = await plain_server()
    reader, writer = await asyncio.open_connection(HERE, server.port)
    writer.write(b"GET /stream HTTP/1.1\r\n" + header)
    assert (await asyncio.wait_for(reader.readline(), PATIENCE_S)).startswith(b"HTTP/1.1 400")
    writer.close()
    await server.stop()


async def test_pipelined_requests_are_answered_in_order_and_a_flood_of_them_is_cut():
    server = await plain_server()
    reader, writer = await asyncio.open_connection(HERE, server.port)
    writer.write(b"".join(b"POST /eat HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (n, b"x" * n) for n in range(1, 9)))
    got = b""
    while b"\r\n\r\n8" not in got:
        got += await asyncio.wait_for(reader.read(4096), PATIENCE_S)
    assert [line[:1] for line in got.split(b"\r\n\r\n")[1:]] == [b"%d" % n for n in range(1, 9)]
    writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" * (2 * PIPELINE_MAX))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), PATIENCE_S)
    await until(lambda: server.connections == 0)
    await server.stop()


async def test_client_that_does_not_read_its_answer_is_cut():
    server = await plain_server(http_idle_timeout_s=0.5)
    raw = socket.create_connection((HERE, server.port))
    raw.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: server.connections == 1)
    await until(lambda: server.connections == 0)
    raw.close()
    await server.stop()


async def test_waiting_requests_stop_the_reading():
    # with room in the queue, but no more: what comes after the first waiting request stays in the socket
    server = await plain_server()
    _, writer = await asyncio.open_connection(HERE, server.port)
    for _ in range(4):
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.02)
    (connection,) = server._state.connections
    assert len(connection.pipeline) == 1
    assert connection.flow.read_paused
    writer.close()
    await server.stop()


async def test_connections_over_the_limit_are_closed_at_once():
    server = await plain_server(http_connections_max=3)
    pairs = [await asyncio.open_connection(HERE, server.port) for _ in range(4)]
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(pairs[3][0].readexactly(1), PATIENCE_S)
    pairs[0][1].write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await asyncio.wait_for(pairs[0][0].readline(), PATIENCE_S)).startswith(b"HTTP/1.1 200")
    for _, writer in pairs:
        writer.close()
    await server.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_plain_page_does_not_listen_where_others_reach_it(host):
    with pytest.raises(ConfigError, match="could be reached"):
        HttpServer(APP, host, contexts=None)


async def test_port_in_use_is_a_config_error():
    first = await plain_server()
    second = HttpServer(APP, HERE, first.port, contexts=None)
    with pytest.raises(ConfigError, match="cannot listen"):
        await second.start()
    await first.stop()


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "a", "", "/ü"])
def test_path_that_could_smuggle_is_not_sent(path):
    with pytest.raises(ValueError):
        print_request("GET", path, None, authority="x")


@pytest.mark.parametrize(
    "wire",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000,
    ],
)
def test_what_is_no_single_response_is_refused(wire):
    parser = ResponseParser()
    pieces = [wire[start : start + 1000] for start in range(0, len(wire), 1000)]
    with pytest.raises(PeerFault):
        deque(map(parser.feed, pieces))


def test_interim_answers_are_passed_over_and_a_cut_one_is_not_taken_for_whole():
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: 1\r\nA: 2\r\n\r\nab")
    assert not parser.finish()
    parser.feed(b"cde")
    assert (parser.response.status, parser.response.body, parser.response.headers["a"]) == (200, b"abcde", "1, 2")


async def test_server_that_falls_silent_does_not_hold_a_thread(estate):
    with socket.create_server((HERE, 0)) as listener:  # it takes connections, and that is all
        port, limits = listener.getsockname()[1], Limits(tls_handshake_timeout_s=0.3)
        http = SyncHttpClient(HERE, port, estate.contexts("sae-sae-1"), expect=("kme", "kme-a"), limits=limits)
        with pytest.raises(PeerUnavailable):
            await asyncio.wait_for(asyncio.to_thread(http.request, "GET", "/who"), PATIENCE_S)
