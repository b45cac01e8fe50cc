"""Starts `keystrand` programs by forking one process that has imported everything already: the rest of a start is as ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


class Spawner:
    """The parent of the programs: it starts, kills and buries them, so that nobody else needs to be a warm Python."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-m", __spec__.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def start(self, *arguments: str) -> int:
        """`keystrand ARGUMENTS…`; its process ID."""
        return int(self._say("start", *arguments))

    def end(self, process: int, number: signal.Signals) -> None:
        """Send a signal and wait until the process is gone, and its locks with it."""
        self._say("end", str(process), str(int(number)))

    def _say(self, *words: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(words) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _start(arguments: list[str]) -> int:
    process = os.fork()
    if process == 0:
        from keystrand.cli.program import run

        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os._exit(run(arguments))
    return process


def serve() -> None:
    """Requests by line from standard input, one answer each. At the end, everything that still runs is killed."""
    import keystrand.cli.loop
    import keystrand.cli.serve
    import keystrand.node.site  # noqa: F401

    running: set[int] = set()
    for line in sys.stdin:
        what, *rest = line.rstrip("\n").split("\t")
        if what == "start":
            process = _start(rest)
            running.add(process)
        else:
            process = int(rest[0])
            os.kill(process, int(rest[1]))
            os.waitpid(process, 0)
            running.discard(process)
        print(process, flush=True)
    for process in running:
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    serve()
