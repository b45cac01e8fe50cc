"""What a peer KME may send: everything that its database and ours take, and nothing else."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import PeerFault
from keystrand.wire import peer as wire

RESERVED = {"t": "reserved", "request_id": "r1"}
OFFER = {"t": "source-offer", "link": "l", "offer": 1, "sequence": 1, "kind": "files", "names": ["a"], "length_bits": 8}
TAKEN = {"t": "source-taken", "link": "l", "offer": 1, "verdict": "lost", "next_sequence": 1, "reason": "r"}
LEND = {"t": "lend", "blocks": [["l/0/0", 1]]}


def frame(message: dict[str, object]) -> bytes:
    return msgspec.msgpack.encode([message])


def test_what_is_in_bounds_comes_through() -> None:
    assert wire.decode(frame(RESERVED)) == [wire.Reserved(request_id="r1")]
    assert all(wire.decode(frame(message)) for message in (OFFER, TAKEN))
    assert wire.decode(frame({**LEND, "blocks": [["l/0/0", (1 << 63) - 1]]}))


@pytest.mark.parametrize(
    "message",
    [
        {**RESERVED, "request_id": "r\x001"},
        {**RESERVED, "request_id": "r" * 65_537},
        {**LEND, "blocks": [["l/0/0", 1 << 63]]},
        {**LEND, "blocks": [["l/0/0", -1]]},
        {**LEND, "blocks": [["l/\x00/0", 1]]},
        {**OFFER, "names": []},
        {**OFFER, "names": ["a"] * 1025},
        {**OFFER, "names": ["a" * 257]},
        {**TAKEN, "reason": "r" * 257},
        {"t": "known", "link": "l", "sequence": 1 << 63, "verdict": "match"},
    ],
)
def test_numbers_and_texts_that_no_database_takes_are_the_peers_fault(message: dict[str, object]) -> None:
    with pytest.raises(PeerFault):
        wire.decode(frame(message))


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_the_peers_fault(data: bytes) -> None:
    with contextlib.suppress(PeerFault):
        assert isinstance(wire.decode(data), list)
