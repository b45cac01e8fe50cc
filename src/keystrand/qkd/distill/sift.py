"""Sifting: which clicks were measured in the basis that they were sent in, and the counts that follow.

The receiver announces where it clicked and in which basis, with its bits of the test basis; the transmitter answers which
match, at which intensity, with hers of the test basis. Both then hold the same `Sifted` but for the bits of the key basis.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from keystrand.core.errors import PeerFault
from keystrand.qkd.choices import TEST_BASIS, Bits, ChoiceStream
from keystrand.qkd.distill.estimate import Counts
from keystrand.qkd.distill.packed import Words, from_bytes, to_bytes, words_for
from keystrand.qkd.kernels import sift as kernel
from keystrand.qkd.optics import Clicks
from keystrand.qkd.profile import Source
from keystrand.wire.classical import Detections, Sifting


def pack(bits: Bits) -> bytes:
    """0/1 values as bytes, the first in the highest bit."""
    return np.packbits(bits).tobytes()


def unpack(packed: bytes, count: int, *, what: str) -> Bits:
    """`count` values of 0/1. Raises PeerFault unless the length is exact and the padding zero."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    if len(packed) != -(-count // 8) or bits[count:].any():
        raise PeerFault(f"{what}: {len(packed)} bytes do not hold {count} bits")
    return bits[:count]


@dataclass(frozen=True, slots=True)
class Sifted:
    """Clicks in matching bases, in order: `streams` of packed bits, rows as kernels/sift.py names them: own bit, whether it
    came of weak light or of vacuum, basis, and (test basis only) whether the ends differ."""

    size: int
    streams: Words

    @classmethod
    def of(cls, bits: Bits, bases: Bits, intensities: Bits, errors: Bits) -> Self:
        """Pack arrays of equal length, one value a click; intensities: 0, 1 or 2."""
        rows = (bits, intensities & 1, intensities >> 1, bases, errors)
        return cls(bits.size, np.stack([from_bytes(np.packbits(row, bitorder="little").tobytes()) for row in rows]))

    @property
    def key_bits(self) -> int:
        """Clicks in the key basis."""
        return self.size - int(np.bitwise_count(self.streams[kernel.BASES]).sum())


def announce(first: int, count: int, clicks: Clicks) -> Detections:
    """What the receiver says of one train. Bits of the test basis never become key, so they are told at once."""
    return Detections(
        first=first,
        count=count,
        offsets=(clicks.indices - first).astype("<u4").tobytes(),
        bases=pack(clicks.bases),
        test_bits=pack(clicks.bits[clicks.bases == TEST_BASIS]),
    )


def _offsets(detections: Detections) -> NDArray[np.int64]:
    if len(detections.offsets) % 4:
        raise PeerFault("detections are cut off")
    offsets = np.frombuffer(detections.offsets, "<u4").astype(np.int64)
    if offsets.size and (np.any(np.diff(offsets) <= 0) or offsets[-1] >= detections.count):
        raise PeerFault("detections are out of order or outside their train")
    return offsets


def match(detections: Detections, stream: ChoiceStream) -> tuple[Sifting, Sifted]:
    """The transmitter's answer, and what it keeps. Raises PeerFault for detections that cannot be."""
    offsets = _offsets(detections)
    bases = unpack(detections.bases, offsets.size, what="bases")
    theirs = np.zeros(offsets.size, np.uint8)
    theirs[bases == TEST_BASIS] = unpack(
        detections.test_bits, int(np.count_nonzero(bases == TEST_BASIS)), what="test bits"
    )
    sent = stream.at(detections.first + offsets)
    same = sent.bases == bases
    test = bases[same] == TEST_BASIS
    errors = np.where(test, theirs[same] ^ sent.bits[same], 0).astype(np.uint8)
    kept, intensities = sent.bits[same], sent.intensities[same]
    sifted = Sifted.of(kept, bases[same], intensities, errors)
    answer = Sifting(
        first=detections.first,
        matches=pack(same.astype(np.uint8)),
        intensities=_told(intensities, stream.levels),
        test_bits=pack(kept[test]),
    )
    return answer, sifted


def _told(intensities: Bits, levels: int) -> bytes:
    """One bit a click tells decoys from signals, one more what of these is vacuum."""
    planes = [(intensities >= level).astype(np.uint8) for level in range(1, levels)]
    return b"".join(pack(plane) for plane in planes)


