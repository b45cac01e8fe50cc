"""Authentication of the classical channel: one tag per block and direction over everything that was said.

Wegman and Carter (J. Comput. Syst. Sci. 22, 1981) with Poly1305 as the hash and a key of 256 fresh bits per tag, so that the
tag is unconditionally secure: a forgery passes with a chance of at most n / 2^102 for n blocks of 16 bytes (RFC 8439, §4).
The keys come from a stock that a start key founds and every block of the link refills.

The stock is made of segments, named by the block that brought them (-1: the start key). What is taken is durable before it
is used, so that no crash uses a key twice; two ends that lost step agree on the segments that both hold and on the larger
of the two positions. Whoever can write on the channel can thereby make both ends throw keys away: that stops a link, as
cutting the fibre would, and never opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from keystrand.core.errors import LinkUnavailable, PeerFault, Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.universal import polynomial_collision_bound
from keystrand.wire.classical import Stock

KEY_BYTES: Final = 32  # of one tag
PAIR_BYTES: Final = 2 * KEY_BYTES  # of one block: the receiver's tag, then the transmitter's
START_SEGMENT: Final = -1
TRANSCRIPT_BYTES_MAX: Final = 256_000_000


class Segment(msgspec.Struct, frozen=True, array_like=True, repr_omit_defaults=True):
    """Authentication key that one block brought. `material` is secret; the used part is zeroed."""

    name: int
    used_bytes: int
    material: bytes

    def __repr__(self) -> str:
        return f"<Segment {self.name}: {self.used_bytes} of {len(self.material)} bytes used>"


Keep = Callable[[tuple[Segment, ...]], None]


class KeyPair(msgspec.Struct, frozen=True):
    """The two tag keys of one block and where in the stock they lie."""

    segment: int
    offset_bytes: int
    receiver: Secret
    transmitter: Secret


def found(start_key: Secret) -> tuple[Segment, ...]:
    """The stock of a new link. Raises LinkUnavailable for a start key that is too short for a single block."""
    if len(start_key) < PAIR_BYTES:
        raise LinkUnavailable(
            f"the start key has {len(start_key)} bytes, at least {PAIR_BYTES} are needed",
            hint="make a start key of 4096 random bytes and bring it to both ends by a trusted way",
        )
    return (Segment(START_SEGMENT, 0, start_key.reveal()),)


class AuthKeyPool:
    """The stock of one end. `keep` must make the segments durable before it returns."""

    def __init__(self, segments: Iterable[Segment], *, keep: Keep, low_water_bytes: int) -> None:
        self._segments = [s for s in segments if _left(s) > 0]
        self._keep = keep
        self._low_water_bytes = low_water_bytes

    @property
    def left_bytes(self) -> int:
        return sum(_left(s) for s in self._segments)

    def stock(self) -> tuple[Stock, ...]:
        """What to tell the other end: names and sizes, no key."""
        return tuple(Stock(s.name, s.used_bytes, len(s.material)) for s in self._segments)

    def align(self, theirs: Iterable[Stock]) -> None:
        """Keep what both ends hold, from the later position on. Raises LinkUnavailable where too little is left."""
        other = {(s.segment, s.size_bytes): s.used_bytes for s in theirs}
        common = [s for s in self._segments if (s.name, len(s.material)) in other]
        self._replace(_advance(s, max(s.used_bytes, other[s.name, len(s.material)])) for s in common)
        self.check()

    def check(self) -> None:
        """Raises LinkUnavailable below the low-water mark: better no link than one whose last key is spent."""
        if self.left_bytes < max(self._low_water_bytes, PAIR_BYTES):
            raise LinkUnavailable(
                f"{self.left_bytes} bytes of authentication key are left, {self._low_water_bytes} must be",
                hint="bring a new start key to both ends by a trusted way",
            )

    def take(self) -> KeyPair:
        """The keys of the next block. They are spent, durably, when this returns."""
        self.check()
        segment = self._segments[0]
        start = segment.used_bytes
        material = segment.material[start : start + PAIR_BYTES]
        self._replace([_advance(segment, start + PAIR_BYTES), *self._segments[1:]])
        return KeyPair(segment.name, start, Secret(material[:KEY_BYTES]), Secret(material[KEY_BYTES:]))

    def refill(self, name: int, material: bytes) -> None:
        """Add the share of block `name`, durably."""
        assert len(material) % PAIR_BYTES == 0
        assert all(s.name != name for s in self._segments), "a block refills once"
        self._replace([*self._segments, Segment(name, 0, material)])

    def _replace(self, segments: Iterable[Segment]) -> None:
        kept = [s for s in segments if _left(s) > 0]
        self._keep(tuple(kept))
        self._segments = kept


def _left(segment: Segment) -> int:
    """Usable bytes: whole pairs only."""
    return max(0, len(segment.material) - segment.used_bytes) // PAIR_BYTES * PAIR_BYTES


def _advance(segment: Segment, used_bytes: int) -> Segment:
    # Rounded up to whole pairs, so that ends that disagree never share half of a pair.
    used = min(-(-used_bytes // PAIR_BYTES) * PAIR_BYTES, len(segment.material))
    return Segment(segment.name, used, bytes(used) + segment.material[used:])


class Transcript:
    """All frames of one direction since its last tag."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._size_bytes = 0

    def add(self, frame: bytes) -> None:
        """Raises PeerFault where the other side talks without end."""
        self._size_bytes += len(frame) + 8
        if self._size_bytes > TRANSCRIPT_BYTES_MAX:
            raise PeerFault("a block's transcript grows without end")
        self._frames.append(frame)

    def tag(self, key: Secret) -> bytes:
        """16 bytes. Does not clear the transcript."""
        return self._mac(key).finalize()

    def verify(self, key: Secret, tag: bytes) -> None:
        """Raises Tampered unless the tag fits."""
        try:
            self._mac(key).verify(tag)
        except InvalidSignature:
            raise Tampered("the classical channel was tampered with: a block's tag does not fit") from None

    @property
    def forgery_bound(self) -> float:
        """Chance that another transcript of this length passes under the tag that was seen (Bernstein, FSE 2005, 3.3)."""
        return polynomial_collision_bound(self._size_bytes)

    def clear(self) -> None:
        self._frames.clear()
        self._size_bytes = 0

    def _mac(self, key: Secret) -> Poly1305:
        mac = Poly1305(key.reveal())
        for frame in self._frames:
            mac.update(len(frame).to_bytes(8, "little"))
            mac.update(frame)
        return mac
