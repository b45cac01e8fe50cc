"""What neighbours say of the audit log, while the site is slow to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from keystrand.core.limits import Limits
from keystrand.crypto.sign import Signer
from keystrand.node.notary import ANSWERS_MAX, Notary
from keystrand.store.memory import MemoryStore
from keystrand.testing.clock import VirtualClock
from keystrand.testing.patience import until
from keystrand.testing.sinks import Ears
from keystrand.wire.peer import Checkpoint


class Slow:
    """An engine that has not come round to anything yet."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[Any]] = []

    def call(self, operation: Callable[..., Any]) -> asyncio.Future[Any]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]


async def test_a_flood_of_checkpoints_takes_a_bounded_place_and_no_other_neighbours() -> None:
    engine, signer = Slow(), Signer.generate("alpha")
    neighbours = {name: Signer.generate(name).verifier for name in ("bravo", "charlie")}
    notary = Notary("alpha", MemoryStore(), engine, signer, neighbours, VirtualClock(), Limits(), Ears())  # type: ignore[arg-type]
    told: list[object] = []
    for _ in range(1000):
        notary.hear("bravo", Checkpoint(note="n", first=0, digests=()), told.append)
    notary.hear("charlie", Checkpoint(note="n", first=0, digests=()), told.append)
    await asyncio.sleep(0)
    assert len(engine.waiting) == ANSWERS_MAX + 1
    for waiter in engine.waiting:
        waiter.set_result("cosigned")
    await until(lambda: len(told) > ANSWERS_MAX)
    assert told == ["cosigned"] * (ANSWERS_MAX + 1)
    notary.hear("bravo", Checkpoint(note="n", first=0, digests=()), told.append)
    await asyncio.sleep(0)
    assert len(engine.waiting) == ANSWERS_MAX + 2, "there is room again"
    engine.waiting[-1].set_result("cosigned")
    await asyncio.sleep(0.01)
