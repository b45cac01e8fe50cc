"""ETSI GS QKD 004 messages: both framings to the byte, round trips, and whatever bytes a stranger may send."""

from __future__ import annotations

import contextlib
import json
import struct
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, PeerFault
from keystrand.core.secret import Secret
from keystrand.wire import etsi004 as wire
from keystrand.wire.etsi004 import Chunk, Close, Closed, Failed, Framing, GetKey, OpenConnect, Opened, Qos, Status

KSID = UUID("6a0f2f5e-6f0e-4f57-9d3c-2f4f4d1c9f10")
QOS = Qos(chunk_bytes=64, max_bps=50_000, min_bps=5_000, jitter_bps=10, priority=1, timeout_ms=2_000, ttl_s=600)
WORDS = struct.pack(">7I", 64, 50_000, 5_000, 10, 1, 2_000, 600)
FRAMINGS = st.sampled_from(Framing)
WORD = st.integers(0, 2**32 - 1)
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80)
QOSES = st.builds(
    Qos,
    chunk_bytes=WORD,
    max_bps=WORD,
    min_bps=WORD,
    jitter_bps=WORD,
    priority=WORD,
    timeout_ms=WORD,
    ttl_s=WORD,
    mimetype=TEXT,
)
KSIDS = st.uuids(version=4)
REQUESTS = st.one_of(
    st.builds(OpenConnect, source=TEXT, destination=TEXT, qos=QOSES, ksid=st.none() | KSIDS),
    st.builds(GetKey, ksid=KSIDS, index=WORD, metadata_bytes_max=st.integers(0, 2048)),
    st.builds(Close, KSIDS),
)
STATUSES = st.sampled_from(Status)


def message(version: bytes, service: int, payload: bytes) -> bytes:
    return version + bytes((service,)) + len(payload).to_bytes(4, "big") + payload


# to the byte: what clients that are in use send and expect


def test_open_connect_in_both_framings() -> None:
    request = OpenConnect(source="qkd://a@n1", destination="qkd://b@n2", qos=QOS)
    uris = b"qkd://a@n1\0qkd://b@n2\0"
    forge = message(b"\2\1\1", 2, uris + WORDS + b"application/json\0" + bytes(16))
    fixed = message(b"\1\0\1", 2, uris + WORDS + b"application/json".ljust(256, b"\0") + bytes(16))
    assert wire.print_request(Framing.FORGE, request) == forge
    assert wire.print_request(Framing.FIXED, request) == fixed
    assert wire.parse_request(forge) == (Framing.FORGE, request)
    assert wire.parse_request(fixed) == (Framing.FIXED, request)


def test_get_key_states_the_room_for_metadata_as_each_framing_does() -> None:
    request = GetKey(ksid=KSID, index=7, metadata_bytes_max=2)
    head = KSID.bytes + b"\0\0\0\7\0\0\0\2"
    assert wire.print_request(Framing.FORGE, request) == message(b"\2\1\1", 4, head + bytes(2))
    assert wire.print_request(Framing.FIXED, request) == message(b"\1\0\1", 4, head)
    # the client of the forge puts the role of an oblivious key into that buffer
    assert wire.parse_request(message(b"\2\1\1", 4, head + b"\1\x10"))[1] == request


def test_answers_to_the_byte() -> None:
    opened = wire.print_answer(Framing.FORGE, Opened(status=Status.PEER_NOT_CONNECTED, qos=QOS, ksid=KSID))
    assert opened == message(b"\2\1\1", 3, b"\0\0\0\1" + WORDS + b"application/json\0" + KSID.bytes)
    chunk = Chunk(status=Status.SUCCESSFUL, index=3, material=Secret(b"\xaa" * 4), metadata=b"{}")
    body = b"\0\0\0\0" + b"\0\0\0\3" + b"\0\0\0\4" + b"\xaa" * 4 + b"\0\0\0\2{}"
    for framing in Framing:
        assert wire.print_answer(framing, chunk) == message(framing.version, 5, body)
        assert wire.print_answer(framing, Closed(Status.TIMEOUT)) == message(framing.version, 9, b"\0\0\0\6")
        assert wire.print_answer(framing, Failed()) == message(framing.version, 0, b"")


def test_room_that_metadata_need_is_told_in_both_framings() -> None:
    small = Chunk(status=Status.METADATA_SIZE, index=5, metadata_bytes=18)
    assert wire.print_answer(Framing.FIXED, small) == message(b"\1\0\1", 5, b"\0\0\0\x08\0\0\0\x12")
    for framing in Framing:
        answer = wire.parse_answer(wire.print_answer(framing, small))
        assert isinstance(answer, Chunk)
        assert (answer.status, answer.metadata_bytes, answer.material) == (Status.METADATA_SIZE, 18, None)


def test_bare_refusal_of_the_fixed_framing_is_read() -> None:
    refusal = wire.parse_answer(message(b"\1\0\1", 3, b"\0\0\0\5"))
    assert isinstance(refusal, Opened)
    assert (refusal.status, refusal.ksid) == (Status.KSID_IN_USE, None)
    assert wire.parse_answer(message(b"\1\0\1", 5, b"\0\0\0\3")) == Chunk(status=Status.PEER_NOT_YET_CONNECTED, index=0)
    with pytest.raises(PeerFault):
        wire.parse_answer(message(b"\2\1\1", 5, b"\0\0\0\3"))
    with pytest.raises(PeerFault, match="no answer"):
        wire.parse_answer(message(b"\1\0\1", 6, b"\0\0\0\5"))


