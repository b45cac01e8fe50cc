"""Messages between the KMEs of two sites, as MessagePack over a mutually authenticated stream.

Every message is idempotent: it may be lost, repeated or overtaken, and the sender repeats what was not answered. A frame
is a list of messages. No message carries key material; `digest` is a keyed digest of a block and `ciphertext` an ML-KEM
ciphertext.

Neighbours may run different releases of one VERSION: structures grow at their end only, what is missing there has a default,
and fields and kinds of messages that are not known are passed over. What changes a meaning counts VERSION up.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from keystrand.core.errors import OtherRelease, PeerFault
from keystrand.core.release import release
from keystrand.wire.decoding import PLAIN, UNREADABLE, is_later, kinds_of

VERSION: Final = 1

# what a database takes, whatever a peer sends: no number beyond 63 bits, no text with a zero character
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, Meta(max_length=65_536, pattern=r"^[^\x00]*$")]


SHORT_MAX: Final = 256
Short = Annotated[str, Meta(max_length=SHORT_MAX, pattern=r"^[^\x00]*$")]


Release = Annotated[str, Meta(max_length=SHORT_MAX, pattern=PLAIN)]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of the tagged union."""


class Hello(Message, tag="hello", frozen=True, kw_only=True):
    """First on every connection and at intervals. op_sent detects a sender that was rolled back to an older state.

    token is fresh in each Hello and echo repeats the receiver's last one, so that a Hello which was overtaken on its way
    is not taken for a sign of age. process is drawn once per start: another one means that what was kept in memory is gone.
    release: what the sender runs, for people. Of version and release every release says and reads the same, for good.
    """

    version: Count
    site: Text
    epoch: Count
    op_sent: Count
    token: Count
    echo: Count
    process: Count = 0
    release: Release = ""


class Announce(Message, tag="announce", frozen=True, kw_only=True):
    """`I hold this block durably.`"""

    link: Text
    sequence: Count
    length_bits: Count
    digest: bytes
    epoch: Count


class Known(Message, tag="known", frozen=True, kw_only=True):
    """Answer to Announce: verdict is "match", "mismatch" or "gone"."""

    link: Text
    sequence: Count
    verdict: Text


class Lend(Message, tag="lend", frozen=True, kw_only=True):
    """Ownership of untouched blocks moves to the receiver: pairs of block ID and the new term."""

    blocks: tuple[tuple[Text, Count], ...]


class Lent(Message, tag="lent", frozen=True, kw_only=True):
    """Answer to Lend: these terms are durable here."""

    blocks: tuple[tuple[Text, Count], ...]


class Borrow(Message, tag="borrow", frozen=True, kw_only=True):
    """`I need about this many bits that you own.`"""

    link: Text
    bits: Count


class Probe(Message, tag="probe", frozen=True, kw_only=True):
    """`Do you still have these blocks of yours?` Answered by Gone where the answer is no, by silence where it is yes."""

    block_ids: tuple[Text, ...]


class Gone(Message, tag="gone", frozen=True, kw_only=True):
    """Answer to Probe: these were used up or destroyed here."""

    block_ids: tuple[Text, ...]


class WireKey(msgspec.Struct, frozen=True, array_like=True):
    """A key to set aside: its ID and its segments (block ID, offset in bits, length in bits); empty without QKD strand."""

    key_id: Text
    segments: tuple[tuple[Text, Count, Count], ...]


class Reserve(Message, tag="reserve", frozen=True, kw_only=True):
    """Set these keys aside for their recipients. strand_id names the ML-KEM epoch, "" without PQC strand."""

    request_id: Text
    op: Count
    epoch: Count
    link: Text
    initiator: Text
    responders: tuple[Text, ...]
    size_bits: Count
    strands: tuple[Text, ...]
    strand_id: Text
    ttl_s: float
    keys: tuple[WireKey, ...]


class Reserved(Message, tag="reserved", frozen=True, kw_only=True):
    """Answer to Reserve: durable here."""

    request_id: Text


class Refused(Message, tag="refused", frozen=True, kw_only=True):
    """Answer to Reserve: not done, and never will be under this request ID. reason is a word, not prose."""

    request_id: Text
    reason: Text


class Void(Message, tag="void", frozen=True, kw_only=True):
    """Forget these requests, whether or not you have heard of them; but keep keys of theirs that have left already."""

    request_ids: tuple[Text, ...]
    kept: tuple[Text, ...] = ()


class Voided(Message, tag="voided", frozen=True, kw_only=True):
    """Answer to Void: burnt or never known, durably."""

    request_ids: tuple[Text, ...]


class StrandOffer(Message, tag="strand-offer", frozen=True, kw_only=True):
    """An ML-KEM encapsulation key for a fresh strand epoch, made by the side that will allocate under it."""

    strand_id: Text
    algorithm: Text
    encapsulation_key: bytes


class StrandAnswer(Message, tag="strand-answer", frozen=True, kw_only=True):
    """The ciphertext, and a tag that proves that both sides derived the same secret."""

    strand_id: Text
    ciphertext: bytes
    confirm: bytes


