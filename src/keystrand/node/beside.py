"""Jobs of a site that wait for others, so that they run beside the engine: named and counted as those in kme.jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

from keystrand.core.clock import Clock
from keystrand.core.errors import KeystrandError
from keystrand.core.events import Event, Sink
from keystrand.kme.jobs import JobStatus
from keystrand.node.engine import Engine


class Part(Protocol):
    """What of a site has such a job."""

    job: Beside

    async def run(self, engine: Engine, /) -> None: ...


class Beside:
    """One such job. work: does it, and says how many items it dealt with; what it raises is said once and tried again.

    period_s: between two runs; sooner when somebody calls `wake`. The pause doubles after a failure, up to pause_s_max.
    """

    def __init__(
        self,
        name: str,
        period_s: float,
        work: Callable[[], Awaitable[int]],
        clock: Clock,
        sink: Sink,
        *,
        retry_s: float = 1.0,
        retry_s_max: float = 60.0,
    ) -> None:
        self.status = JobStatus(name, period_s)
        self._work = work
        self._clock = clock
        self._sink = sink
        self._retry_s, self._retry_s_max = retry_s, retry_s_max
        self._failures = 0
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Run as soon as may be."""
        self._awake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.once()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._awake.wait()

    def _pause_s(self) -> float:
        if not self._failures:
            return self.status.period_s
        return min(self._retry_s * 2.0 ** min(self._failures - 1, 10), self._retry_s_max)

    async def once(self) -> None:
        self._awake.clear()
        status = self.status
        status.runs += 1
        status.last_run_s = self._clock.now_s()
        try:
            status.items += await self._work()
        except KeystrandError as error:
            self._failures += 1
            if not status.last_error:
                fields = {"job": status.name, "reason": str(error)}
                self._sink.emit(Event("job.failed", self._clock.now_s(), fields))
            status.last_error = str(error)
        else:
            self._failures, status.last_error = 0, ""
