"""Sifted clicks into the bits of a block and the counts that its bound needs, in one walk, eight clicks at a time."""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.kernels import kernel
from keystrand.qkd.kernels.words import ONE, count, gather, write

Bits = NDArray[np.uint8]
Longs = NDArray[np.int64]

LITTLE: Final = sys.byteorder == "little"  # else the first click of a word is its highest byte, and all go one by one
LOWEST: Final = np.uint64(0x0101010101010101)
BYTE: Final = np.uint64(0xFF)
KEY, TEST, ERRORS = range(3)  # rows of `seen`


@kernel
def divide(
    bits: Bits,
    bases: Bits,
    intensities: Bits,
    errors: Bits,
    used: int,
    key: Bits,
    kinds: Bits,
    filled: int,
    size: int,
    seen: Longs,
) -> tuple[int, int]:
    """Move clicks of the key basis (0) from `used` on to key[filled:], their intensities (0, 1, 2) to kinds[filled:], up to
    `size` of them. key, kinds: zeros, room for `size` and a multiple of 8.

    seen (3, 3): clicks of the key basis, of the test basis (1), and errors of the latter, by intensity. errors: 0 in the key
    basis. Returns the new `filled` and `used`.
    """
    while used < bits.size and filled < size:
        if LITTLE and used % 8 == 0:
            filled, used = by_eight(bits, bases, intensities, errors, used, key, kinds, filled, size, seen)
        if used == bits.size or filled == size:
            break
        kind = intensities[used]
        if bases[used] == 0:
            key[filled], kinds[filled] = bits[used], kind
            filled += 1
            seen[KEY, kind] += 1
        else:
            seen[TEST, kind] += 1
            seen[ERRORS, kind] += errors[used]
        used += 1
    return filled, used


@kernel
def by_eight(
    bits: Bits,
    bases: Bits,
    intensities: Bits,
    errors: Bits,
    used: int,
    key: Bits,
    kinds: Bits,
    filled: int,
    size: int,
    seen: Longs,
) -> tuple[int, int]:
    """As much of `divide` as goes by whole words, from a word's first click on."""
    whole = bits.size - bits.size % 8
    bits8, bases8 = bits[:whole].view(np.uint64), bases[:whole].view(np.uint64)
    intensities8, errors8 = intensities[:whole].view(np.uint64), errors[:whole].view(np.uint64)
    key8, kinds8 = key.view(np.uint64), kinds.view(np.uint64)
    weak = vacuum = test = test_weak = test_vacuum = wrong = wrong_weak = wrong_vacuum = 0  # in registers
    begun, at = filled, used >> 3
    while at < bits8.size and filled + 8 <= size:
        other, kind = bases8[at], intensities8[at]
        taken, none = other ^ LOWEST, kind >> ONE
        number, mask = count(taken), taken * BYTE
        write(key8, 8 * filled, gather(bits8[at], mask), 8 * number)
        write(kinds8, 8 * filled, gather(kind, mask), 8 * number)
        weak, vacuum = weak + count(taken & kind), vacuum + count(taken & none)
        test, test_weak, test_vacuum = (
            test + count(other),
            test_weak + count(other & kind),
            test_vacuum + count(other & none),
        )
        other = errors8[at]
        wrong, wrong_weak, wrong_vacuum = (
            wrong + count(other),
            wrong_weak + count(other & kind),
            wrong_vacuum + count(other & none),
        )
        filled += number
        at += 1
    add(seen, KEY, filled - begun, weak, vacuum)
    add(seen, TEST, test, test_weak, test_vacuum)
    add(seen, ERRORS, wrong, wrong_weak, wrong_vacuum)
    return filled, 8 * at


@kernel
def add(seen: Longs, row: int, total: int, weak: int, vacuum: int) -> None:
    """To a row of counts by intensity."""
    seen[row, 0] += total - weak - vacuum
    seen[row, 1] += weak
    seen[row, 2] += vacuum
