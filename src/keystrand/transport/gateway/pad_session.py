"""The two ends of one content under a one-time pad: bytes in, bytes out, no sockets. Whatever goes wrong burns the pad."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from keystrand.core.errors import PeerFault
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.crypto.pad import MAC_BYTES, OneTimePad
from keystrand.transport.gateway.frames import (
    NO_DIGEST,
    Closing,
    Details,
    Header,
    PadOpening,
    Reason,
    Record,
    parse_details,
    whole_of,
)


def _pad_of(keys: Sequence[Key]) -> OneTimePad:
    """The bits of `keys`, one after another. Their material is wiped."""
    material = Secret(b"".join(key.material.reveal() for key in keys))
    for key in keys:
        key.material.wipe()
    return OneTimePad(material)


def _closing(length_bytes: int, tag: bytes) -> Closing:
    """As of a transfer over one lane; the MAC stands in the place of the transcript."""
    proof = tag + bytes(len(NO_DIGEST) - len(tag))
    return Closing(length_bytes, proof, NO_DIGEST, whole_of(length_bytes, [proof]))


def _answer(raw: bytes, code: int, tag: bytes) -> bytes:
    """What the MAC of an answer covers: its header, 0 for received or a Reason, and the MAC of what it answers."""
    return raw + bytes([code]) + tag


class PadSending:
    """The sender's end: the PAD record, then one answer."""

    def __init__(self, opening: PadOpening, keys: Sequence[Key], details: Details, content: bytes) -> None:
        self._pad = _pad_of(keys)
        clear, plain = opening.pack(), details.pack() + content
        raw = Header(Record.PAD, 0, 0, len(clear) + len(plain) + MAC_BYTES).pack()
        self.record = raw + clear + self._pad.seal(plain, raw + clear)
        self._tag = self.record[-MAC_BYTES:]
        self.closing = _closing(len(content), self._tag)

    def hear(self, raw: bytes, body: bytes) -> Reason | None:
        """Why the receiver refuses, None when it has the content. Raises Tampered, PeerFault."""
        self._pad.check_answer(_answer(raw, body[0], self._tag), body[1:])
        try:
            return Reason(body[0]) if body[0] else None
        except ValueError:
            raise PeerFault("an unknown reason to stop") from None

    def burn(self) -> None:
        self._pad.burn()


@dataclass(slots=True)
class PadReceiving:
    """The receiver's end, once the MAC of a PAD verified: `content` is what came."""

    opening: PadOpening
    details: Details
    content: bytes
    closing: Closing
    _tag: bytes
    _pad: OneTimePad

    @classmethod
    def begin(cls, raw: bytes, body: bytes, opening: PadOpening, clear_bytes: int, keys: Sequence[Key]) -> PadReceiving:
        """Raises Tampered or PeerFault, and then the bits are burnt."""
        pad, tag = _pad_of(keys), body[-MAC_BYTES:]
        try:
            plain = pad.open(body[clear_bytes:], raw + body[:clear_bytes])
            details, end = parse_details(plain)
            if details.size_bytes != len(plain) - end or details.lanes != 1 or details.head_bytes:
                raise PeerFault("PAD carries another content than it says")
        except BaseException:
            pad.burn()
            raise
        return cls(opening, details, plain[end:], _closing(len(plain) - end, tag), tag, pad)

    @property
    def transfer_id(self) -> str:
        return str(uuid.UUID(bytes=self.opening.transfer_id))

    def answer(self, reason: Reason | None) -> bytes:
        """The PAD_ANSWER record: received, or why not. Once; the pad is burnt then."""
        code = reason or 0
        raw = Header(Record.PAD_ANSWER, 0, 0, 1 + MAC_BYTES).pack()
        tag = self._pad.sign_answer(_answer(raw, code, self._tag))
        self._pad.burn()
        return raw + bytes([code]) + tag
