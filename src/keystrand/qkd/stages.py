"""How long each stage of distillation takes at one end: processor work, not waiting for the other end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

STAGES: Final = ("sift", "reconcile", "verify", "amplify", "authenticate")


@dataclass(slots=True)
class Stages:
    """Seconds spent in each stage, and sifted bits that have gone through it."""

    now_s: Callable[[], float] = time.perf_counter
    spent_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    bits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))

    @contextmanager
    def of(self, stage: str, bits: int = 0) -> Iterator[None]:
        """Count what is done inside, as work on so many bits that are through with it."""
        begun_s = self.now_s()
        try:
            yield
        finally:
            self.spent_s[stage] += self.now_s() - begun_s
            self.bits[stage] += bits

    def mbps(self, stage: str) -> float:
        """Sifted Mbit per second of work in this stage; 0 before any."""
        spent_s = self.spent_s[stage]
        return self.bits[stage] / spent_s / 1e6 if spent_s > 0 else 0.0
