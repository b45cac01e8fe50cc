"""Wait until something holds, not for a time: a slow machine takes longer and fails nothing, a quick one does not wait."""

from __future__ import annotations

import asyncio
import inspect
import socket
import subprocess
import time
from collections.abc import Callable

PATIENCE_S = 120.0  # what never comes fails a test; what comes late on a busy machine does not


def _nothing() -> str:
    return ""


async def until(
    holds: Callable[[], object],
    within_s: float = PATIENCE_S,
    *,
    pause_s: float = 0.02,
    told: Callable[[], object] = _nothing,
) -> None:
    """Let the loop run until `holds()`, or what it awaits, is true. Raises AssertionError with what `told` says then."""
    end_s = time.monotonic() + within_s
    while True:
        held = holds()
        if inspect.isawaitable(held):
            held = await held
        if held:
            return
        assert time.monotonic() < end_s, f"it did not come true within {within_s:g} s {told()}".rstrip()
        await asyncio.sleep(pause_s)


def wait_until(
    holds: Callable[[], object],
    within_s: float = PATIENCE_S,
    *,
    pause_s: float = 0.05,
    told: Callable[[], object] = _nothing,
) -> None:
    """The same for what runs beside this thread: other threads and programs."""
    end_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end_s, f"it did not come true within {within_s:g} s {told()}".rstrip()
        time.sleep(pause_s)


def wait_until_listening(port: int, program: subprocess.Popen[bytes]) -> None:
    """Until the program takes connections at this port of loopback; one that ends before fails the test at once."""

    def is_up() -> bool:
        assert program.poll() is None, f"it ended with status {program.returncode}: {program.args!r}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(is_up, told=lambda: program.args)
