"""One event loop for a long-running program: uvloop, and an orderly end on SIGTERM and Ctrl-C."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Final

PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def run_until_stopped(work: Coroutine[Any, Any, None], *, holds_pools: bool = False) -> None:
    """Run `work` until it ends or the system asks it to; it is cancelled then, and may take its time to clean up.

    holds_pools: it has the keys of many, so that no program of the same user may look into it, either.
    """
    import uvloop

    leave_no_core(holds_pools)
    gc.freeze()  # what was imported stays; a server need not look through it again and again
    gc.set_threshold(20_000, 50, 100)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_stoppable(work))


def leave_no_core(holds_pools: bool) -> None:
    """A crash writes no memory to a disk: there are keys in it (I12)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if holds_pools and sys.platform == "linux":  # the limit does not bind a collector that core_pattern pipes to
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


async def _stoppable(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise
