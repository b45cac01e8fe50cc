"""How fast a relay goes, and how much it begins at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds, and sizes. block_bytes: of one relayed block; all sites of a network have the same."""

    block_bytes: int = 32_768
    at_once: int = 4  # blocks of one link under way: as many are lost where a site ends at the wrong moment
    repeat_s: float = 1.0
    hop_s: float = 5.0  # a share that is not taken after so long is lost
    block_s: float = 15.0  # a block that has not come to its target after so long is given up
    pause_s: float = 1.0  # before the next try after a failure, doubled for each in a row
    pause_max_s: float = 30.0


PACE: Final = Pace()
