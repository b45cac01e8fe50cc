"""Our TLS server against other people's clients: the system's OpenSSL and Python's own ssl, and against stalling ones."""

import asyncio
import shutil
import socket
import ssl
import subprocess

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from keystrand.core.errors import NotPermitted
from keystrand.core.limits import Limits
from keystrand.crypto import pki
from keystrand.net.frames import connect_frames, serve_frames
from keystrand.net.http_server import HttpServer
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.patience import PATIENCE_S, until
from keystrand.testing.sinks import Ears

HERE = "127.0.0.1"
LIMITS = Limits()
LENIENT = TlsPolicy(require_pqc_group=False)
LEGACY = TlsPolicy(require_pqc_group=False, minimum="1.2")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("pki")
    pki.create_ca(home, "lab")
    for kind, name in (("kme", "kme-a"), ("kme", "kme-b"), ("sae", "sae-1"), ("sae", "gone")):
        pki.issue(home, kind=kind, name=name, hosts=(HERE, "localhost"))
    pki.issue(home, kind="sae", name="late", days=-1)
    pki.revoke(home, home / "sae-gone.pem")
    return home


def contexts(home, holder, policy=None, sink=None):
    files = TlsFiles(home / f"{holder}.pem", home / f"{holder}.key", home / "ca.pem", home / "ca.crl")
    return TlsContexts(files, policy or TlsPolicy(), sink=sink)


async def who(request):
    peer = request.scope["extensions"]["keystrand.tls"]
    return PlainTextResponse(f"{peer.identity} {peer.group} {peer.version}")


async def start(home, policy=None, sink=None, limits=LIMITS):
    app = Starlette(routes=[Route("/who", who)])
    server = HttpServer(app, HERE, contexts=contexts(home, "kme-kme-a", policy, sink), limits=limits)
    await server.start()
    return server


def get_with_stdlib(home, port, holder="sae-sae-1", maximum=None, curve=None):
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    if curve:
        context.set_ecdh_curve(curve)
    if maximum:
        context.maximum_version = maximum
    if holder:
        context.load_cert_chain(home / f"{holder}.pem", home / f"{holder}.key")
    with (
        socket.create_connection((HERE, port), PATIENCE_S) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := tls.recv(4096):
            answer += chunk
    return answer.partition(b"\r\n\r\n")[2].decode()


async def test_F12_python_ssl_of_the_host_connects_with_its_defaults(home):
    server = await start(home, LENIENT)
    group = "X25519MLKEM768" if ssl.OPENSSL_VERSION_INFO >= (3, 5) else "X25519"
    assert await asyncio.to_thread(get_with_stdlib, home, server.port) == f"sae sae-1 {group} TLSv1.3"
    await server.stop()


async def test_classical_client_is_refused_where_policy_requires_pqc(home):
    ears = Ears()
    server = await start(home, sink=ears)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(get_with_stdlib, home, server.port, curve="prime256v1")
    await until(lambda: ears.kinds)
    assert ears.kinds == ["tls.refused"]
    await server.stop()


@pytest.mark.proves("R067")
@pytest.mark.parametrize(
    ("holder", "reason"),
    [("", "peer did not return a certificate"), ("sae-late", "expired"), ("sae-gone", "revoked")],
)
async def test_certificate_that_will_not_do_gets_no_answer_and_an_event_with_the_reason(home, holder, reason):
    ears = Ears()
    server = await start(home, LENIENT, ears)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(get_with_stdlib, home, server.port, holder)
    await until(lambda: ears.kinds)
    assert ears.kinds == ["tls.refused"]
    assert reason in str(ears.events[0].fields["reason"])
    await server.stop()


async def test_TLS_1_2_is_refused_unless_configured(home):
    server = await start(home, LENIENT)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(get_with_stdlib, home, server.port, "sae-sae-1", ssl.TLSVersion.TLSv1_2)
    await server.stop()
    server = await start(home, LEGACY)
    answer = await asyncio.to_thread(get_with_stdlib, home, server.port, "sae-sae-1", ssl.TLSVersion.TLSv1_2)
    assert answer.startswith("sae sae-1 ")
    assert answer.endswith("TLSv1.2")
    await server.stop()


def s_client(home, port, *options):
    command = ["openssl", "s_client", "-connect", f"{HERE}:{port}", "-CAfile", str(home / "ca.pem"), "-quiet"]
    command += ["-cert", str(home / "sae-sae-1.pem"), "-key", str(home / "sae-sae-1.key"), *options]
    request = "GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    return subprocess.run(command, input=request, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program: apt-get install openssl")
@pytest.mark.parametrize("options", [("-groups", "P-256"), ("-groups", "X25519"), ("-tls1_2",)])
async def test_openssl_s_client_connects(home, options):
    server = await start(home, LEGACY)
    done = await asyncio.to_thread(s_client, home, server.port, "-ign_eof", *options)
    assert "sae sae-1" in done.stdout, done.stderr
    await server.stop()


async def stall(server):
    stalled = [await asyncio.open_connection(HERE, server.port) for _ in range(50)]
    for number, (_, writer) in enumerate(stalled):
        writer.write(b"\x16\x03\x01\x02\x00\x01"[: number % 7])
    return stalled


async def test_stalled_handshakes_do_not_keep_others_out(home):
    server = await start(home, LENIENT)
    stalled = await stall(server)
    assert "sae-1" in await asyncio.to_thread(get_with_stdlib, home, server.port)
    assert not any(reader.at_eof() for reader, _ in stalled), "they stall still"
    for _, writer in stalled:
        writer.close()
    await server.stop()


async def test_stalled_handshakes_are_ended(home):
    ears = Ears()
    server = await start(home, LENIENT, ears, Limits(tls_handshake_timeout_s=0.6))
    for reader, writer in await stall(server):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), PATIENCE_S)
        writer.close()
    assert [event.fields["reason"] for event in ears.events] == ["no TLS handshake within 0.6 s"] * 50
    await server.stop()


async def test_plain_http_on_the_tls_port_is_refused(home):
    ears = Ears()
    server = await start(home, sink=ears)
    reader, writer = await asyncio.open_connection(HERE, server.port)
    writer.write(b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"kme" not in await asyncio.wait_for(reader.read(), PATIENCE_S)
    await until(lambda: ears.kinds)
    assert ears.kinds[0] == "tls.refused"
    writer.close()
    await server.stop()


@pytest.mark.proves("R067")
async def test_revocation_takes_effect_with_the_next_connection_without_a_restart(home, tmp_path):
    place = tmp_path / "pki"
    shutil.copytree(home, place)

    async def echo(stream):
        while True:
            stream.write(await stream.read())
            await stream.drain()

    server = await serve_frames(
        (HERE, 0), contexts(place, "kme-kme-a"), echo, allow=lambda peer: peer.identity.kind == "kme", limits=LIMITS
    )
    dialler = contexts(home, "kme-kme-b")
    stream = await connect_frames(HERE, server.port, dialler, expect=("kme", "kme-a"), limits=LIMITS)
    stream.write(b"before")
    assert await stream.read() == b"before"
    pki.revoke(place, place / "kme-kme-b.pem")
    await asyncio.sleep(1.1)
    again = await connect_frames(HERE, server.port, dialler, expect=("kme", "kme-a"), limits=LIMITS)
    with pytest.raises(NotPermitted, match="alert"):
        await again.read()
    await stream.close()
    await server.close()
