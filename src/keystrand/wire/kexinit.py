"""What an SSH server says before any key is agreed: its banner and its lists of algorithms (RFC 4253, 4.2 and 7.1).

Both are in clear, so they can be read without logging in and without a cipher.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from keystrand.core.errors import PeerFault

KEXINIT: Final = 20
BANNER_BYTES_MAX: Final = 255  # RFC 4253, 4.2: of the banner's own line
GREETING_BYTES_MAX: Final = 8192  # of lines before it
PACKET_BYTES_MAX: Final = 35_000  # RFC 4253, 6.1: what all must be able to take
_LISTS: Final = 10
_COOKIE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class KexInit:
    """What a server offers, in its order. ciphers: from client to server."""

    exchanges: tuple[str, ...]
    host_keys: tuple[str, ...]
    ciphers: tuple[str, ...]


def parse_banner(greeting: bytes) -> str | None:
    """The server's `SSH-2.0-…` among its first lines; None while more has to come. Raises PeerFault for what is no SSH."""
    for line in greeting.split(b"\n")[:-1]:
        if line.startswith(b"SSH-"):
            if len(line) > BANNER_BYTES_MAX:
                raise PeerFault("SSH: the banner is too long")
            return line.rstrip(b"\r").decode("utf-8", "replace")
    if len(greeting) > GREETING_BYTES_MAX:
        raise PeerFault("SSH: no banner")
    return None


def packet_size(head: bytes) -> int:
    """How long a packet that begins with these four bytes is in all. Raises PeerFault where that cannot be."""
    (length,) = struct.unpack(">I", head)
    if not 2 <= length <= PACKET_BYTES_MAX:
        raise PeerFault(f"SSH: a packet of {length} bytes")
    return int(length) + 4


def parse_kexinit(packet: bytes) -> KexInit:
    """A whole binary packet in clear. Raises PeerFault."""
    padding = packet[4] if len(packet) > 5 else 0
    payload = packet[5 : len(packet) - padding]
    if len(payload) < 1 + _COOKIE_BYTES or payload[0] != KEXINIT:
        raise PeerFault("SSH: the first message is no KEXINIT")
    at, lists = 1 + _COOKIE_BYTES, list[tuple[str, ...]]()
    for _ in range(_LISTS):
        if len(payload) < at + 4:
            raise PeerFault("SSH: KEXINIT is cut short")
        (size,) = struct.unpack_from(">I", payload, at)
        words = payload[at + 4 : at + 4 + size]
        if len(words) != size or not words.isascii():
            raise PeerFault("SSH: KEXINIT is cut short, or a name in it is not ASCII")
        lists.append(tuple(name for name in words.decode().split(",") if name))
        at += 4 + size
    return KexInit(exchanges=lists[0], host_keys=lists[1], ciphers=lists[2])
