"""How fast a count grows: bits that come in over a hop, bits that are drawn from a link."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Meter:
    """Per second, over the last `window_s`; at most `POINTS` readings are kept."""

    window_s: float = 60.0
    _points: deque[tuple[float, int]] = field(default_factory=deque)

    POINTS = 60

    def read(self, now_s: float, total: int) -> float:
        """The rate up to now; 0 until there are two readings apart."""
        points = self._points
        if points and total < points[-1][1]:
            points.clear()  # the store is another one
        while len(points) > 1 and points[1][0] <= now_s - self.window_s:
            points.popleft()
        since_s, base = points[0] if points else (now_s, total)
        if not points or now_s - points[-1][0] >= self.window_s / self.POINTS:
            points.append((now_s, total))
        return (total - base) / (now_s - since_s) if now_s > since_s else 0.0
