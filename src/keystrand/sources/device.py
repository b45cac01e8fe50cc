"""A device that makes key at both ends of a link, seen from one end: whatever its interface, it gives keys that have names.

Names are key IDs (ETSI GS QKD 014, push), places in a stream (ETSI GS QKD 004) or file names: the far end's device knows the
same key by the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from keystrand.core.secret import Secret

Kind = Literal["etsi014", "etsi004", "files", "push"]


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """One key of a device. Its holder wipes it."""

    name: str
    material: Secret


class Device(Protocol):
    """One end of a device pair. keeps: what was drawn and not claimed comes again with the next draw."""

    @property
    def keeps(self) -> bool: ...

    async def draw(self) -> list[DeviceKey]:
        """New keys, in an order that both ends can keep; empty where nobody has brought any. Raises Unavailable."""

    async def fetch(self, names: tuple[str, ...], /) -> list[DeviceKey]:
        """The keys of these names, all of them and in this order. Raises Unavailable or UnknownKey while they are not there."""

    async def claimed(self, names: tuple[str, ...], /) -> None:
        """These keys are written down as used: nothing that the device left lying here may outlive that."""

    async def reset(self) -> None:
        """Keys were lost between the two ends: begin afresh, where that makes a difference."""

    async def close(self) -> None:
        """Give back connections."""


def wipe(keys: list[DeviceKey]) -> None:
    for key in keys:
        key.material.wipe()


def joined(keys: list[DeviceKey]) -> Secret:
    """The material of all, in their order; the keys are wiped."""
    material = b"".join(key.material.reveal() for key in keys)
    wipe(keys)
    return Secret(material)
