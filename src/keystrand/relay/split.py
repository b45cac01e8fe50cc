"""A block in parts: fewer than `needed` of them say nothing about it, `needed` give it back.

All of them needed: random strings whose exclusive or is the block. Otherwise shares after Shamir (CACM 22(11), 1979). Either is
secret without any assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from keystrand.core.errors import PeerFault
from keystrand.core.secret import Secret
from keystrand.crypto import field

PARTS_MAX: Final = 16


def split(block: Secret, needed: int, count: int, *, entropy: Callable[[int], bytes]) -> tuple[Secret, ...]:
    """Parts 1, 2, … of the block, each as long as it is. Raises ValueError unless 1 <= needed <= count <= PARTS_MAX."""
    if not 1 <= needed <= count <= PARTS_MAX:
        raise ValueError(f"{needed} of {count} parts cannot be")
    material, length = block.reveal(), len(block)
    if needed == count:
        masks = [entropy(length) for _ in range(count - 1)]
        return tuple(map(Secret, [*masks, field.add((material, *masks), length)]))
    coefficients = [material, *(entropy(length) for _ in range(needed - 1))]
    return tuple(Secret(field.evaluate(coefficients, x)) for x in range(1, count + 1))


def join(parts: Mapping[int, Secret], needed: int, count: int) -> Secret:
    """The block of which these are parts. Raises PeerFault where they are too few, or not of one length."""
    chosen = sorted(parts.items())[:needed]
    if len(chosen) < needed or len({len(part) for _, part in chosen}) != 1:
        raise PeerFault("these parts make no block")
    points = [(index, part.reveal()) for index, part in chosen]
    if needed == count:
        return Secret(field.add((values for _, values in points), len(points[0][1])))
    return Secret(field.interpolate(points))
