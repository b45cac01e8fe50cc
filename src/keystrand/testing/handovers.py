"""Records of keys between networks, in memory, kept as a disk keeps them: what was not saved is gone after a crash."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from keystrand.core.secret import Secret
from keystrand.wire.handover import Handover


@dataclass(slots=True)
class MemoryHandovers:
    """A HandoverStore. `saved` holds copies, so that a record changed later does not change what was saved."""

    saved: dict[str, Handover] = field(default_factory=dict)

    def load(self) -> Iterable[Handover]:
        return [_copy(record) for record in self.saved.values()]

    def save(self, record: Handover, /) -> None:
        self.saved[record.name] = _copy(record)

    def forget(self, name: str, /) -> None:
        self.saved.pop(name, None)


def _copy(record: Handover) -> Handover:
    material = record.material
    return replace(record, material=None if material is None else Secret(material.reveal()))
