"""A device that pushes its keys, by name, to the KMEs at both ends: what waits here until the two ends agree on it.

Kept in memory: a crash burns what waits, at this end and so at both. A name or the bits of a key that came before are refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from keystrand.core.errors import BadRequest, Unavailable
from keystrand.core.secret import Secret
from keystrand.sources.device import DeviceKey

HOLD_S: Final = 300.0  # keys that the other end never speaks of make room after so long


class PushDevice:
    """bits_max: how much may wait; number: the most keys of one draw; now_s: monotonic."""

    def __init__(self, *, bits_max: int, number: int, now_s: Callable[[], float]) -> None:
        self._bits_max, self._number, self._now_s = bits_max, number, now_s
        self._waiting: OrderedDict[str, tuple[Secret, float]] = OrderedDict()
        self.waiting_bits = 0

    def push(self, keys: Sequence[DeviceKey]) -> None:
        """Take these keys in, all or none. Raises BadRequest for a name that waits already, Unavailable where it is full."""
        known = [key.name for key in keys if key.name in self._waiting]
        if known:
            raise BadRequest(f"key {known[0]} is here already")
        bits = sum(key.material.length_bits for key in keys)
        if self.waiting_bits + bits > self._bits_max:
            self._drop_old()
        if self.waiting_bits + bits > self._bits_max:
            raise Unavailable(f"{self.waiting_bits} bits wait here already", retry_after_s=1.0)
        for key in keys:
            self._waiting[key.name] = key.material, self._now_s()
        self.waiting_bits += bits

    async def draw(self) -> list[DeviceKey]:
        return [self._take(name) for name in tuple(self._waiting)[: self._number]]

    async def fetch(self, names: tuple[str, ...]) -> list[DeviceKey]:
        missing = [name for name in names if name not in self._waiting]
        if missing:
            raise Unavailable(f"the device has not pushed key {missing[0][:64]}")
        return [self._take(name) for name in names]

    async def claimed(self, names: tuple[str, ...]) -> None:
        """They are not here any more."""

    async def reset(self) -> None:
        """Each key stands for itself."""

    async def close(self) -> None:
        """What waits is not kept."""
        for name in tuple(self._waiting):
            self._take(name).material.wipe()

    def _take(self, name: str) -> DeviceKey:
        material, _ = self._waiting.pop(name)
        self.waiting_bits -= material.length_bits
        return DeviceKey(name, material)

    def _drop_old(self) -> None:
        before_s = self._now_s() - HOLD_S
        for name in [name for name, (_, since_s) in self._waiting.items() if since_s < before_s]:
            self._take(name).material.wipe()
