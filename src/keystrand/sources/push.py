"""A device that pushes its keys, by name, to the KMEs at both ends: what waits until the two ends agree on it.

Kept in the site's store, sealed: a pushed key that was acknowledged is there until a block holds it at both ends, or until it
is burnt at both, because the other end says that it cannot have it. A name or the bits of a key that came before are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.sources.device import DeviceKey, wipe
from keystrand.sources.journal import Journal

HOLD_S: Final = (
    300.0  # keys of which the other end does not speak are burnt after so long, once it speaks of later ones
)


class PushDevice:
    """bits_max: how much may wait; number: the most keys of one draw."""

    keeps = True

    def __init__(self, journal: Journal, *, bits_max: int, number: int) -> None:
        self._journal, self._bits_max, self._number = journal, bits_max, number

    async def push(self, keys: Sequence[DeviceKey]) -> int:
        """Take these keys in, all or none, durably; the bits that wait. They are wiped. Raises BadRequest, Unavailable."""
        try:
            return await self._journal.push(keys, bits_max=self._bits_max)
        finally:
            wipe(list(keys))

    async def draw(self) -> list[DeviceKey]:
        return await self._journal.offer(self._number)

    async def fetch(self, names: tuple[str, ...]) -> list[DeviceKey]:
        keys = await self._journal.waiting(names)
        if len(keys) == len(names):
            return keys
        wipe(keys)
        await self._journal.burn_older(HOLD_S)  # the other end has gone past them: it offers the oldest first
        missing = set(names) - {key.name for key in keys}
        raise Unavailable(f"the device has not pushed key {min(missing)[:64]}")

    async def claimed(self, names: tuple[str, ...]) -> None:
        """They do not wait any more since the claim itself."""

    async def reset(self) -> None:
        """Each key stands for itself."""

    async def close(self) -> None:
        """What waits is in the store."""
