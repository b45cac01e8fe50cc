"""The field GF(2^8) with the polynomial of AES (FIPS 197, 4.2: x^8 + x^4 + x^3 + x + 1), on whole byte strings at a time.

A byte string is one long integer, so that a sum is one exclusive or and a doubling a handful of shifts and masks: no table and
no branch on its bytes, so that time and cache tell nothing of them, and a megabit takes milliseconds. Factors and points are
public; they may branch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

_REDUCTION: Final = 0x1B  # what x^8 stands for


def multiply(a: int, b: int) -> int:
    """a·b for two bytes."""
    return scale(bytes([a]), b)[0]


def invert(a: int) -> int:
    """1/a = a^254; 0 for 0."""
    power = a
    for _ in range(6):
        power = multiply(multiply(power, power), a)
    return multiply(power, power)


@cache
def _tops(length_bytes: int) -> int:
    return int.from_bytes(b"\x80" * length_bytes)


def scale(values: bytes, factor: int) -> bytes:
    """Each byte of `values` times the byte `factor`."""
    tops, power, product = _tops(len(values)), int.from_bytes(values), 0
    for bit in range(8):
        if factor >> bit & 1:
            product ^= power
        high = power & tops
        power = (power ^ high) << 1 ^ (high >> 7) * _REDUCTION
    return product.to_bytes(len(values))


def add(strings: Iterable[bytes], length_bytes: int) -> bytes:
    """The sum of byte strings of this length: their exclusive or."""
    total = 0
    for values in strings:
        assert len(values) == length_bytes
        total ^= int.from_bytes(values)
    return total.to_bytes(length_bytes)


def evaluate(coefficients: Sequence[bytes], x: int) -> bytes:
    """The polynomials with these coefficients (constant ones first, a polynomial per byte) at x."""
    values = bytes(len(coefficients[0]))
    for row in reversed(coefficients):
        values = add((scale(values, x), row), len(row))
    return values


def interpolate(points: Sequence[tuple[int, bytes]]) -> bytes:
    """The value at 0 of the polynomials of least degree through `points` (x, one byte per polynomial)."""
    parts = []
    for x, values in points:
        weight = 1
        for other, _ in points:
            if other != x:
                weight = multiply(weight, multiply(other, invert(other ^ x)))
        parts.append(scale(values, weight))
    return add(parts, len(points[0][1]))
