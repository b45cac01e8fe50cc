"""Virtual time and seeded randomness."""

from __future__ import annotations

import random

EPOCH_S = 1_800_000_000.0  # where virtual Unix time begins


class VirtualClock:
    """A clock that stands until it is moved. `skew_s` lets the wall clock jump while monotonic time does not."""

    def __init__(self) -> None:
        self._elapsed_s = 0.0
        self.skew_s = 0.0

    def now_s(self) -> float:
        return EPOCH_S + self._elapsed_s + self.skew_s

    def monotonic_s(self) -> float:
        return self._elapsed_s

    def move_to(self, elapsed_s: float) -> None:
        assert elapsed_s >= self._elapsed_s
        self._elapsed_s = elapsed_s


class SeededEntropy:
    """Random bytes from a seed: for tests only, never for keys."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)  # noqa: S311

    def bytes(self, length: int, /) -> bytes:
        return self._random.randbytes(length)
