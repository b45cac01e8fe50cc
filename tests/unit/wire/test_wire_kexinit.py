"""What an SSH server says in clear: parsed strictly, whatever the bytes."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import PeerFault
from keystrand.wire.kexinit import KexInit, packet_size, parse_banner, parse_kexinit

names = st.lists(st.text("abcdefghijklmnopqrstuvwxyz0123456789-@.", min_size=1, max_size=12), max_size=4).map(tuple)


def packet(lists: list[tuple[str, ...]], padding: int = 4) -> bytes:
    """As RFC 4253, 6 and 7.1 lay it out."""
    words = [",".join(each).encode() for each in lists]
    payload = b"\x14" + bytes(16) + b"".join(struct.pack(">I", len(word)) + word for word in words) + bytes(5)
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


@given(exchanges=names, keys=names, ciphers=names, padding=st.integers(4, 255))
@settings(deadline=None)
def test_lists_come_back_in_their_order(exchanges: tuple, keys: tuple, ciphers: tuple, padding: int) -> None:
    whole = packet([exchanges, keys, ciphers, *[()] * 7], padding)
    assert packet_size(whole[:4]) == len(whole)
    assert parse_kexinit(whole) == KexInit(exchanges, keys, ciphers)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for parse in (parse_kexinit, parse_banner):
        with suppress(PeerFault):
            parse(data)


@given(st.integers(1, 80))
@settings(deadline=None)
def test_a_packet_cut_short_is_refused(cut: int) -> None:
    whole = packet([("curve25519-sha256",), ("ssh-ed25519",), *[()] * 8])
    with pytest.raises(PeerFault):
        parse_kexinit(whole[: len(whole) - 9 - cut])


def test_another_message_first_is_refused() -> None:
    whole = packet([("curve25519-sha256",), ("ssh-ed25519",), *[()] * 8])
    with pytest.raises(PeerFault, match="no KEXINIT"):
        parse_kexinit(whole[:5] + b"\x01" + whole[6:])


def test_a_banner_may_come_late_and_a_flood_is_none() -> None:
    assert parse_banner(b"hello\r\nSSH-2.0-Open") is None
    assert parse_banner(b"hello\r\nSSH-2.0-OpenSSH_9.9 x\r\n") == "SSH-2.0-OpenSSH_9.9 x"
    with pytest.raises(PeerFault, match="no banner"):
        parse_banner(b"x" * 9000)
    with pytest.raises(PeerFault, match="too long"):
        parse_banner(b"SSH-" + b"x" * 300 + b"\n")


@pytest.mark.parametrize("length", [0, 1, 35_001, 2**32 - 1])
def test_a_packet_of_an_impossible_size_is_refused(length: int) -> None:
    with pytest.raises(PeerFault):
        packet_size(struct.pack(">I", length))
