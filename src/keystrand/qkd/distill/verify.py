"""Verification: both ends compare a short hash of what they hold, so that a residual error never becomes key.

The hash is almost universal: a polynomial over a prime field (crypto/universal.py) brings the bits down to two 64-bit
halves, an inner product over GF(2^64) brings these to 64 bits. The seed is public; it must be fresh and chosen after the
bits are fixed, or the bound below means nothing. The tag discloses TAG_BITS bits, which the caller counts as leaked.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from keystrand.crypto.universal import KEY_BYTES, polynomial_collision_bound, polynomial_hash

TAG_BYTES: Final = 8
TAG_BITS: Final = 8 * TAG_BYTES
SEED_BYTES: Final = KEY_BYTES + 2 * TAG_BYTES
LENGTH_BYTES: Final = 8
REDUCTION: Final = 0b11011  # x^64 + x^4 + x^3 + x + 1


def tag(bits: NDArray[np.uint8], *, seed: bytes) -> bytes:
    """The 8-byte tag of `bits` (uint8 of 0/1) under a seed of SEED_BYTES bytes; ValueError for another length."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a verification seed has {SEED_BYTES} bytes, not {len(seed)}")
    message = bits.size.to_bytes(LENGTH_BYTES, "big") + np.packbits(bits).tobytes()
    digest = polynomial_hash(message, key=seed[:KEY_BYTES])
    factors = seed[KEY_BYTES:]
    halves = zip(_words(digest), _words(factors), strict=True)
    low, high = (_multiply(half, factor) for half, factor in halves)
    return (low ^ high).to_bytes(TAG_BYTES, "big")


def collision_bound(n_bits: int) -> float:
    """Chance over the seed that two different strings of n_bits bits have the same tag (its share of eps_cor)."""
    return 2.0**-TAG_BITS + polynomial_collision_bound(LENGTH_BYTES + -(-n_bits // 8))


def _words(pair: bytes) -> tuple[int, int]:
    return int.from_bytes(pair[:TAG_BYTES], "big"), int.from_bytes(pair[TAG_BYTES:], "big")


def _multiply(a: int, b: int) -> int:
    """Product in GF(2^64)."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a >> TAG_BITS:
            a ^= 1 << TAG_BITS | REDUCTION
        b >>= 1
    return product