# round trips and strangers


@settings(max_examples=300, derandomize=True)
@given(FRAMINGS, REQUESTS)
def test_requests_come_back_as_they_were(framing: Framing, request: wire.Request) -> None:
    printed = wire.print_request(framing, request)
    assert wire.message_bytes(printed[:8], wire.REQUEST_BYTES_MAX) == len(printed)
    assert wire.parse_request(printed) == (framing, request)


@settings(max_examples=300, derandomize=True)
@given(FRAMINGS, STATUSES, QOSES, st.none() | KSIDS, st.binary(min_size=1, max_size=80), st.binary(max_size=40), WORD)
def test_answers_come_back_as_they_were(
    framing: Framing, status: Status, qos: Qos, ksid: UUID | None, key: bytes, metadata: bytes, index: int
) -> None:
    opened = Opened(status=status, qos=qos, ksid=ksid)
    assert wire.parse_answer(wire.print_answer(framing, opened)) == opened
    assert wire.parse_answer(wire.print_answer(framing, Closed(status))) == Closed(status)
    chunk = Chunk(status=Status.SUCCESSFUL, index=index, material=Secret(key), metadata=metadata)
    answer = wire.parse_answer(wire.print_answer(framing, chunk))
    assert isinstance(answer, Chunk)
    assert answer.material is not None
    assert (answer.index, answer.material.reveal(), answer.metadata) == (index, key, metadata)


@settings(max_examples=800, derandomize=True)
@given(FRAMINGS | st.none(), st.sampled_from([*wire.Service, 0x01, 0xFF]), st.binary(max_size=400))
def test_any_bytes_give_a_message_or_the_stated_error(framing: Framing | None, service: int, payload: bytes) -> None:
    sent = message(framing.version if framing else b"\3\1\1", service, payload)
    with contextlib.suppress(BadRequest):
        parsed = wire.parse_request(sent)
        assert wire.parse_request(wire.print_request(*parsed)) == parsed
    with contextlib.suppress(PeerFault):
        wire.parse_answer(sent)


@settings(max_examples=300, derandomize=True)
@given(FRAMINGS, REQUESTS, st.data())
def test_no_message_that_was_cut_or_lengthened_is_read(
    framing: Framing, request: wire.Request, data: st.DataObject
) -> None:
    payload = wire.print_request(framing, request)[8:]
    service = wire.print_request(framing, request)[3]
    cut = payload[: data.draw(st.integers(0, len(payload) - 1))]
    for wrong in (cut, payload + b"\0"):
        with pytest.raises(BadRequest):
            wire.parse_request(message(framing.version, service, wrong))


def test_length_is_checked_before_anything_is_kept() -> None:
    with pytest.raises(PeerFault, match="over the limit"):
        wire.message_bytes(b"\2\1\1\2\xff\xff\xff\xff", wire.REQUEST_BYTES_MAX)


def test_a_length_within_that_lies_reads_nothing() -> None:
    lying = message(b"\2\1\1", 4, KSID.bytes + bytes(4) + b"\xff\xff\xff\xff")
    with pytest.raises(BadRequest, match="ends within"):
        wire.parse_request(lying)


def test_nobody_closes_the_server_over_the_wire() -> None:
    with pytest.raises(BadRequest, match="service 255"):
        wire.parse_request(message(b"\2\1\1", 0xFF, b""))


def test_material_never_shows() -> None:
    chunk = Chunk(status=Status.SUCCESSFUL, index=0, material=Secret(b"hush" * 8))
    assert "hush" not in repr(chunk)
    assert b"hush".hex() not in repr(chunk)


@pytest.mark.parametrize(
    ("uri", "sae"),
    [
        ("vpn-alpha", "vpn-alpha"),
        ("urn:keystrand:sae:vpn-alpha", "vpn-alpha"),
        ("qkd://app1@n1", "app1"),
        ("qkd//app1@aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", "app1"),
        ("server://vpn-alpha:25575/streams?x=1", "vpn-alpha"),
        ("app1@site", "app1@site"),
        ("6a0f2f5e-6f0e-4f57-9d3c-2f4f4d1c9f10", "6a0f2f5e-6f0e-4f57-9d3c-2f4f4d1c9f10"),
    ],
)
def test_uris_name_SAEs(uri: str, sae: str) -> None:
    assert wire.sae_of(uri) == sae


@pytest.mark.parametrize("uri", ["", "qkd://", "qkd:///x", "urn:keystrand:kme:a", "a b", "qkd://a@b@c d/\n", "-a"])
def test_what_names_no_SAE_is_refused(uri: str) -> None:
    with pytest.raises(BadRequest):
        wire.sae_of(uri)


def test_metadata_are_the_two_that_the_standard_names() -> None:
    assert json.loads(wire.print_metadata(age_ms=12, hops=0)) == {"age": 12, "hops": 0}
