"""What two ends of a tunnel say to each other, over mutual TLS between their SAEs. Key IDs and numbers, never material."""

from __future__ import annotations

import msgspec

from keystrand.core.errors import PeerFault
from keystrand.wire.decoding import UNREADABLE

VERSION = 1
KEY_ID_CHARACTERS_MAX = 64
NUMBER_MAX = 2**53 - 1


class Word(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of all messages. number: the generation that it is about."""

    tunnel: str
    number: int


class Hello(Word, frozen=True, kw_only=True, tag="hello"):
    """First after connecting. number: the highest ever heard of at this end; current: the one in use, 0: none known."""

    version: int = VERSION
    current: int


class Propose(Word, frozen=True, kw_only=True, tag="propose"):
    """Initiator: fetch this key and prepare it."""

    key_id: str


class Prepared(Word, frozen=True, kw_only=True, tag="prepared"):
    """Responder: done; use it when you like."""


class Refused(Word, frozen=True, kw_only=True, tag="refused"):
    """Responder: cannot; it is dropped here."""

    reason: str


class Active(Word, frozen=True, kw_only=True, tag="active"):
    """Initiator: it is in use here."""


class Confirmed(Word, frozen=True, kw_only=True, tag="confirmed"):
    """Responder: it is in use here, too; everything older is retired here."""


class Abort(Word, frozen=True, kw_only=True, tag="abort"):
    """Initiator: this generation was never used; drop it. reason: why, where it says so."""

    reason: str = ""


Message = Hello | Propose | Prepared | Refused | Active | Confirmed | Abort

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    return _encode(message)


def decode(frame: bytes) -> Message:
    """Raises PeerFault for anything else than one message of this version."""
    try:
        message = _decoder.decode(frame)
    except UNREADABLE as error:
        raise PeerFault(f"not a message between tunnel ends: {error}") from None
    if not 0 <= message.number <= NUMBER_MAX or (
        isinstance(message, Propose) and len(message.key_id) > KEY_ID_CHARACTERS_MAX
    ):
        raise PeerFault("a message between tunnel ends is out of range")
    if isinstance(message, Hello) and message.version != VERSION:
        raise PeerFault(f"the other end speaks version {message.version}, this one {VERSION}")
    return message
