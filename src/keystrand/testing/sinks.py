"""A sink that keeps what it hears."""

from __future__ import annotations

from dataclasses import dataclass, field

from keystrand.core.events import Event


@dataclass
class Ears:
    """Every event, in order."""

    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event, /) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def count(self, kind: str) -> int:
        return self.kinds.count(kind)
