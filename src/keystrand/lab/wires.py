"""Two hosts on one machine: network namespaces joined by a wire, for tunnels between real daemons.

a: underlay 10.99.0.1, protected host 10.1.0.1        b: underlay 10.99.0.2, protected host 10.2.0.1

The protected hosts are addresses on each loopback. Between them there is no route until a tunnel makes one. Needs root.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from keystrand.core.errors import Unavailable

Side = Literal["a", "b"]
SIDES: Final[tuple[Side, Side]] = ("a", "b")
COMMAND_S: Final = 60.0  # a kernel whose every instruction is translated starts a program in ten
LOAD_PORT: Final = 9
_numbers = itertools.count()


def why_not() -> str:
    """Why this machine cannot have wires; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the program ip (iproute2) is missing"
    probe = f"ksprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)  # noqa: S603,S607
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True)  # noqa: S603,S607
    return f"network namespaces cannot be made here: {made.stderr.strip()}" if made.returncode else ""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load of numbered UDP packets has seen. Times are one way; longest_gap_ms: between two arrivals."""

    sent: int
    received: int
    lost: int
    repeated: int
    longest_gap_ms: float
    latency_p50_ms: float
    latency_p99_ms: float
    latency_max_ms: float
    last_at_s: float  # monotonic time at which the last packet came; 0: none came
    gaps: list[
        tuple[float, float]
    ]  # silences of lab.load.GAP_S or more: from the last packet before to the first after


class Load:
    """Numbered packets, or records in a stream, at an even rate from one protected host to the other, counted there."""

    def __init__(self, sender: subprocess.Popen[str], receiver: subprocess.Popen[str]) -> None:
        self._sender, self._receiver = sender, receiver

    def wait(self, timeout_s: float) -> LoadReport:
        """Until the sender is done and the last packet had its time. Raises TimeoutExpired."""
        sent = json.loads(self._sender.communicate(timeout=timeout_s)[0])
        self._receiver.send_signal(signal.SIGTERM)
        seen = json.loads(self._receiver.communicate(timeout=COMMAND_S)[0])
        return LoadReport(sent=sent["sent"], lost=sent["sent"] - seen["received"], **seen)

    def stop(self) -> LoadReport:
        """Send no more."""
        self._sender.send_signal(signal.SIGTERM)
        return self.wait(COMMAND_S)


@dataclass
class Wires:
    """The two namespaces and the wire, as a context manager that leaves nothing behind."""

    delay_ms: float = 0.0
    names: dict[Side, str] = field(default_factory=dict)
    _programs: list[subprocess.Popen[str]] = field(default_factory=list)
    at_end: list[Callable[[], None]] = field(default_factory=list)  # called when everything has ended

    @property
    def outer(self) -> Mapping[Side, str]:
        """Addresses on the wire."""
        return {"a": "10.99.0.1", "b": "10.99.0.2"}

    @property
    def inner(self) -> Mapping[Side, str]:
        """Addresses of the protected hosts."""
        return {"a": "10.1.0.1", "b": "10.2.0.1"}

    def __enter__(self) -> Wires:
        reason = why_not()
        if reason:
            raise Unavailable(reason, hint="run it as root")
        tag = f"{os.getpid() % 100_000}x{next(_numbers)}"
        self.names = {side: f"ks{tag}{side}" for side in SIDES}
        try:
            self._lay(tag)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _lay(self, tag: str) -> None:
        for name in self.names.values():
            self.host("ip", "netns", "add", name)
        ends = {side: f"v{tag}{side}"[:15] for side in SIDES}
        self.host("ip", "link", "add", ends["a"], "type", "veth", "peer", "name", ends["b"])
        for side in SIDES:
            self.host("ip", "link", "set", ends[side], "netns", self.names[side])
            self.run(side, "ip", "link", "set", ends[side], "name", "wire")
            self.run(side, "ip", "address", "add", f"{self.outer[side]}/24", "dev", "wire")
            self.run(side, "ip", "address", "add", f"{self.inner[side]}/32", "dev", "lo")
            for link in ("lo", "wire"):
                self.run(side, "ip", "link", "set", link, "up")
            if self.delay_ms:
                self.run(side, "tc", "qdisc", "add", "dev", "wire", "root", "netem", "delay", f"{self.delay_ms}ms")

    def host(self, *command: str) -> str:
        """Run outside of both; what it says. Raises Unavailable with its complaint."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)  # noqa: S603
        if done.returncode:
            raise Unavailable(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def run(self, side: Side, *command: str) -> str:
        """Run at one side; what it says. Raises Unavailable with its complaint."""
        return self.host(*self.prefix(side), *command)

    def prefix(self, side: Side) -> tuple[str, ...]:
        """What makes a command run at one side."""
        return ("ip", "netns", "exec", self.names[side])

    def start(
        self, side: Side, command: Sequence[str], *, log: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """A program at one side; it ends with the wires. log: where its words go; left out: its stdout is a pipe."""
        with open(log, "a") if log is not None else contextlib.nullcontext() as file:
            program = subprocess.Popen(  # noqa: S603
                [*self.prefix(side), *command],
                stdin=subprocess.DEVNULL,
                stdout=file if file is not None else subprocess.PIPE,
                stderr=file if file is not None else subprocess.DEVNULL,
                text=True,
                env={**os.environ, **(env or {})},
            )
        self._programs.append(program)
        return program

    def cut(self, *, cut: bool = True) -> None:
        """Pull the wire, or put it back."""
        self.run("a", "ip", "link", "set", "wire", "down" if cut else "up")

    def reaches(self, side: Side, *, wait_s: float = 10.0) -> bool:
        """Does a ping get through between the protected hosts? wait_s: how late its answer may come."""
        other = self.inner["b" if side == "a" else "a"]
        command = [*self.prefix(side), "ping", "-n", "-c", "1", "-W", str(wait_s), "-I", self.inner[side], other]
        return subprocess.run(command, capture_output=True).returncode == 0  # noqa: S603

    def load(
        self,
        *,
        packets_per_s: int = 1000,
        seconds: float = 10.0,
        to: Side = "b",
        size_bytes: int = 200,
        via: str = "",
    ) -> Load:
        """Begin to send UDP towards the protected host of `to`; via: records over TCP connections to this address instead."""
        if via:
            return self._stream(via, to, [str(packets_per_s), str(seconds), str(size_bytes)])
        from_: Side = "b" if to == "a" else "a"
        module = [sys.executable, "-m", "keystrand.lab.load"]
        address = f"{self.inner[to]}:{LOAD_PORT}"
        receiver = self.start(to, [*module, "receive", address])
        assert receiver.stdout is not None
        receiver.stdout.readline()  # it listens
        words = [self.inner[from_], address, str(packets_per_s), str(seconds), str(size_bytes)]
        return Load(self.start(from_, [*module, "send", *words]), receiver)

    def _stream(self, via: str, to: Side, words: list[str]) -> Load:
        module = [sys.executable, "-m", "keystrand.lab.stream_load"]
        receiver = self.start(to, [*module, "receive", f"{self.inner[to]}:{LOAD_PORT}", words[-1]])
        assert receiver.stdout is not None
        receiver.stdout.readline()  # it listens
        return Load(self.start("b" if to == "a" else "a", [*module, "send", via, *words]), receiver)

    def capture(self, side: Side, seconds: float, needle: bytes) -> int:
        """How many frames on the wire of `side` hold `needle` in clear, over some seconds."""
        command = [sys.executable, "-m", "keystrand.lab.load", "capture", "wire", str(seconds), needle.hex()]
        found: Any = json.loads(self.start(side, command).communicate(timeout=seconds + COMMAND_S)[0])
        return int(found["frames"])

    def close(self) -> None:
        """End what was started, with all that runs in the namespaces, and remove them."""
        for program in self._programs:
            with contextlib.suppress(ProcessLookupError):
                program.kill()
            program.communicate()
        for name in self.names.values():
            listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)  # noqa: S603,S607
            for pid in listed.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)  # noqa: S603,S607
        self._programs.clear()
        while self.at_end:
            self.at_end.pop()()
