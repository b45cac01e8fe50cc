"""What this site has seen in clear as a relay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ExposureLedger:
    """Bits that this site has seen in clear, by relayed link: whole blocks, and parts that say nothing alone."""

    whole_bits: Counter[str] = field(default_factory=Counter)
    part_bits: Counter[str] = field(default_factory=Counter)

    def saw(self, link: str, needed: int, bits: int) -> None:
        (self.whole_bits if needed == 1 else self.part_bits)[link] += bits
