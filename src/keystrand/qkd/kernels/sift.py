"""Sifted clicks into the bits of a block and the counts that its bound needs, in one walk, 64 clicks at a time."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.kernels import kernel
from keystrand.qkd.kernels.words import ONE, count, gather, read, spread, write

Words = NDArray[np.uint64]
Longs = NDArray[np.int64]

BITS, WEAK, VACUUM, BASES, ERRORS = range(5)  # rows of `clicks`; a block has the first three
ALL: Final = np.uint64(2**64 - 1)


@kernel
def divide(clicks: Words, size: int, used: int, key: Words, filled: int, wanted: int, seen: Longs) -> tuple[int, int]:
    """Move clicks of the key basis (0) from place `used` on to place `filled` of a block, up to `wanted` of them in it.

    clicks (5, W): streams of `size` bits with a word to spare; weak and vacuum: whether a click came of intensity 1 or 2;
    errors: 0 in the key basis. key (3, W): zeros with a word to spare. seen (3, 3): clicks of the key basis, of the test
    basis, and errors of the latter, by intensity. Returns the new `filled` and `used`.
    """
    bits, weak, vacuum, bases, errors = clicks[0], clicks[1], clicks[2], clicks[3], clicks[4]
    key_bits, key_weak, key_vacuum = key[0], key[1], key[2]
    keys, tests, wrongs = (0, 0, 0), (0, 0, 0), (0, 0, 0)
    while used < size and filled < wanted:
        inside = ALL if size - used >= 64 else (ONE << np.uint64(size - used)) - ONE
        test = read(bases, used, 64) & inside
        taken = inside & ~test
        if filled + count(taken) >= wanted:  # up to the last bit that is wanted, and not the test clicks behind it
            taken = spread((ONE << np.uint64(wanted - filled)) - ONE if wanted - filled < 64 else ALL, taken)
            inside = up_to_highest(taken)
            test &= inside
        of_weak, of_vacuum, number = read(weak, used, 64), read(vacuum, used, 64), count(taken)
        write(key_bits, filled, gather(read(bits, used, 64), taken), number)
        write(key_weak, filled, gather(of_weak, taken), number)
        write(key_vacuum, filled, gather(of_vacuum, taken), number)
        keys = more(keys, taken, of_weak, of_vacuum)
        tests = more(tests, test, of_weak, of_vacuum)
        wrongs = more(wrongs, test & read(errors, used, 64), of_weak, of_vacuum)
        filled += number
        used += count(inside)
    for row, (signal, decoy, none) in enumerate((keys, tests, wrongs)):
        seen[row, 0] += signal - decoy - none
        seen[row, 1] += decoy
        seen[row, 2] += none
    return filled, used


@kernel
def up_to_highest(word: Any) -> Any:
    """Ones from the lowest place to the highest that is set."""
    for step in (1, 2, 4, 8, 16, 32):
        word |= word >> np.uint64(step)
    return word


@kernel
def more(counts: tuple[int, int, int], some: Any, weak: Any, vacuum: Any) -> tuple[int, int, int]:
    """Counts of clicks, and of those of them that came of weak light and of vacuum, with so many more."""
    return counts[0] + count(some), counts[1] + count(some & weak), counts[2] + count(some & vacuum)
