"""Ends what a test process leaves behind when it is killed: programs, PostgreSQL, network namespaces.

    python reaper.py MARK PID <pipe    # waits for the end of the pipe, which is the end of process PID

All that it started has the environment variable MARK, and so has what that started, sessions of their own or not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 50  # what is killed may have started something in the same moment


def marked(mark: str) -> set[int]:
    """Process IDs of everything with the mark but ourselves."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (place / "environ").read_bytes().split(b"\0") and int(place.name) != os.getpid():
                found.add(int(place.name))
    return found


def reap(mark: str, pid: int) -> None:
    pids = {pid}
    for _ in range(ROUNDS):
        left = marked(mark)
        if not left:
            break
        for number in left:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        pids |= left
        time.sleep(0.1)
    for folder in Path(tempfile.gettempdir()).glob("keystrand-pg-*"):  # as keystrand.testing.postgres names them
        if any(folder.name.startswith(f"keystrand-pg-{number}-") for number in pids):
            shutil.rmtree(folder, ignore_errors=True)
    tags = tuple(f"ks{number % 100_000}x" for number in pids)  # as keystrand.lab.wires names them
    spaces = Path("/run/netns")
    for space in sorted(spaces.iterdir()) if spaces.is_dir() else []:
        if space.name.startswith(tags):
            subprocess.run(["ip", "netns", "delete", space.name], capture_output=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    reap(sys.argv[1], int(sys.argv[2]))
