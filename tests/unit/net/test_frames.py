"""Frames over mutual TLS and over plain TCP."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import NotPermitted, PeerFault, PeerUnavailable
from keystrand.core.limits import Limits
from keystrand.net.frames import (
    BUFFERED_BYTES_MAX,
    FrameParser,
    FrameStream,
    connect_frames,
    connect_plain_frames,
    serve_frames,
    serve_plain_frames,
)
from keystrand.testing.patience import until

LIMITS = Limits(tls_handshake_timeout_s=2.0)
LOCAL = ("127.0.0.1", 0)


async def echo(stream: FrameStream) -> None:
    while True:
        stream.write(await stream.read())
        await stream.drain()


async def test_frames_of_every_size_come_back_whole_and_in_order(estate):
    server = await serve_frames(LOCAL, estate.contexts("kme-kme-b"), echo, allow=lambda _: True, limits=LIMITS)
    stream = await connect_frames(
        "127.0.0.1", server.port, estate.contexts("kme-kme-a"), expect=("kme", "kme-b"), limits=LIMITS
    )
    assert stream.peer.group == "X25519MLKEM768"
    assert stream.peer.version == "TLSv1.3"
    for frame in (b"", b"x", bytes(16_384), bytes(range(256)) * 4000, bytes(LIMITS.peer_frame_bytes_max)):
        stream.write(frame)
        await stream.drain()
        assert await stream.read() == frame
    await stream.close()
    await server.close()


async def test_server_knows_its_client(estate):
    seen = []

    async def note(stream: FrameStream) -> None:
        seen.append(stream.peer.identity)

    server = await serve_frames(LOCAL, estate.contexts("kme-kme-b"), note, allow=lambda _: True, limits=LIMITS)
    stream = await connect_frames(
        "localhost", server.port, estate.contexts("module-mod-1"), expect=("kme", "kme-b"), limits=LIMITS
    )
    with pytest.raises(PeerUnavailable, match="ended the stream"):
        await stream.read()
    assert [(who.kind, who.name) for who in seen] == [("module", "mod-1")]
    await server.close()


async def test_peer_of_the_wrong_kind_gets_no_frame(estate):
    server = await serve_frames(
        LOCAL, estate.contexts("kme-kme-b"), echo, allow=lambda peer: peer.identity.kind == "kme", limits=LIMITS
    )
    stream = await connect_frames(
        "127.0.0.1", server.port, estate.contexts("sae-sae-1"), expect=("kme", "kme-b"), limits=LIMITS
    )
    with pytest.raises(PeerUnavailable):
        await stream.read()
    await server.close()


@pytest.mark.parametrize("expect", [("kme", "kme-a"), ("sae", "kme-b")])
async def test_server_that_is_another_is_refused(estate, expect):
    server = await serve_frames(LOCAL, estate.contexts("kme-kme-b"), echo, allow=lambda _: True, limits=LIMITS)
    with pytest.raises(NotPermitted, match="kme kme-b, not"):
        await connect_frames("127.0.0.1", server.port, estate.contexts("kme-kme-a"), expect=expect, limits=LIMITS)
    await server.close()


async def test_nobody_there_is_unavailable(estate):
    server = await serve_plain_frames(LOCAL, echo, frame_bytes_max=64)
    port = server.port
    await server.close()
    with pytest.raises(PeerUnavailable, match="does not answer"):
        await connect_frames("127.0.0.1", port, estate.contexts("kme-kme-a"), expect=("kme", "x"), limits=LIMITS)
    with pytest.raises(PeerUnavailable, match="does not answer"):
        await connect_plain_frames("127.0.0.1", port, frame_bytes_max=64)


async def test_oversized_frame_ends_the_stream_before_it_is_read():
    problems = []

    async def read(stream: FrameStream) -> None:
        try:
            await stream.read()
        except PeerFault as problem:
            problems.append(str(problem))

    server = await serve_plain_frames(LOCAL, read, frame_bytes_max=100)
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write((101).to_bytes(4, "big"))
    await until(lambda: problems)
    assert problems == ["a frame of 101 bytes is over the limit of 100"]
    writer.close()
    await server.close()


async def test_stream_cut_within_a_frame_says_so():
    server = await serve_plain_frames(LOCAL, echo, frame_bytes_max=100)

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\0\0\x05ab")
        writer.close()

    cutter = await asyncio.start_server(cut, "127.0.0.1", 0)
    stream = await connect_plain_frames(
        "127.0.0.1", cutter.sockets[0].getsockname()[1], frame_bytes_max=100, timeout_s=2
    )
    with pytest.raises(PeerUnavailable, match="within a frame"):
        await stream.read()
    cutter.close()
    await server.close()


async def test_reader_that_does_not_read_stops_the_writer():
    stop = asyncio.Event()
    held = []

    async def sit(stream: FrameStream) -> None:
        held.append(stream)
        await stop.wait()

    server = await serve_plain_frames(LOCAL, sit, frame_bytes_max=1 << 20)
    stream = await connect_plain_frames("127.0.0.1", server.port, frame_bytes_max=1 << 20)

    async def flood() -> None:
        for _ in range(400):
            stream.write(bytes(1 << 20))
            await stream.drain()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flood(), 3)
    assert held[0]._waiting_bytes < BUFFERED_BYTES_MAX + 2 * (1 << 20)
    stream.abort()
    stop.set()
    await server.close()


@given(st.lists(st.binary(max_size=64), max_size=20), st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_however_the_bytes_are_cut_the_frames_are_the_same(frames, cuts):
    wire = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    parser, got, at, turn = FrameParser(64), [], 0, 0
    while at < len(wire):
        step = cuts[turn % len(cuts)]
        got += parser.feed(wire[at : at + step])
        at, turn = at + step, turn + 1
    assert got == frames
    assert parser.is_between_frames


def test_frame_that_trickles_in_does_not_pile_up_pieces():
    parser, body = FrameParser(10_000), bytes(range(256)) * 20
    wire = len(body).to_bytes(4, "big") + body
    got, most = [], 0
    for at in range(len(wire)):
        got += parser.feed(wire[at : at + 1])
        most = max(most, len(parser._parts))
    assert got == [body]
    assert most <= 1024
