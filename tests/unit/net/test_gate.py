"""Places at a listener: a crowd without certificates keeps nobody out, nobody takes all, and who is revoked is put out."""

import asyncio
import shutil

import pytest

from keystrand.core.errors import KeystrandError
from keystrand.core.limits import Limits
from keystrand.crypto import pki
from keystrand.net import tls, tls_transport
from keystrand.net.frames import FrameServer, FrameStream, connect_frames, serve_streams
from keystrand.net.gate import Gate
from keystrand.net.http_client import HttpClient
from keystrand.net.http_server import HttpServer
from keystrand.net.tls import TlsContexts, TlsFiles
from keystrand.testing.sinks import Ears

HERE = "127.0.0.1"
PLACES = 8
LIMITS = Limits(tls_handshake_timeout_s=30.0, http_connections_max=PLACES, http_connections_per_holder_max=3)


class End:
    def __init__(self):
        self.is_cut = False

    def abort(self):
        self.is_cut = True


def test_T11_the_oldest_stranger_makes_room_and_those_who_are_known_do_not():
    gate = Gate(connections_max=3, per_holder_max=2)
    known, first, second, third = End(), End(), End(), End()
    assert gate.enter(known)
    assert gate.know(known, "sae a")
    assert gate.enter(first)
    assert gate.enter(second)
    assert gate.enter(third)
    assert [end.is_cut for end in (known, first, second, third)] == [False, True, False, False]
    assert gate.know(second, "sae a")
    assert gate.know(third, "sae b")
    assert not gate.enter(End()), "all places are taken by known ones"
    gate.leave(second)
    gate.leave(second)
    assert len(gate) == 2
    assert gate.enter(End())


def test_T11_a_holder_has_its_share_and_gets_it_back():
    gate = Gate(connections_max=10, per_holder_max=2)
    ends = [End() for _ in range(3)]
    assert [gate.enter(end) and gate.know(end, "sae a") for end in ends] == [True, True, False]
    gate.leave(ends[2])
    gate.leave(ends[0])
    assert gate.enter(ends[2])
    assert gate.know(ends[2], "sae a")
    assert len(gate) == 2


