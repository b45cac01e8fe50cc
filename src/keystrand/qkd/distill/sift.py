"""Sifting: which clicks were measured in the basis that they were sent in, and the counts that follow.

The receiver announces where it clicked and in which basis, with its bits of the test basis; the transmitter answers which
match, at which intensity, with hers of the test basis. Both then hold the same `Sifted` but for the bits of the key basis.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from keystrand.core.errors import PeerFault
from keystrand.qkd.choices import KEY_BASIS, TEST_BASIS, Bits, ChoiceStream
from keystrand.qkd.distill.estimate import Counts
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
    """Clicks in matching bases, in order: own bit, basis, intensity, and (test basis only) whether the ends differ."""

    bits: Bits
    bases: Bits
    intensities: Bits
    errors: Bits

    def part(self, start: int | None, stop: int | None) -> Sifted:
        cut = slice(start, stop)
        return Sifted(self.bits[cut], self.bases[cut], self.intensities[cut], self.errors[cut])


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
    sifted = Sifted(sent.bits[same], bases[same], sent.intensities[same], errors)
    answer = Sifting(
        first=detections.first,
        matches=pack(same.astype(np.uint8)),
        intensities=pack(sifted.intensities),
        test_bits=pack(sifted.bits[test]),
    )
    return answer, sifted


def conclude(clicks: Clicks, sifting: Sifting) -> Sifted:
    """What the receiver keeps of its clicks. Raises PeerFault for an answer that does not fit them."""
    same = unpack(sifting.matches, clicks.indices.size, what="matches") == 1
    bits, bases = clicks.bits[same], clicks.bases[same]
    intensities = unpack(sifting.intensities, bits.size, what="intensities")
    test = bases == TEST_BASIS
    errors = np.zeros(bits.size, np.uint8)
    errors[test] = unpack(sifting.test_bits, int(np.count_nonzero(test)), what="test bits") ^ bits[test]
    return Sifted(bits, bases, intensities, errors)


@dataclass(frozen=True, slots=True)
class RawBlock:
    """One block before error correction: bits and intensities of the key basis, counts by intensity of the test basis."""

    bits: Bits
    intensities: Bits
    test: tuple[int, int]
    test_errors: tuple[int, int]

    @property
    def qber_test(self) -> float:
        return sum(self.test_errors) / sum(self.test) if sum(self.test) else 0.5

    def counts(self, source: Source, key_errors: tuple[int, int]) -> Counts:
        """All counts of the block. Raises ValueError where there are more errors than bits."""
        decoys = int(np.count_nonzero(self.intensities))
        return Counts(
            intensities=(source.mu, source.nu),
            shares=(source.p_mu, 1 - source.p_mu),
            key=(self.bits.size - decoys, decoys),
            key_errors=key_errors,
            test=self.test,
            test_errors=self.test_errors,
        )


@dataclass(slots=True)
class SiftedBuffer:
    """Sifted clicks that wait until they fill a block, train by train."""

    key_bits: int = 0
    end_pulse: int = 0  # where the last block ended, within its train by the share of the clicks that it took
    _parts: deque[tuple[Sifted, int]] = field(default_factory=deque)

    def add(self, sifted: Sifted, end_pulse: int) -> None:
        """The clicks of a train that ends before `end_pulse`."""
        self._parts.append((sifted, end_pulse))
        self.key_bits += _key_bits(sifted)

    def cut(self, size_bits: int) -> RawBlock:
        """Exactly `size_bits` bits of the key basis, as the proofs want it, and the test clicks that lie between them."""
        assert self.key_bits >= size_bits > 0
        key, decoys, seen = np.empty(size_bits, np.uint8), np.empty(size_bits, np.uint8), np.zeros((2, 2), np.int64)
        filled = 0
        while filled < size_bits:
            part, end = self._parts.popleft()
            clicks = (part.bits, part.bases, part.intensities, part.errors)
            filled, used = kernel.divide(*clicks, key, decoys, filled, seen)
            whole = used == part.bits.size
            self.end_pulse = end if whole else self.end_pulse + (end - self.end_pulse) * int(used) // part.bits.size
        if used < part.bits.size:
            self._parts.appendleft((part.part(used, None), end))
        self.key_bits -= size_bits
        (signals, weak), (wrong, wrong_weak) = seen.tolist()
        return RawBlock(key, decoys, (signals, weak), (wrong, wrong_weak))


def _key_bits(sifted: Sifted) -> int:
    return int(np.count_nonzero(sifted.bases == KEY_BASIS))


def _by_intensity(which: Bits, intensities: Bits) -> tuple[int, int]:
    """How many are set, of signal and of decoy pulses."""
    both = int(np.count_nonzero(which))
    decoys = int(np.count_nonzero(which.view(np.uint8) & intensities))
    return both - decoys, decoys


def errors_by_intensity(before: Bits, after: Bits, intensities: Bits) -> tuple[int, int]:
    """How many bits of a block were corrected, of signal and of decoy pulses."""
    return _by_intensity(before ^ after, intensities)
