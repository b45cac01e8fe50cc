"""MACsec frames (IEEE 802.1AE-2018, clause 9): the SecTAG between the addresses and the data, the ICV behind them.

DA (6) || SA (6) || 88E5 || TCI and AN (1) || SL (1) || PN (4) || SCI (8) || secure data || ICV (16)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from keystrand.core.errors import BadRequest

ETHERTYPE: Final = b"\x88\xe5"
ADDRESSES_BYTES: Final = 12
SCI_BYTES: Final = 8
ICV_BYTES: Final = 16
SHORT_BYTES: Final = 48  # less secure data than that is counted in SL, as Ethernet pads short frames
OVERHEAD_BYTES: Final = 32  # SecTAG with SCI, and ICV
_HEAD: Final = struct.Struct("!2sBBI")
_VERSION, _END_STATION, _SCI, _BROADCAST, _ENCRYPTED, _CHANGED = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04


@dataclass(frozen=True, slots=True, kw_only=True)
class SecTag:
    """an: association number 0..3. pn: the lower 32 bits of the packet number. sci: address and port of the sender.

    encrypted: the data are enciphered, not only protected (E and C bits, which go together with the suites used here).
    """

    an: int
    pn: int
    sci: bytes | None
    encrypted: bool = True
    short_length: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """Parts of a frame, which join to the whole."""

    addresses: bytes
    tag: SecTag
    tag_bytes: bytes
    secure_data: bytes
    icv: bytes


def encode_tag(tag: SecTag) -> bytes:
    """SecTAG with its EtherType, 8 or 16 bytes."""
    bits = tag.an | (_SCI if tag.sci is not None else 0) | ((_ENCRYPTED | _CHANGED) if tag.encrypted else 0)
    return _HEAD.pack(ETHERTYPE, bits, tag.short_length, tag.pn) + (tag.sci or b"")


def short_length(secure_data_bytes: int) -> int:
    """SL for so much secure data (9.7)."""
    return secure_data_bytes if secure_data_bytes < SHORT_BYTES else 0


def parse(frame: bytes) -> Frame:
    """Raises BadRequest for what is no valid MACPDU (9.12), or of a form that no suite here sends."""
    if len(frame) < ADDRESSES_BYTES + _HEAD.size + ICV_BYTES or frame[12:14] != ETHERTYPE:
        raise BadRequest("not a MACsec frame")
    _, bits, length, pn = _HEAD.unpack_from(frame, ADDRESSES_BYTES)
    encrypted = bool(bits & _ENCRYPTED)
    if bits & _VERSION or pn == 0 or bits & (_END_STATION | _BROADCAST) or encrypted != bool(bits & _CHANGED):
        raise BadRequest(f"a SecTAG that is not used here: {bits:02x}, packet number {pn}")
    tagged = ADDRESSES_BYTES + _HEAD.size + (SCI_BYTES if bits & _SCI else 0)
    end = tagged + length if length else len(frame) - ICV_BYTES
    if length >= SHORT_BYTES or not tagged <= end <= len(frame) - ICV_BYTES:
        raise BadRequest("a MACsec frame whose length is wrong")
    sci = frame[tagged - SCI_BYTES : tagged] if bits & _SCI else None
    tag = SecTag(an=bits & 3, pn=pn, sci=sci, encrypted=encrypted, short_length=length)
    tag_bytes = frame[ADDRESSES_BYTES:tagged]
    return Frame(frame[:ADDRESSES_BYTES], tag, tag_bytes, frame[tagged:end], frame[end : end + ICV_BYTES])
