"""The process of a site's tunnels: only it needs the rights to steer daemons. It is started again when it ends. A site that
is killed leaves it running: it goes on holding the tunnels to their policy."""

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
        pause_s = AGAIN_S
        while self._names:
            began_s = self._clock.monotonic_s()
            status = await self._once()
            if self._clock.monotonic_s() - began_s > STEADY_S:
                pause_s = AGAIN_S
            reason = f"the process ended with status {status}; again in {pause_s:g} s"
            fields = {"tunnel": ", ".join(self._names)[:200], "reason": reason}
            self._sink.emit(Event("tunnel.fault", self._clock.now_s(), fields))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_MAX_S)

    async def _once(self) -> int:
        words = ["-m", "keystrand", "tunnel", "run", *self._names, "--config", str(self._file)]
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
