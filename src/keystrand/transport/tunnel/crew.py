"""Tunnels that one process steers: each by itself, so that a fault of one does not reach the others; and their sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from keystrand.core.errors import KeystrandError
from keystrand.core.events import Event
from keystrand.transport.tunnel.runner import Runner

AGAIN_S: Final = 2.0  # doubled after each fault, up to AGAIN_MAX_S
AGAIN_MAX_S: Final = 60.0
LOOK_S: Final = 1.0


@dataclass
class Crew:
    """makings: a fresh runner of each tunnel. sentinel: words for `keystrand`, which outlives us, and knows that by the end of
    its standard input; none: nobody watches."""

    makings: Sequence[Callable[[], Runner]]
    sentinel: list[str]

    async def run(self) -> None:
        """Until cancelled. With one tunnel alone its fault ends it: whoever started it decides."""
        async with self._watched():
            if len(self.makings) == 1:
                await self.makings[0]().run()
                return
            async with asyncio.TaskGroup() as tasks:
                for making in self.makings:
                    tasks.create_task(self._keep(making))

    async def _keep(self, making: Callable[[], Runner]) -> None:
        pause_s = AGAIN_S
        while True:
            runner = making()
            try:
                await runner.run()
            except* (KeystrandError, OSError) as faults:
                reason = "; ".join(str(fault) for fault in faults.exceptions)
                fields = {"tunnel": runner.place.tunnel, "reason": f"{reason}; again in {pause_s:g} s"[:300]}
                runner.sink.emit(Event("tunnel.fault", runner.clock.now_s(), fields))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_MAX_S)

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        watching = asyncio.get_running_loop().create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        """A sentinel stands, always; what ended it does not matter."""
        while self.sentinel:
            program = self._start()
            try:
                while program.poll() is None:
                    await asyncio.sleep(LOOK_S)
            finally:
                assert program.stdin is not None
                program.stdin.close()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "keystrand", *self.sentinel], stdin=subprocess.PIPE, start_new_session=True
        )
