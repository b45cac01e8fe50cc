"""Virtual time: a heap of things to do, and a trace of what was done."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable

from keystrand.testing.clock import VirtualClock


class Schedule:
    """Events in order of time, ties in order of planning; everything that happens is hashed into the trace."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._trace = hashlib.sha256()
        self.lines: list[str] | None = None  # set to a list to keep the trace for people

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.clock.monotonic_s() + delay_s, self._count, action))

    def run_until(self, end_s: float) -> None:
        """Do everything that is due up to `end_s`."""
        while self._heap and self._heap[0][0] <= end_s:
            at_s, _, action = heapq.heappop(self._heap)
            self.clock.move_to(max(at_s, self.clock.monotonic_s()))
            action()
        self.clock.move_to(end_s)

    def trace(self, *words: object) -> None:
        line = f"{self.clock.monotonic_s():.6f} " + " ".join(str(word) for word in words)
        self._trace.update(line.encode() + b"\n")
        if self.lines is not None:
            self.lines.append(line)

    def trace_hash(self) -> str:
        return self._trace.hexdigest()
