"""ETSI GS QKD 004 over real mutual TLS: our client, and clients written down from the layouts that others use."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from keystrand.api.etsi004 import CONNECTIONS_PER_SAE_MAX, serve_etsi004
from keystrand.core.errors import PeerFault, PeerUnavailable
from keystrand.core.limits import Limits
from keystrand.crypto import pki
from keystrand.net.frames import FrameServer, FrameStream
from keystrand.net.headed import serve_headed
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.keystreams import MemoryStreams
from keystrand.testing.sinks import Ears
from keystrand.transport.etsi004 import KeyStreams
from keystrand.wire import etsi004 as wire
from keystrand.wire.etsi004 import Closed, Framing, Opened, Qos, Status

HERE = "127.0.0.1"
LIMITS = Limits()
KSID = UUID("6a0f2f5e-6f0e-4f57-9d3c-2f4f4d1c9f10")


def told(ears: Ears) -> list[str]:
    return [f"{event.kind} {event.fields.get('method', '')} {event.fields.get('reason', '')}" for event in ears.events]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pki")
    pki.create_ca(home, "lab")
    pki.issue(home, kind="kme", name="kme-a", hosts=(HERE, "localhost"))
    for name in ("sae-a", "sae-b", "sae-c"):
        pki.issue(home, kind="sae", name=name)
    return home


def contexts(home: Path, holder: str, policy: TlsPolicy | None = None) -> TlsContexts:
    files = TlsFiles(home / f"{holder}.pem", home / f"{holder}.key", home / "ca.pem")
    return TlsContexts(files, policy or TlsPolicy(require_pqc_group=False))


@pytest.fixture
def memory() -> MemoryStreams:
    return MemoryStreams(frozenset({frozenset({"sae-a", "sae-b"})}))


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
async def server(home: Path, memory: MemoryStreams, ears: Ears) -> AsyncIterator[FrameServer]:
    server = await serve_etsi004((HERE, 0), contexts(home, "kme-kme-a"), memory, limits=LIMITS, sink=ears)
    yield server
    await server.close()


async def connect(home: Path, server: FrameServer, sae: str, framing: Framing = Framing.FORGE) -> KeyStreams:
    holder = contexts(home, f"sae-{sae}")
    return await KeyStreams.connect(HERE, server.port, holder, kme_id="kme-a", limits=LIMITS, framing=framing)


async def test_two_SAEs_read_one_stream_each_in_its_own_framing(home: Path, server: FrameServer) -> None:
    alice = await connect(home, server, "sae-a", Framing.FORGE)
    bob = await connect(home, server, "sae-b", Framing.FIXED)
    qos = Qos(chunk_bytes=64)
    first = await alice.open_connect("qkd://sae-a@n1", "qkd://sae-b@n2", qos)
    assert first.status is Status.PEER_NOT_CONNECTED
    assert first.ksid is not None
    assert (await alice.get_key(first.ksid, 0)).status is Status.PEER_NOT_YET_CONNECTED
    second = await bob.open_connect("qkd://sae-a@n1", "qkd://sae-b@n2", qos, first.ksid)
    assert second == Opened(status=Status.SUCCESSFUL, qos=qos, ksid=first.ksid)
    for index in range(3):
        ours, theirs = await alice.get_key(first.ksid, index), await bob.get_key(first.ksid, index)
        assert ours.material is not None
        assert theirs.material is not None
        assert ours.material.matches(theirs.material)
        assert (len(ours.material), ours.metadata) == (64, theirs.metadata)
    small = await bob.get_key(first.ksid, 3, metadata_bytes_max=1)
    assert (small.status, small.metadata_bytes) == (Status.METADATA_SIZE, len(ours.metadata))
    assert await alice.close_stream(first.ksid) is Status.SUCCESSFUL
    assert await bob.close_stream(first.ksid) is Status.SUCCESSFUL
    assert (await bob.get_key(first.ksid, 3)).status is Status.NO_QKD_CONNECTION
    await alice.close()
    await bob.close()


async def test_counter_proposal_comes_back_and_is_accepted(home: Path, server: FrameServer) -> None:
    alice = await connect(home, server, "sae-a")
    refused = await alice.open_connect("sae-a", "sae-b", Qos(chunk_bytes=8192))
    assert (refused.status, refused.ksid, refused.qos.chunk_bytes) == (Status.QOS_NOT_MET, None, 512)
    assert (await alice.open_connect("sae-a", "sae-b", refused.qos)).status is Status.PEER_NOT_CONNECTED
    await alice.close()


async def test_the_certificate_decides_who_is_an_end(home: Path, server: FrameServer, ears: Ears) -> None:
    carol = await connect(home, server, "sae-c")
    for source, destination in (("sae-a", "sae-b"), ("sae-c", "sae-b"), ("not//a uri", "sae-c")):
        opened = await carol.open_connect(source, destination, Qos())
        assert (opened.status, opened.ksid) == (Status.NO_QKD_CONNECTION, None)
    assert told(ears).count("request.refused OpenConnect NotPermitted") == 2
    assert (await carol.get_key(KSID, 0)).status is Status.NO_QKD_CONNECTION
    await carol.close()


async def test_KMEs_are_not_served(home: Path, server: FrameServer) -> None:
    kme = contexts(home, "kme-kme-a")
    other = await KeyStreams.connect(HERE, server.port, kme, kme_id="kme-a", limits=LIMITS)
    with pytest.raises(PeerUnavailable):
        await other.open_connect("sae-a", "sae-b", Qos())


async def test_connections_of_one_SAE_are_bounded(home: Path, server: FrameServer) -> None:
    held = [await connect(home, server, "sae-a") for _ in range(CONNECTIONS_PER_SAE_MAX)]
    for client in held:
        await client.close_stream(KSID)
    one_more = await connect(home, server, "sae-a")
    with pytest.raises(PeerUnavailable):
        await one_more.close_stream(KSID)
    bob = await connect(home, server, "sae-b")
    assert await bob.close_stream(KSID) is Status.SUCCESSFUL
    for client in (*held, bob):
        await client.close()


# what is no call


def tls_socket(home: Path, port: int, holder: str = "sae-sae-a") -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    context.load_cert_chain(home / f"{holder}.pem", home / f"{holder}.key")
    return context.wrap_socket(socket.create_connection((HERE, port), 5), server_hostname="localhost")


def exactly(tls: ssl.SSLSocket, length: int) -> bytes:
    data = b""
    while len(data) < length and (more := tls.recv(length - len(data))):
        data += more
    return data


def exchange(tls: ssl.SSLSocket, version: bytes, service: int, payload: bytes) -> tuple[int, bytes]:
    tls.sendall(version + struct.pack("!BI", service, len(payload)) + payload)
    header = exactly(tls, 8)
    assert header[:3] == version
    return header[3], exactly(tls, struct.unpack("!I", header[4:])[0])


@pytest.mark.parametrize(
    "sent",
    [b"\2\1\1\xff\0\0\0\0", b"\2\1\1\x04\0\0\0\x01x", b"\7\1\1\x02\0\0\0\0", b"\2\1\1\x08\0\0\0\x10" + bytes(16)],
    ids=["close server", "cut short", "version", "null stream"],
)
async def test_what_is_no_call_ends_the_connection_with_an_error(
    home: Path, server: FrameServer, ears: Ears, sent: bytes
) -> None:
    def talk() -> bytes:
        with tls_socket(home, server.port) as tls:
            tls.sendall(sent)
            return exactly(tls, 100)

    assert await asyncio.to_thread(talk) == b"\2\1\1\0\0\0\0\0"
    assert told(ears) == ["request.refused parse BadRequest"]


async def test_length_over_the_limit_is_cut_off_before_it_is_kept(home: Path, server: FrameServer, ears: Ears) -> None:
    def talk() -> bytes:
        with tls_socket(home, server.port) as tls:
            tls.sendall(b"\2\1\1\2\xff\xff\xff\xff")
            try:
                return exactly(tls, 8)
            except OSError:
                return b""

    assert await asyncio.to_thread(talk) == b""
    assert told(ears) == ["request.refused read PeerFault"]


async def test_failure_within_is_told_without_words(home: Path, ears: Ears) -> None:
    class Broken(MemoryStreams):
        async def close(self, identity: str, ksid: UUID, /) -> Status:
            raise RuntimeError("the reason is nobody's business")

    server = await serve_etsi004((HERE, 0), contexts(home, "kme-kme-a"), Broken(frozenset()), limits=LIMITS, sink=ears)
    client = await connect(home, server, "sae-a")
    assert await client.close_stream(KSID) is Status.TIMEOUT
    assert told(ears) == ["request.refused Close RuntimeError"]
    await server.close()


async def test_answer_to_another_call_is_a_fault_and_ends_the_connection(home: Path) -> None:
    async def answer_wrongly(stream: FrameStream) -> None:
        while await stream.read():
            stream.write(wire.print_answer(Framing.FORGE, Closed(Status.SUCCESSFUL)))

    def measure(header: bytes) -> int:
        return wire.message_bytes(header, wire.REQUEST_BYTES_MAX)

    server = await serve_headed(
        (HERE, 0),
        contexts(home, "kme-kme-a"),
        answer_wrongly,
        header_bytes=8,
        measure=measure,
        allow=lambda peer: True,
        limits=LIMITS,
    )
    client = await connect(home, server, "sae-a")
    with pytest.raises(PeerFault):
        await client.get_key(KSID, 0)
    with pytest.raises(PeerUnavailable):
        await client.close_stream(KSID)
    await server.close()


# clients of others, by their layouts


def fixed_client(home: Path, port: int) -> list[bytes]:
    """Version 1.0.1: many calls on one connection, MIME type of 256 bytes, only the size of the metadata."""
    with tls_socket(home, port) as tls:
        qos = struct.pack("!7I", 32, 40_000, 0, 10, 0, 0, 3600) + b"application/json".ljust(256, b"\0")
        uris = b"server://sae-a:25575\0client://sae-b:25575\0"
        service, answer = exchange(tls, b"\1\0\1", 0x02, uris + qos + bytes(16))
        status, ksid = struct.unpack("!I", answer[:4])[0], answer[4 + 28 + 256 :]
        assert (service, status, len(ksid)) == (0x03, 1, 16)
        with tls_socket(home, port, "sae-sae-b") as peer:
            assert exchange(peer, b"\1\0\1", 0x02, uris + qos + ksid)[1][:4] == bytes(4)
        chunks = []
        for index in range(3):
            service, answer = exchange(tls, b"\1\0\1", 0x04, ksid + struct.pack("!II", index, 1024))
            status, got, size = struct.unpack("!III", answer[:12])
            assert (service, status, got, size) == (0x05, 0, index, 32)
            chunks.append(answer[12:44])
            assert struct.unpack("!I", answer[44:48])[0] == len(answer[48:])
        assert exchange(tls, b"\1\0\1", 0x04, ksid + struct.pack("!II", 3, 1))[1][:4] == b"\0\0\0\x08"
        assert exchange(tls, b"\1\0\1", 0x08, ksid) == (0x09, bytes(4))
        return chunks


def forge_client(home: Path, port: int) -> bytes:
    """Version 2.1.1: a connection for each call, NUL-terminated MIME type, metadata as a buffer."""
    qos = struct.pack("!7I", 32, 32, 32, 0, 0, 0, 0) + b"application/json\0"
    uris = b"qkd//sae-a@aaaaaaaa\0qkd//sae-b@bbbbbbbb\0"
    with tls_socket(home, port) as tls:
        answer = exchange(tls, b"\2\1\1", 0x02, uris + qos + bytes(16))[1]
    ksid = answer[-16:]
    assert answer == struct.pack("!I", 1) + qos + ksid
    with tls_socket(home, port, "sae-sae-b") as tls:
        assert exchange(tls, b"\2\1\1", 0x02, uris + qos + ksid)[1][:4] == bytes(4)
    with tls_socket(home, port) as tls:
        service, answer = exchange(tls, b"\2\1\1", 0x04, ksid + struct.pack("!II", 0, 2) + b"\1\x10")
        assert (service, answer[:8]) == (0x05, struct.pack("!II", 8, 0))
        assert answer[8:12] == bytes(4)
        room = struct.unpack("!I", answer[12:16])[0]
        assert room == len(answer[16:])
    with tls_socket(home, port) as tls:
        answer = exchange(tls, b"\2\1\1", 0x04, ksid + struct.pack("!II", 0, room) + bytes(room))[1]
        assert answer[:12] == struct.pack("!III", 0, 0, 32)
    return answer[12:44]


async def test_clients_that_are_in_use_read_chunks(home: Path, server: FrameServer, memory: MemoryStreams) -> None:
    chunks = await asyncio.to_thread(fixed_client, home, server.port)
    assert len(set(chunks)) == 3
    assert chunks == [stream.chunks[n] for stream in memory.streams.values() for n in range(3)]
    assert len(await asyncio.to_thread(forge_client, home, server.port)) == 32