class Changed(Message, tag="changed", frozen=True, kw_only=True):
    """`The life of these keys went on here`, all are in `state` now. The receiver merges that with what it knows.

    keys: key ID, turns of the sender's end and of the receiver's (how often that end suspended it or had that taken back).
    Repeated until heard.
    """

    notice_id: Text
    state: Text
    compromised: bool
    actor: Text
    reason: Text
    keys: tuple[tuple[Text, Count, Count], ...]


class Quarantined(Message, tag="quarantined", frozen=True, kw_only=True):
    """`I do not trust what is left of these device blocks.` Repeated until heard."""

    notice_id: Text
    link: Text
    sequences: tuple[Count, ...]
    actor: Text
    reason: Text


class Heard(Message, tag="heard", frozen=True, kw_only=True):
    """Answer to Changed and Quarantined: durable here."""

    notice_id: Text


class StreamEnd(Message, tag="stream-end", frozen=True, kw_only=True):
    """`My SAE's end of this key stream is so.` The latest `turn` counts; repeated until heard.

    instance: what the initiator's KME drew when the stream was opened there, so that a stream that is opened anew under an
    old ID never names a key again; "" from the other side. next_index: how far the SAE has read, or wants to.
    """

    ksid: Text
    turn: Count
    source: Text
    destination: Text
    sae: Text
    is_open: bool
    instance: Text
    chunk_bytes: Count
    min_bps: Count
    ttl_s: Count
    next_index: Count


class StreamHeard(Message, tag="stream-heard", frozen=True, kw_only=True):
    """Answer to StreamEnd: the latest turn heard. refused: other SAEs hold that stream ID here."""

    ksid: Text
    turn: Count
    refused: bool = False


class Relayed(Message, tag="relayed", frozen=True, kw_only=True):
    """A frame from relay to relay (wire/relay.py), on the channel that the two KMEs have."""

    frame: bytes


class SourceOffer(Message, tag="source-offer", frozen=True, kw_only=True):
    """`My device gave me these keys for this block; take yours of the same names.` Repeated until answered.

    offer: drawn anew for each set of keys; kind: of the source; names: key IDs, chunks of a stream or files, in their order.
    """

    link: Text
    offer: Count
    sequence: Count
    kind: Short
    names: Annotated[tuple[Short, ...], Meta(min_length=1, max_length=1024)]
    length_bits: Count


class SourceTaken(Message, tag="source-taken", frozen=True, kw_only=True):
    """Answer to SourceOffer: verdict "kept" (durable here), "lost" (never will be) or "behind" (that sequence is used).

    next_sequence: the next one that is free here; reason: a few words where it is lost.
    """

    link: Text
    offer: Count
    verdict: Text
    next_sequence: Count
    reason: Short = ""


class Checkpoint(Message, tag="checkpoint", frozen=True, kw_only=True):
    """A signed head of the sender's audit chain, with the record digests since the head that the receiver last saw."""

    note: Text
    first: Count
    digests: tuple[bytes, ...]


class Cosignature(Message, tag="cosignature", frozen=True, kw_only=True):
    """The receiver's signature under a checkpoint that extends the last one it signed; or why not."""

    size: Count
    note: Text
    problem: Text = ""


AnyMessage = (
    Hello
    | Announce
    | Known
    | Lend
    | Lent
    | Borrow
    | Probe
    | Gone
    | Reserve
    | Reserved
    | Refused
    | Void
    | Voided
    | StrandOffer
    | StrandAnswer
    | Changed
    | Quarantined
    | Heard
    | StreamEnd
    | StreamHeard
    | Relayed
    | SourceOffer
    | SourceTaken
    | Checkpoint
    | Cosignature
)


class _Greeting(msgspec.Struct, tag_field="t", tag="hello"):
    """What of a Hello every release can read."""

    version: int = 0
    release: Release = ""


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[AnyMessage])
_one: Final[msgspec.msgpack.Decoder[AnyMessage]] = msgspec.msgpack.Decoder(AnyMessage)
_parts: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_greeting: Final = msgspec.msgpack.Decoder(_Greeting)
KINDS: Final = kinds_of(Message)


def encode(messages: list[AnyMessage]) -> bytes:
    """One frame."""
    return _encoder.encode(messages)


def decode(frame: bytes | memoryview) -> list[AnyMessage]:
    """The messages of one frame, without those of kinds that a later release has.

    Raises PeerFault for anything else, whatever the bytes are, OtherRelease where a Hello explains why they are not understood.
    """
    try:
        return _decoder.decode(frame)
    except UNREADABLE:
        return _decode_each(frame)


def _decode_each(frame: bytes | memoryview) -> list[AnyMessage]:
    try:
        parts = _parts.decode(frame)
        for part in parts:
            with suppress(msgspec.ValidationError):
                check_version(_greeting.decode(part))
        return [_one.decode(part) for part in parts if not is_later(part, KINDS)]
    except UNREADABLE as error:
        raise PeerFault(f"peer sent a frame that does not parse: {error}") from None


def check_version(hello: Hello | _Greeting) -> None:
    """Raises OtherRelease where the sender's messages mean something else than ours."""
    if hello.version != VERSION:
        theirs = hello.release or "that does not say which it is"
        raise OtherRelease(
            f"the peer runs a release ({theirs}) whose messages have version {hello.version}; "
            f"those of this one ({release()}) have version {VERSION}",
            hint="bring both sites to releases that work together: docs/guides/networks.md, Upgrade one site after the other",
        )
