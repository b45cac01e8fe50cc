"""Privacy amplification by a Toeplitz matrix: a 2-universal hash down to the bits of which nobody else knows anything.

out[i] = XOR over j of seed[i - j + n - 1] AND bits[j], with n bits in, m out and n + m - 1 public random seed bits chosen
after the bits are fixed. The sum is one convolution, taken by FFT in double precision. Its result is a vector of integers
known to be such, so the distance to the nearest integer measures the error made: beyond RESIDUE_MAX it is refused.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from keystrand.core.secret import Secret

RESIDUE_MAX: Final = 0.1  # of 0.5, where rounding would go wrong; 1e-9 is usual at 1e7 bits


def seed_bytes(n_bits: int, m_bits: int) -> int:
    """Bytes of public seed that hashing n_bits to m_bits takes."""
    return -(-(n_bits + m_bits - 1) // 8)


def amplify(bits: NDArray[np.uint8], *, seed: bytes, length_bits: int) -> Secret:
    """Hash `bits` (uint8 of 0/1) down to `length_bits`, a multiple of 8 not above their number.

    Raises ValueError for another length, or for a seed that has not exactly seed_bytes(n, m) bytes.
    """
    if not 0 < length_bits <= bits.size or length_bits % 8:
        raise ValueError(f"length_bits={length_bits} is not a multiple of 8 in 8 .. {bits.size}")
    if len(seed) != seed_bytes(bits.size, length_bits):
        raise ValueError(f"the seed has {len(seed)} bytes, not {seed_bytes(bits.size, length_bits)}")
    diagonals = np.unpackbits(np.frombuffer(seed, np.uint8), count=bits.size + length_bits - 1)
    return Secret(np.packbits(toeplitz(bits, diagonals)).tobytes())


def toeplitz(bits: NDArray[np.uint8], diagonals: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The Toeplitz product over GF(2): uint8 (n,) and (n + m - 1,) -> (m,)."""
    # Entries n-1 .. n+m-2 of the product are wanted; a cyclic convolution this long folds only others over.
    size = smooth(diagonals.size)
    spectrum = np.fft.rfft(bits.astype(np.float64), size)
    spectrum *= np.fft.rfft(diagonals.astype(np.float64), size)
    sums = np.fft.irfft(spectrum, size)[bits.size - 1 : diagonals.size]
    counts = np.rint(sums)
    if np.abs(sums - counts).max() > RESIDUE_MAX:
        raise ArithmeticError(f"FFT of {size} points is too coarse for an exact hash")
    return (counts.astype(np.int64) & 1).astype(np.uint8)


def smooth(least: int) -> int:
    """The smallest number from `least` on without a prime factor above 5, for which FFTs are fast."""
    best = 1 << (least - 1).bit_length()
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            quotient = -(-least // threes)
            best = min(best, threes << (quotient - 1).bit_length())
            threes *= 3
        fives *= 5
    return best
