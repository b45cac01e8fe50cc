"""Messages with headers of their own: however the bytes come, whole messages go out, and none that is too long is kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import PeerFault
from keystrand.net.headed import HeadedParser
from keystrand.wire.etsi004 import HEADER_BYTES, message_bytes

LIMIT = 64


def parser() -> HeadedParser:
    return HeadedParser(HEADER_BYTES, lambda header: message_bytes(header, LIMIT))


def message(payload: bytes) -> bytes:
    return b"\2\1\1\4" + len(payload).to_bytes(4, "big") + payload


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.binary(max_size=LIMIT), max_size=6), st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_messages_come_out_whole_however_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    sent = [message(payload) for payload in payloads]
    stream, heard, parse, turn = b"".join(sent), [], parser(), 0
    while stream:
        size = cuts[turn % len(cuts)]
        heard += parse.feed(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert heard == sent
    assert parse.is_between_frames


def test_message_in_the_making_is_known() -> None:
    parse = parser()
    assert parse.feed(message(b"whole") + b"\2\1") == [message(b"whole")]
    assert not parse.is_between_frames


def test_length_over_the_limit_is_a_fault_at_its_header() -> None:
    with pytest.raises(PeerFault, match="over the limit"):
        parser().feed(message(b"x" * (LIMIT + 1))[:HEADER_BYTES])
