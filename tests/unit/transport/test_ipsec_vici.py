"""The control interface of strongSwan: packets byte by byte, and arbitrary ones from outside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, PeerFault, Unavailable
from keystrand.transport.ipsec.vici import (
    CMD_REQUEST,
    CMD_RESPONSE,
    CMD_UNKNOWN,
    EVENT,
    EVENT_CONFIRM,
    PACKET_BYTES_MAX,
    Packet,
    Refusal,
    Tree,
    Vici,
    decode,
    encode,
    section,
    text,
    texts,
)

NAMES = st.text(min_size=1, max_size=20).filter(lambda name: len(name.encode()) < 256)
VALUES = st.binary(max_size=100)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=4), max_size=4),
    lambda inner: st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=3) | inner, max_size=4),
    max_leaves=12,
)


def test_a_packet_reads_byte_by_byte_as_the_protocol_describes_it() -> None:
    body: Tree = {
        "key1": "value1",
        "section1": {"sub-section": {"key2": b"value2"}, "list1": ["item1", "item2"]},
    }
    expected = (
        b"\x00\x07version\x03\x04key1\x00\x06value1\x01\x08section1\x01\x0bsub-section\x03\x04key2\x00\x06value2\x02"
        b"\x04\x05list1\x05\x00\x05item1\x05\x00\x05item2\x06\x02"
    )
    raw = encode(Packet(CMD_REQUEST, "version", body))
    assert raw == len(expected).to_bytes(4, "big") + expected


@given(TREES, st.sampled_from([CMD_RESPONSE, EVENT]), NAMES)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_is_written_is_read_back(body: Any, kind: int, name: str) -> None:
    named = Packet(kind, name if kind == EVENT else "", body)
    assert decode(bytes(encode(named)[4:])) == named


@given(st.binary(max_size=300) | st.lists(st.sampled_from([*range(8), 255]), max_size=200).map(bytes))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_arbitrary_bytes_are_a_packet_or_a_fault(raw: bytes) -> None:
    try:
        packet = decode(raw)
    except PeerFault:
        return
    assert decode(bytes(encode(packet)[4:])) == packet


@given(st.data(), TREES)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_packet_cut_short_inside_an_element_is_a_fault_or_a_shorter_one(data: st.DataObject, body: Any) -> None:
    raw = bytes(encode(Packet(CMD_RESPONSE, "", body))[4:])
    end = data.draw(st.integers(0, max(0, len(raw) - 1)))
    try:
        packet = decode(raw[:end])
    except PeerFault:
        return
    assert len(packet.body) <= len(body)


def test_what_is_nested_too_deep_is_a_fault_and_no_overflow() -> None:
    with pytest.raises(PeerFault, match="deep"):
        decode(b"\x01" + b"\x01\x01a" * 5000)


@pytest.mark.parametrize("body", [{"k": b"x" * 65_536}, {"": "v"}, {"n" * 256: "v"}, {"l": [b"x" * 65_000] * 9}])
def test_what_no_packet_can_hold_is_refused(body: Tree) -> None:
    with pytest.raises(BadRequest):
        encode(Packet(CMD_REQUEST, "load-shared", body))


def test_readers_of_a_tree_take_what_is_missing_or_of_another_shape_as_empty() -> None:
    tree: Tree = {"v": b"1", "l": [b"a"], "s": {"x": b"y"}}
    assert (text(tree, "v"), text(tree, "l", "no"), texts(tree, "l"), texts(tree, "v")) == ("1", "no", ["a"], [])
    assert (section(tree, "s"), section(tree, "v"), section(tree, "none")) == ({"x": b"y"}, {}, {})


async def served(folder: Path, answers: list[bytes]) -> tuple[asyncio.Server, Path]:
    """A daemon that answers each packet by the next of `answers`, whatever it says."""
    waiting = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
                writer.write(waiting.pop(0))
        except (asyncio.IncompleteReadError, IndexError, ConnectionError):
            writer.close()

    socket = folder / "vici"
    return await asyncio.start_unix_server(serve, socket), socket


def response(body: Tree, kind: int = CMD_RESPONSE, name: str = "") -> bytes:
    return bytes(encode(Packet(kind, name, body)))


def call(folder: Path, answers: list[bytes], *, event: str = "", timeout_s: float = 2.0) -> Any:
    async def run() -> Any:
        server, socket = await served(folder, answers)
        async with server:
            vici = Vici(socket)
            if event:
                return await vici.stream("list-sas", event, timeout_s=timeout_s)
            return await vici.call("load-conn", {"a": "b"}, timeout_s=timeout_s)

    return asyncio.run(run())


def test_events_come_before_the_answer(tmp_path: Path) -> None:
    told = b"".join(response({"sa": str(n)}, EVENT, "list-sa") for n in range(3)) + response({})
    confirmed = response({}, EVENT_CONFIRM)
    assert call(tmp_path, [confirmed, told], event="list-sa") == [{"sa": b"0"}, {"sa": b"1"}, {"sa": b"2"}]


def test_no_success_is_a_refusal_with_the_daemons_words(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="invalid value for: ppk_id"):
        call(tmp_path, [response({"success": "no", "errmsg": "invalid value for: ppk_id"})])


def test_an_older_daemon_that_knows_no_such_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no command load-conn"):
        call(tmp_path, [response({}, CMD_UNKNOWN)])
    (tmp_path / "vici").unlink()
    with pytest.raises(Refusal, match="no event list-sa"):
        call(tmp_path, [response({}, CMD_UNKNOWN)], event="list-sa")


@pytest.mark.parametrize("answer", [b"", (PACKET_BYTES_MAX + 1).to_bytes(4, "big"), b"\x00\x00\x00\x02\x01"])
def test_a_daemon_that_hangs_up_or_talks_nonsense_is_an_error(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises((Unavailable, PeerFault)):
        call(tmp_path, [answer] if answer else [], timeout_s=0.5)


def test_no_socket_says_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        asyncio.run(Vici(tmp_path / "none").call("version"))
    assert "charon" in str(caught.value.hint)
