"""What comes and goes is told a few times, then held back until it has been steady: damping of flaps after RFC 2439.

Each change costs a penalty of one, which halves with time. Above CUT nothing more is told; below REUSE the state is told as it
is then. A penalty never grows above MOST, so that what came to rest is told a minute later at the latest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CUT: Final = 3.0
REUSE: Final = 1.0
MOST: Final = 4.0
HALF_LIFE_S: Final = 30.0


@dataclass(slots=True)
class Damper:
    """Of one thing. Seconds are of a clock that only goes forward."""

    _penalty: float = 0.0
    _at_s: float = 0.0
    _held: bool = False

    def change(self, now_s: float) -> bool:
        """It changed. Whether that is to be held back."""
        held = self.is_held(now_s)
        self._penalty = min(MOST, self._penalty + 1.0)
        self._held = held or self._penalty > CUT
        return self._held

    def is_held(self, now_s: float) -> bool:
        """Whether changes are held back now."""
        self._penalty *= 0.5 ** ((now_s - self._at_s) / HALF_LIFE_S)
        self._at_s = now_s
        self._held = self._held and self._penalty >= REUSE
        return self._held
