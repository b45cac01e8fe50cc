"""Messages between the two QKD modules of a link, as MessagePack frames.

Everything here is public by design: the protocol assumes that Eve reads along. What she must not do is change it, and
that is what the tags at the end of every block are for. Arrays travel as packed bits or little-endian integers.

The pulse trains of the simulated quantum channel are a union of their own, `AnyLight`: they never share a connection with
the classical messages.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from keystrand.core.errors import PeerFault
from keystrand.wire.decoding import UNREADABLE

VERSION: Final = 3
BLOB_BYTES_MAX: Final = 4_000_000

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Blob = Annotated[bytes, msgspec.Meta(max_length=BLOB_BYTES_MAX)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Seed = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Tag = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Word = Annotated[str, msgspec.Meta(max_length=64)]


class ClassicalMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of the tagged union."""


class Stock(msgspec.Struct, frozen=True, array_like=True):
    """One segment of authentication key that the sender holds: its name, bytes used and bytes in all."""

    segment: Annotated[int, msgspec.Meta(ge=-1, le=2**53)]
    used_bytes: Count
    size_bytes: Count


class Open(ClassicalMessage, tag="open", frozen=True, kw_only=True):
    """First from both ends. run: named by the transmitter, empty from the receiver; next_sequence: first unused number."""

    version: int
    link: Word
    role: Word
    run: Annotated[bytes, msgspec.Meta(max_length=16)]
    profile: Digest
    next_sequence: Count
    stock: Annotated[tuple[Stock, ...], msgspec.Meta(max_length=2048)]


class Detections(ClassicalMessage, tag="detections", frozen=True, kw_only=True):
    """Receiver: what clicked in the train of `count` pulses from `first` on.

    offsets: uint32 little-endian, ascending, below count; bases: packed bits, one per click (1: test basis); test_bits: packed
    bits, one per click in the test basis, in order.
    """

    first: Count
    count: Count
    offsets: Blob
    bases: Blob
    test_bits: Blob


class Sifting(ClassicalMessage, tag="sifting", frozen=True, kw_only=True):
    """Transmitter, to Detections: matches: one bit per click (1: same basis); intensities: one bit per match (1: no signal),
    and where there are vacuum pulses as many bytes again (1: vacuum); test_bits: one bit per match in the test basis."""

    first: Count
    matches: Blob
    intensities: Blob
    test_bits: Blob


class Query(ClassicalMessage, tag="query", frozen=True, kw_only=True):
    """Receiver: a step of error correction of block `sequence`. seed: public, names the permutations, same in all queries."""

    sequence: Count
    seed: Seed
    body: Blob


class Answer(ClassicalMessage, tag="answer", frozen=True, kw_only=True):
    """Transmitter, to Query."""

    sequence: Count
    body: Blob


class Verify(ClassicalMessage, tag="verify", frozen=True, kw_only=True):
    """Receiver: tag of the corrected bits under a fresh seed; what was disclosed and corrected so far, errors by intensity."""

    sequence: Count
    seed: Annotated[bytes, msgspec.Meta(max_length=256)]
    tag: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    leak_bits: Count
    errors: Annotated[tuple[Count, ...], msgspec.Meta(min_length=2, max_length=3)]


class Mismatch(ClassicalMessage, tag="mismatch", frozen=True, kw_only=True):
    """Transmitter, to Verify: the tag does not fit; correct further."""

    sequence: Count


class Amplify(ClassicalMessage, tag="amplify", frozen=True, kw_only=True):
    """Transmitter, to Verify: the blocks are equal; make secret_bits of them under this fresh seed, keep the first
    refill_bytes for authentication."""

    sequence: Count
    seed: Blob
    secret_bits: Count
    refill_bytes: Count


class Authenticate(ClassicalMessage, tag="authenticate", frozen=True, kw_only=True):
    """A one-time tag over all frames of the sender since its last one. segment and offset name the key."""

    sequence: Count
    segment: Annotated[int, msgspec.Meta(ge=-1, le=2**53)]
    offset_bytes: Count
    tag: Tag


class Delivered(ClassicalMessage, tag="delivered", frozen=True, kw_only=True):
    """Receiver: the transmitter's tag fits, the block is in use here."""

    sequence: Count


class Abort(ClassicalMessage, tag="abort", frozen=True, kw_only=True):
    """This run is over and its block is dropped. reason is a word, not prose."""

    reason: Word


AnyClassical = (
    Open | Detections | Sifting | Query | Answer | Verify | Mismatch | Amplify | Authenticate | Delivered | Abort
)


class LightMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of the union of the simulated quantum channel."""


class Run(LightMessage, tag="run", frozen=True, kw_only=True):
    """First: the seed of the transmitter's choices. Stands for the light itself; see qkd.optics."""

    run: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    profile: Digest
    seed: Seed


class Train(LightMessage, tag="train", frozen=True, kw_only=True):
    """So many pulses more."""

    first: Count
    count: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]


AnyLight = Run | Train

_encoder: Final = msgspec.msgpack.Encoder()
_classical: Final[msgspec.msgpack.Decoder[AnyClassical]] = msgspec.msgpack.Decoder(AnyClassical)
_light: Final[msgspec.msgpack.Decoder[AnyLight]] = msgspec.msgpack.Decoder(AnyLight)


def encode(message: AnyClassical | AnyLight) -> bytes:
    """One frame."""
    return _encoder.encode(message)


def decode(frame: bytes | memoryview) -> AnyClassical:
    """The message of one classical frame. Raises PeerFault for anything else, whatever the bytes are."""
    try:
        return _classical.decode(frame)
    except UNREADABLE as error:
        raise PeerFault(f"the other module sent a frame that does not parse: {error}") from None


def decode_light(frame: bytes | memoryview) -> AnyLight:
    """The message of one frame of the simulated quantum channel. Raises PeerFault for anything else."""
    try:
        return _light.decode(frame)
    except UNREADABLE as error:
        raise PeerFault(f"the quantum channel sent a frame that does not parse: {error}") from None
