"""Whole frames under a SAK: bytes of `wire.macsec`, protection of `crypto.macsec`."""

from __future__ import annotations

from keystrand.core.errors import BadRequest
from keystrand.crypto.macsec import PN_MAX, Sak
from keystrand.wire.macsec import ADDRESSES_BYTES, Frame, SecTag, encode_tag, parse, short_length


def protect(sak: Sak, frame: bytes, *, an: int, pn: int, encrypt: bool = True) -> bytes:
    """A frame (addresses, EtherType, data) as the wire gets it."""
    addresses, data = frame[:ADDRESSES_BYTES], frame[ADDRESSES_BYTES:]
    tag = SecTag(an=an, pn=pn & PN_MAX, sci=sak.sci, encrypted=encrypt, short_length=short_length(len(data)))
    head = addresses + encode_tag(tag)
    return head + sak.protect(pn, head, data, encrypt=encrypt)


def validate(sak: Sak, frame: bytes | Frame, *, lowest_pn: int = 1) -> tuple[bytes, int]:
    """The frame within, and its packet number. lowest_pn: the lowest that is acceptable.

    Raises BadRequest for what is no MACsec frame of this sender, Tampered for a wrong ICV.
    """
    parts = frame if isinstance(frame, Frame) else parse(frame)
    if parts.tag.sci not in (None, sak.sci):
        raise BadRequest("a MACsec frame of another sender")
    pn = sak.full_pn(parts.tag.pn, lowest_pn)
    head = parts.addresses + parts.tag_bytes
    data = sak.validate(pn, head, parts.secure_data, parts.icv, encrypted=parts.tag.encrypted)
    return parts.addresses + data, pn
