"""Bits in machine words: sifted bits bit-sliced over frames, and streams of bits as bytes on the wire."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]
Words = NDArray[np.uint64]

LANES = 64


def lanes_of(frames: int) -> Words:
    """Which frames exist in each group of 64: uint64 (groups,)."""
    sizes = [min(LANES, frames - start) for start in range(0, frames, LANES)]
    return np.array([(1 << size) - 1 for size in sizes], np.uint64)


def words_for(count_bits: int) -> int:
    """Machine words that hold so many bits."""
    return -(-count_bits // 64)


def to_bytes(stream: Words, count_bits: int) -> bytes:
    """The first `count_bits` of a stream, the first in the lowest bit; all after them are 0."""
    return stream.astype("<u8", copy=False).tobytes()[: -(-count_bits // 8)]


def from_bytes(packed: bytes) -> Words:
    """The inverse, with a word to spare, so that readers may look one word ahead."""
    stream = np.zeros(len(packed) // 8 + 2, np.uint64)
    stream.view(np.uint8)[: len(packed)] = np.frombuffer(packed, np.uint8)
    return stream if np.little_endian else stream.byteswap()


def weave(bits: Bits, frames: int, frame_bits: int) -> Words:
    """Bit-slice over frames: uint64 (groups, frame_bits) of `bits` (0/1, at most frames * frame_bits; zeros follow).

    Within a group of up to 64 frames, each run of as many bits gives one to every frame.
    """
    rows = []
    for start in range(0, frames, LANES):
        lanes = min(LANES, frames - start)
        part = bits[start * frame_bits : (start + lanes) * frame_bits]
        rows.append(_slice(part, lanes, frame_bits))
    return np.stack(rows)


def _slice(bits: Bits, lanes: int, frame_bits: int) -> Words:
    width = -(-lanes // 8)
    if bits.size == LANES * frame_bits:
        packed = np.packbits(bits, bitorder="little").reshape(frame_bits, width)
    else:
        square = np.zeros(lanes * frame_bits, np.uint8)
        square[: bits.size] = bits
        packed = np.packbits(square.reshape(frame_bits, lanes), axis=1, bitorder="little")
    full = np.zeros((frame_bits, 8), np.uint8)
    full[:, :width] = packed
    return full.view("<u8").astype(np.uint64, copy=False).reshape(frame_bits)


def unweave(words: Words, frames: int) -> Bits:
    """The inverse of `weave`: uint8 of 0/1, frames * frame_bits of them."""
    parts = []
    for group, row in enumerate(words):
        lanes = min(LANES, frames - LANES * group)
        columns = np.unpackbits(row.astype("<u8", copy=False).view(np.uint8), bitorder="little").reshape(
            row.size, LANES
        )
        parts.append(columns[:, :lanes].reshape(-1))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
