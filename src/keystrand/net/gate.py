"""How many connections a listener has: strangers', whose handshake is not done yet, and those whose holder is known.

A stranger needs nothing but an address, so the oldest of them makes room for whoever comes next: a crowd that says nothing
keeps nobody out. A holder has proven who it is, and has its share of the places.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol


class Ends(Protocol):
    """A connection, as the gate needs it."""

    def abort(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class Gate:
    """connections_max: handshakes included; per_holder_max: of those, for one holder."""

    connections_max: int
    per_holder_max: int
    _strangers: dict[Ends, None] = field(default_factory=dict)  # oldest first
    _known: dict[Ends, str] = field(default_factory=dict)
    _held: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        """Connections now, handshakes included."""
        return len(self._strangers) + len(self._known)

    def enter(self, connection: Ends) -> bool:
        """A newcomer. False where all places are taken by those who are known; a stranger's place is made free."""
        if len(self) >= self.connections_max:
            if not self._strangers:
                return False
            oldest = next(iter(self._strangers))
            self.leave(oldest)
            oldest.abort()
        self._strangers[connection] = None
        return True

    def know(self, connection: Ends, holder: str) -> bool:
        """Its handshake is done. False where the holder has as many as one may have."""
        self._strangers.pop(connection, None)
        if self._held[holder] >= self.per_holder_max:
            return False
        self._known[connection] = holder
        self._held[holder] += 1
        return True

    def leave(self, connection: Ends) -> None:
        """It has ended. Idempotent."""
        self._strangers.pop(connection, None)
        holder = self._known.pop(connection, None)
        if holder is not None:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]

    def cut_all(self) -> None:
        for connection in [*self._strangers, *self._known]:
            connection.abort()
