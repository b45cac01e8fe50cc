"""The processes of a site's tunnels: one each, so that only they need the rights to steer daemons, started again when
they end. A site that is killed leaves them running: they go on holding the tunnel to its policy."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Final

from keystrand.config.schema import SiteConfig
from keystrand.core.clock import Clock
from keystrand.core.events import Event, Sink

AGAIN_S: Final = 1.0  # doubled after each end, up to AGAIN_MAX_S
AGAIN_MAX_S: Final = 30.0
STEADY_S: Final = 60.0
STOP_S: Final = 5.0


class TunnelPrograms:
    """Those that `keystrand serve` starts."""

    def __init__(self, config: SiteConfig, file: Path, clock: Clock, sink: Sink) -> None:
        self._names = [name for name, tunnel in config.tunnel.items() if tunnel.start == "serve"]
        self._file, self._clock, self._sink = file, clock, sink

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._names:
                tasks.create_task(self._keep(name))

    async def _keep(self, name: str) -> None:
        pause_s = AGAIN_S
        while True:
            began_s = self._clock.monotonic_s()
            status = await self._once(name)
            if self._clock.monotonic_s() - began_s > STEADY_S:
                pause_s = AGAIN_S
            reason = f"its process ended with status {status}; again in {pause_s:g} s"
            self._sink.emit(Event("tunnel.fault", self._clock.now_s(), {"tunnel": name, "reason": reason}))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_MAX_S)

    async def _once(self, name: str) -> int:
        words = ["-m", "keystrand", "tunnel", "run", name, "--config", str(self._file)]
        program = await asyncio.create_subprocess_exec(sys.executable, *words, stdin=asyncio.subprocess.DEVNULL)
        try:
            return await program.wait()
        finally:
            if program.returncode is None:
                await _end(program)


async def _end(program: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        program.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await program.wait()
        except TimeoutError:
            program.kill()