def _heard(packed: bytes, count: int, levels: int) -> Bits:
    width = -(-count // 8)
    if len(packed) != width * (levels - 1):
        raise PeerFault(f"intensities: {len(packed)} bytes for {count} clicks of {levels} intensities")
    planes = [unpack(packed[k * width : (k + 1) * width], count, what="intensities") for k in range(levels - 1)]
    if any((after > before).any() for before, after in pairwise(planes)):
        raise PeerFault("intensities that there are not")
    intensities: Bits = np.sum(planes, axis=0, dtype=np.uint8)
    return intensities


def conclude(clicks: Clicks, sifting: Sifting, *, levels: int) -> Sifted:
    """What the receiver keeps of its clicks; `levels`: intensities of the source.

    Raises PeerFault for an answer that does not fit them.
    """
    same = unpack(sifting.matches, clicks.indices.size, what="matches") == 1
    bits, bases = clicks.bits[same], clicks.bases[same]
    intensities = _heard(sifting.intensities, bits.size, levels)
    test = bases == TEST_BASIS
    errors = np.zeros(bits.size, np.uint8)
    errors[test] = unpack(sifting.test_bits, int(np.count_nonzero(test)), what="test bits") ^ bits[test]
    return Sifted.of(bits, bases, intensities, errors)


@dataclass(frozen=True, slots=True)
class RawBlock:
    """One block before error correction: bits of the key basis, which of them came of weak pulses and which of vacuum (two
    streams of packed bits), counts of both bases by intensity."""

    bits: Bits
    kinds: Words
    key: tuple[int, ...]
    test: tuple[int, ...]
    test_errors: tuple[int, ...]

    @property
    def qber_test(self) -> float:
        return sum(self.test_errors) / sum(self.test) if sum(self.test) else 0.5

    def counts(self, source: Source, key_errors: tuple[int, ...]) -> Counts:
        """All counts of the block. Raises ValueError where there are more errors than bits, or of more intensities."""
        return Counts(
            intensities=source.intensities,
            shares=source.shares,
            key=self.key,
            key_errors=key_errors,
            test=self.test,
            test_errors=self.test_errors,
        )

    def errors(self, corrected: Bits) -> tuple[int, ...]:
        """How many bits were corrected, by intensity."""
        wrong = from_bytes(np.packbits(self.bits ^ corrected, bitorder="little").tobytes())[: self.kinds.shape[1]]
        by_level = [int(np.bitwise_count(wrong & kind).sum()) for kind in self.kinds[: len(self.key) - 1]]
        return (int(np.bitwise_count(wrong).sum()) - sum(by_level), *by_level)


@dataclass(slots=True)
class SiftedBuffer:
    """Sifted clicks that wait until they fill a block, train by train; `levels`: intensities of the source."""

    levels: int
    key_bits: int = 0
    end_pulse: int = 0  # where the last block ended, within its train by the share of the clicks that it took
    _parts: deque[tuple[Sifted, int]] = field(default_factory=deque)
    _used: int = 0  # clicks of the first part

    def add(self, sifted: Sifted, end_pulse: int) -> None:
        """The clicks of a train that ends before `end_pulse`."""
        self._parts.append((sifted, end_pulse))
        self.key_bits += sifted.key_bits

    def cut(self, size_bits: int) -> RawBlock:
        """Exactly `size_bits` bits of the key basis, as the proofs want it, and the test clicks that lie between them."""
        assert self.key_bits >= size_bits > 0
        key = np.zeros((3, words_for(size_bits) + 1), np.uint64)
        filled, seen = 0, np.zeros((3, 3), np.int64)
        while filled < size_bits:
            part, end = self._parts[0]
            before, size = self._used, part.size
            filled, self._used = kernel.divide(part.streams, size, before, key, filled, size_bits, seen)
            if self._used == size:
                self.end_pulse, self._used = end, 0
                self._parts.popleft()
            else:
                self.end_pulse += (end - self.end_pulse) * (self._used - before) // (size - before)
        self.key_bits -= size_bits
        counts = [tuple(row[: self.levels]) for row in seen.tolist()]
        packed = np.frombuffer(to_bytes(key[kernel.BITS], size_bits), np.uint8)
        return RawBlock(np.unpackbits(packed, count=size_bits, bitorder="little"), key[kernel.WEAK :], *counts)