async def answer(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def server(estate):
    server = HttpServer(answer, HERE, contexts=estate.contexts("kme-kme-a"), limits=LIMITS)
    await server.start()
    yield server
    await server.stop(grace_s=1.0)


def client(estate, port):
    return HttpClient(HERE, port, estate.contexts("sae-sae-1"), expect=("kme", "kme-a"), connections_max=1)


async def ask(http):
    return (await http.request("GET", "/")).status


@pytest.mark.proves("R046")
async def test_T11_L16_a_crowd_that_says_nothing_keeps_nobody_out_and_leaves_no_trace(server, estate):
    crowd = [await asyncio.open_connection(HERE, server.port) for _ in range(3 * PLACES)]
    async with client(estate, server.port) as http:
        assert await ask(http) == 200
        crowd += [await asyncio.open_connection(HERE, server.port) for _ in range(3 * PLACES)]
        assert await ask(http) == 200, "who is known stays"
    for _, writer in crowd:
        writer.transport.abort()
    async with asyncio.timeout(30):
        while len(server._gate):
            await asyncio.sleep(0.01)
    async with client(estate, server.port) as http:
        assert await ask(http) == 200


async def test_T11_one_holder_does_not_take_all_places(server, estate):
    held = [client(estate, server.port) for _ in range(3)]
    assert [await ask(http) for http in held] == [200, 200, 200]
    async with client(estate, server.port) as fourth:
        with pytest.raises(KeystrandError):
            await ask(fourth)
    async with HttpClient(HERE, server.port, estate.contexts("module-mod-1"), expect=("kme", "kme-a")) as other:
        assert await ask(other) == 200
    await asyncio.gather(*(http.close() for http in held))


async def test_T11_a_crowd_at_a_door_for_frames_keeps_no_neighbour_out(estate, monkeypatch):
    monkeypatch.setattr("keystrand.net.frames.HANDSHAKES_MAX", 4)

    async def echo(stream):
        stream.write(await stream.read())
        await stream.drain()

    server = FrameServer(echo, connections_max=2)
    made = lambda admit: FrameStream(1000, admit)  # noqa: E731
    contexts = estate.contexts("kme-kme-a")
    await serve_streams(server, (HERE, 0), contexts, made, allow=lambda peer: True, limits=LIMITS)
    crowd = [await asyncio.open_connection(HERE, server.port) for _ in range(20)]
    stream = await connect_frames(
        HERE, server.port, estate.contexts("kme-kme-b"), expect=("kme", "kme-a"), limits=LIMITS
    )
    stream.write(b"hello")
    assert await asyncio.wait_for(stream.read(), 30) == b"hello"
    ended = [asyncio.create_task(reader.read(1)) for reader, _ in crowd]
    async with asyncio.timeout(30):
        while sum(task.done() for task in ended) < 14:  # two places and four handshakes stay
            await asyncio.sleep(0.01)
    open_still = [task for task in ended if not task.done()]
    assert len(open_still) >= 4, "no more are put out than must be"
    for task in open_still:
        task.cancel()
    for _, writer in crowd:
        writer.transport.abort()
    await stream.close()
    await server.close()


# who was let in and would not be now ---------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(tls_transport, "REVIEW_S", 0.05)
    monkeypatch.setattr(tls, "RELOAD_CHECK_S", 0.05)
    pki.create_ca(tmp_path, "lab")
    for kind, name in (("kme", "kme-a"), ("sae", "sae-1"), ("sae", "sae-2")):
        pki.issue(tmp_path, kind=kind, name=name, hosts=(HERE,))
    return tmp_path


def contexts(home, holder, **more):
    files = TlsFiles(home / f"{holder}.pem", home / f"{holder}.key", home / "ca.pem", home / "ca.crl")
    return TlsContexts(files, **more)


async def refusal(ears):
    async with asyncio.timeout(30):
        while "tls.refused" not in ears.kinds:
            await asyncio.sleep(0.01)
    return next(event.fields["reason"] for event in ears.events if event.kind == "tls.refused")


async def test_T1_an_open_connection_ends_when_its_certificate_is_revoked_and_others_stay(home):
    ears = Ears()
    server = HttpServer(answer, HERE, contexts=contexts(home, "kme-kme-a", sink=ears), limits=LIMITS)
    await server.start()
    one, two = (
        HttpClient(HERE, server.port, contexts(home, f"sae-{name}"), expect=("kme", "kme-a"), connections_max=1)
        for name in ("sae-1", "sae-2")
    )
    assert [await ask(one), await ask(two)] == [200, 200]
    pki.revoke(home, home / "sae-sae-1.pem")
    assert await refusal(ears) == "TLS: the certificate is revoked"
    with pytest.raises(KeystrandError):
        await ask(one)
    assert await ask(two) == 200
    assert len(server._gate) == 1
    await one.close()
    await two.close()
    await server.stop(grace_s=1.0)


async def test_T2_a_site_leaves_a_peer_whose_certificate_was_revoked(home):
    """The same at the end that dialled: a channel between two sites lives for months."""

    async def listen(stream):
        await stream.read()

    server = FrameServer(listen, connections_max=2)
    made = lambda admit: FrameStream(1000, admit)  # noqa: E731
    own = home / "own"
    shutil.copytree(home, own)
    await serve_streams(server, (HERE, 0), contexts(own, "kme-kme-a"), made, allow=lambda _: True, limits=LIMITS)
    stream = await connect_frames(
        HERE, server.port, contexts(home, "sae-sae-1"), expect=("kme", "kme-a"), limits=LIMITS
    )
    pki.revoke(home, home / "kme-kme-a.pem")
    with pytest.raises(KeystrandError, match="revoked"):
        await asyncio.wait_for(stream.read(), 30)
    await server.close()


class Later:
    """A clock that can be turned on."""

    def __init__(self, clock):
        self._clock, self.ahead_s = clock, 0.0

    def now_s(self):
        return self._clock.now_s() + self.ahead_s

    def monotonic_s(self):
        return self._clock.monotonic_s()


async def test_T1_an_open_connection_ends_with_its_certificate(home):
    ears = Ears()
    made = contexts(home, "kme-kme-a", sink=ears)
    made.clock = Later(made.clock)
    server = HttpServer(answer, HERE, contexts=made, limits=LIMITS)
    await server.start()
    async with HttpClient(HERE, server.port, contexts(home, "sae-sae-1"), expect=("kme", "kme-a")) as http:
        assert await ask(http) == 200
        made.clock.ahead_s = 400 * 86_400.0
        assert await refusal(ears) == "TLS: the certificate has expired"
    await server.stop(grace_s=1.0)
