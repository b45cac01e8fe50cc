"""The programs of a demo network: started as an operator would start them, watched, and stopped together."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keystrand.core.errors import ConfigError, KeystrandError

STOP_GRACE_S = 10.0
READY_S = 120.0  # on a machine that does much else
LOOK_S = 0.2


class DemoFault(KeystrandError):
    """A program of the demo ended, or did not get ready. Carries the end of its log."""


class Programs:
    """`keystrand VERB …` processes with a log file each; their process IDs are kept for a later `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        """Start one in a session of its own, so that it outlives us when it is left running."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-m", "keystrand", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
        pids = {name: process.pid for name, process in self._running.items()}
        (self.folder / "pids.json").write_text(json.dumps(pids))

    def check(self) -> None:
        """Raises DemoFault when one of them has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise DemoFault(f"{name} ended with status {process.returncode}:\n{self.tail(name)}")

    def ended(self) -> list[str]:
        """Those that have ended, whoever ended them; each is named once."""
        names = [name for name, process in self._running.items() if process.poll() is not None]
        for name in names:
            del self._running[name]
        return names

    def wait(self, what: str, holds: Callable[[], object], within_s: float = READY_S) -> None:
        """Until it holds. Raises DemoFault when one of them ends before, and where `what` does not come in time."""
        deadline_s = time.monotonic() + within_s
        while not holds():
            self.check()
            if time.monotonic() > deadline_s:
                logs = "\n".join(f"{name}:\n{self.tail(name)}" for name in self._running)
                raise DemoFault(f"no {what} after {within_s:g} s\n{logs}")
            time.sleep(LOOK_S)

    def tail(self, name: str, lines: int = 8) -> str:
        text = (self.folder / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def end(self, name: str) -> None:
        """End one; it may be started again."""
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()

    def kill(self, name: str) -> None:
        """End one at once, as a power cut would."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End them all, gently first."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + STOP_GRACE_S
        for process in self._running.values():
            try:
                process.wait(max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        end_sentinels(self.folder)
        (self.folder / "pids.json").unlink(missing_ok=True)


def end_sentinels(folder: Path) -> None:
    """They outlive the tunnels of sites in `folder`, to stop their traffic in time; here those are given up for good."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = place.read_bytes().split(b"\0")
            if b"sentinel" in words and words[-2].startswith(bytes(folder)):
                _end(int(place.parent.name))


def fresh_folder(folder: Path, marker: str, what: str) -> None:
    """An empty one in the place of `what`, whose programs are ended. Raises ConfigError where it holds something else."""
    if folder.exists():
        if not (folder / marker).exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} exists and is not {what}", hint="choose another --dir")
        stop_left_over(folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
    (folder / marker).touch()


def stop_left_over(folder: Path) -> int:
    """End the programs that an earlier demo left running in `folder`; how many there were."""
    try:
        pids: dict[str, int] = json.loads((folder / "pids.json").read_text())
    except (OSError, ValueError):
        return 0
    stopped = [pid for pid in pids.values() if _is_ours(pid) and _end(pid)]
    (folder / "pids.json").unlink(missing_ok=True)
    for _ in range(int(STOP_GRACE_S / 0.1)):
        if not any(_is_ours(pid) for pid in stopped):
            break
        time.sleep(0.1)
    return len(stopped)


def _is_ours(pid: int) -> bool:
    """A process ID may have gone to somebody else meanwhile."""
    with contextlib.suppress(OSError):
        return b"keystrand" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _end(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        return True
    return False


def read_status(address: str) -> dict[str, Any] | None:
    """What a site's status page says; None while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/status", timeout=5) as answer:
            status: dict[str, Any] = json.load(answer)
            return status
    except (OSError, ValueError):
        return None
