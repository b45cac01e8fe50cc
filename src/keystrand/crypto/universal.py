"""The polynomial hash inside Poly1305 without its pad: almost universal, and fast on any processor."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.poly1305 import Poly1305

KEY_BYTES: Final = 16


def polynomial_hash(message: bytes, *, key: bytes) -> bytes:
    """16 bytes of the polynomial whose coefficients are `message`, at the point `key` (clamped, RFC 8439 2.5)."""
    assert len(key) == KEY_BYTES
    return Poly1305.generate_tag(key + bytes(16), message)


def polynomial_collision_bound(length_bytes: int) -> float:
    """Chance over the key that two different messages of at most this length collide (Bernstein, FSE 2005, 3.3)."""
    return float(8 * -(-length_bytes // 16)) * 2.0**-106
