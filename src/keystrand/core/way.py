"""How a relayed block came, and so who could have seen it: the source of a block, which both its ends keep, names its routes.

A site on the route of a part saw that part. Where fewer sites than `needed` parts join forces they know nothing of the block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

Route = tuple[str, ...]

_FORM: Final = re.compile(r"relay (\d+)/(\d+): (\S+(?:, \S+)*)")


@dataclass(frozen=True, slots=True)
class Way:
    """How a block came: its routes, and how many of their parts give it back."""

    needed: int
    routes: tuple[Route, ...]

    def __str__(self) -> str:
        return f"relay {self.needed}/{len(self.routes)}: " + ", ".join(">".join(route) for route in self.routes)

    @classmethod
    def parse(cls, source: str) -> Way | None:
        """What `str` made; None for the source of a block that was not relayed."""
        found = _FORM.fullmatch(source)
        if found is None:
            return None
        routes = tuple(tuple(text.split(">")) for text in found[3].split(", "))
        return cls(int(found[1]), routes) if len(routes) == int(found[2]) else None

    @property
    def relays(self) -> frozenset[str]:
        return frozenset(site for route in self.routes for site in route[1:-1])

    def parts_seen_by(self, sites: Iterable[str]) -> int:
        """How many parts these sites saw together."""
        suspects = frozenset(sites)
        return sum(bool(suspects & {*route[1:-1]}) for route in self.routes)

    def is_open_to(self, sites: Iterable[str]) -> bool:
        """Whether these sites together could know the block."""
        return self.parts_seen_by(sites) >= self.needed
