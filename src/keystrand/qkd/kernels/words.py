"""Bits of machine words: gather those under a mask, spread them again, and streams of bits packed into words.

Where the processor has PEXT and PDEP (BMI2) one instruction does it; elsewhere, and as plain Python, a loop over the
mask. A stream holds its first bit in the lowest bit of its first word; `place` is the number of bits before.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.kernels import has_feature, instruction, kernel

Words = NDArray[np.uint64]

ZERO: Final = np.uint64(0)
ONE: Final = np.uint64(1)


def _gather(word: Any, mask: Any) -> Any:
    """The bits of `word` under `mask`, moved together at the low end."""
    out, place = ZERO, ZERO
    while mask != ZERO:
        lowest = mask & (~mask + ONE)
        if word & lowest != ZERO:
            out |= ONE << place
        place += ONE
        mask ^= lowest
    return out


def _spread(bits: Any, mask: Any) -> Any:
    """The inverse of `gather`: the low bits of `bits` moved to the places under `mask`."""
    out = ZERO
    while mask != ZERO:
        lowest = mask & (~mask + ONE)
        if bits & ONE != ZERO:
            out |= lowest
        bits >>= ONE
        mask ^= lowest
    return out


def _count(word: Any) -> Any:
    """Ones in a word (Hacker's Delight, 5-1)."""
    word = word - ((word >> ONE) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    word = word + (word >> np.uint64(8))
    word = word + (word >> np.uint64(16))
    return np.int64((word + (word >> np.uint64(32))) & np.uint64(127))


if has_feature("bmi2"):
    _pext, _pdep = instruction("llvm.x86.bmi.pext.64", 2), instruction("llvm.x86.bmi.pdep.64", 2)

    @kernel
    def gather(word: Any, mask: Any) -> Any:
        return _pext(word, mask)

    @kernel
    def spread(bits: Any, mask: Any) -> Any:
        return _pdep(bits, mask)
else:
    gather, spread = kernel(_gather), kernel(_spread)


if has_feature():
    _ctpop = instruction("llvm.ctpop.i64", 1)

    @kernel
    def count(word: Any) -> Any:
        return np.int64(_ctpop(word))
else:
    count = kernel(_count)


@kernel
def write(stream: Words, place: int, bits: Any, number: int) -> int:
    """Append the `number` low bits of `bits`, all others of which are 0. Returns the new place."""
    word, shift = place >> 6, np.uint64(place & 63)
    stream[word] |= bits << shift
    if (place & 63) + number > 64:
        stream[word + 1] |= bits >> (np.uint64(64) - shift)
    return place + number


@kernel
def read(stream: Words, place: int, number: int) -> Any:
    """The next `number` bits (0 .. 64) in the low end of a word; what stands above them is not defined."""
    word, shift = place >> 6, np.uint64(place & 63)
    bits = stream[word] >> shift
    if (place & 63) + number > 64:
        bits |= stream[word + 1] << (np.uint64(64) - shift)
    return bits
