"""How long each stage of distillation takes at one end: processor work, not waiting for the other end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

STAGES: Final = ("sift", "reconcile", "verify", "amplify", "authenticate")


@dataclass(slots=True)
class Stages:
    """Seconds spent in each stage, and sifted bits that have gone through it."""

    now_s: Callable[[], float] = time.perf_counter
    spent_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    bits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))

    def of(self, stage: str, bits: int = 0) -> Span:
        """Count what is done inside, as work on so many bits that are through with it."""
        return Span(self, stage, bits)

    def mbps(self, stage: str) -> float:
        """Sifted Mbit per second of work in this stage; 0 before any."""
        spent_s = self.spent_s[stage]
        return self.bits[stage] / spent_s / 1e6 if spent_s > 0 else 0.0


class Span:
    """A piece of work on one stage. A class, as hundreds of round trips a block each pass through several."""

    __slots__ = ("_begun_s", "_bits", "_stage", "_stages")

    def __init__(self, stages: Stages, stage: str, bits: int) -> None:
        self._stages, self._stage, self._bits = stages, stage, bits
        self._begun_s = 0.0

    def __enter__(self) -> None:
        self._begun_s = self._stages.now_s()

    def __exit__(self, *_raised: object) -> None:
        self._stages.spent_s[self._stage] += self._stages.now_s() - self._begun_s
        self._stages.bits[self._stage] += self._bits
