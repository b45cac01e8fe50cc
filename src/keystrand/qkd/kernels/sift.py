"""Sifted clicks into the bits of a block and the counts of the other basis, in one walk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.kernels import kernel

Bits = NDArray[np.uint8]
Longs = NDArray[np.int64]


@kernel
def divide(
    bits: Bits, bases: Bits, intensities: Bits, errors: Bits, key: Bits, decoys: Bits, filled: int, seen: Longs
) -> tuple[int, int]:
    """Move clicks of the key basis (0) to key[filled:], their intensities to decoys[filled:], until these are full.

    seen (2, 2) counts clicks and errors of the test basis (1) by intensity. Returns the new `filled` and the clicks used.
    """
    for i in range(bits.size):
        if bases[i] == 0:
            key[filled] = bits[i]
            decoys[filled] = intensities[i]
            filled += 1
            if filled == key.size:
                return filled, i + 1
        else:
            seen[0, intensities[i]] += 1
            seen[1, intensities[i]] += errors[i]
    return filled, bits.size
