"""MKPDUs, as far as we read them (IEEE 802.1X-2020, clause 11.11): whose they are, and the ICV over them.

DA (6) || SA (6) || 888E || EAPOL version (1) || type 5 (1) || body length (2) || basic parameter set || … || ICV (16)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from keystrand.core.errors import BadRequest

ETHERTYPE: Final = 0x888E
GROUP: Final = bytes.fromhex("0180c2000003")  # PAE group address, where MKPDUs go
TYPE_MKA: Final = 5
ICV_BYTES: Final = 16
_EAPOL: Final = struct.Struct("!12sHBBH")
_BASIC: Final = struct.Struct(
    "!BBBB8s12sI4s"
)  # version, priority, bits and length, length, SCI, MI, MN, algorithm agility


@dataclass(frozen=True, slots=True, kw_only=True)
class Mkpdu:
    """signed: from the destination address up to the ICV. member, number: of the participant that sent it."""

    ckn: bytes
    sci: bytes
    priority: int
    member: bytes
    number: int
    signed: bytes
    icv: bytes


def parse(frame: bytes) -> Mkpdu:
    """Raises BadRequest for what is no MKPDU."""
    try:
        _, ethertype, _, kind, body_bytes = _EAPOL.unpack_from(frame)
        version, priority, high, low, sci, member, number, _ = _BASIC.unpack_from(frame, _EAPOL.size)
    except struct.error:
        raise BadRequest("too short for an MKPDU") from None
    end = _EAPOL.size + body_bytes
    set_bytes = (high & 0x0F) << 8 | low  # of the basic parameter set, without its first four bytes
    ckn = frame[_EAPOL.size + _BASIC.size : _EAPOL.size + 4 + set_bytes]
    if ethertype != ETHERTYPE or kind != TYPE_MKA or not version or not 1 <= len(ckn) <= 32:
        raise BadRequest("not an MKPDU")
    if len(frame) < end or end - ICV_BYTES < _EAPOL.size + 4 + set_bytes:
        raise BadRequest("an MKPDU that was cut off")
    return Mkpdu(
        ckn=ckn,
        sci=sci,
        priority=priority,
        member=member,
        number=number,
        signed=frame[: end - ICV_BYTES],
        icv=frame[end - ICV_BYTES : end],
    )
