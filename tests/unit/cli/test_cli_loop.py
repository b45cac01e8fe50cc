"""What every long-running program does first."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, os, resource, signal
from keystrand.cli.loop import run_until_stopped
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
async def work():
    print(*resource.getrlimit(resource.RLIMIT_CORE))
    import ctypes
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)  # PR_GET_DUMPABLE
    os.kill(os.getpid(), signal.SIGABRT)
run_until_stopped(work(), holds_pools=True)
"""


def test_I12_a_crash_of_a_server_leaves_no_core(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGABRT, done.stderr
    assert done.stdout.split()[:2] == ["0", "0"]
    assert done.stdout.split()[-1] == "0", "not even a collector of cores gets one"
    assert list(tmp_path.iterdir()) == []
