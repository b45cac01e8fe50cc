"""How bad the world is: rates of every fault, drawn once per seed so that some seeds are calm and some are hell."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Probabilities per message, per operation or per block; mean times in seconds. 0 switches a fault off."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_s: float = 0.02
    crash_per_operation: float = 0.0  # half of them before the commit, half after it
    crash_every_s: float = 0.0
    down_s: float = 5.0
    partition_every_s: float = 0.0
    partition_s: float = 20.0
    disk_full_per_commit: float = 0.0
    restore_every_s: float = 0.0
    clock_jump_every_s: float = 0.0
    block_one_end: float = 0.0
    block_corrupt: float = 0.0
    block_repeat: float = 0.0

    @classmethod
    def drawn(cls, rng: random.Random) -> Faults:
        """A mix for one seed: each fault is absent, rare or frequent."""

        def pick(*choices: float) -> float:
            return rng.choice(choices)

        return cls(
            loss=pick(0.0, 0.01, 0.1, 0.3),
            duplicate=pick(0.0, 0.01, 0.1),
            delay_s=pick(0.005, 0.05, 0.5),
            crash_per_operation=pick(0.0, 0.0005, 0.003),
            crash_every_s=pick(0.0, 900.0, 300.0),
            down_s=pick(1.0, 30.0),
            partition_every_s=pick(0.0, 600.0, 200.0),
            partition_s=pick(3.0, 60.0),
            disk_full_per_commit=pick(0.0, 0.001),
            restore_every_s=pick(0.0, 0.0, 1200.0),
            clock_jump_every_s=pick(0.0, 0.0, 700.0),
            block_one_end=pick(0.0, 0.05),
            block_corrupt=pick(0.0, 0.03),
            block_repeat=pick(0.0, 0.1),
        )
