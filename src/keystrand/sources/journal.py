"""What the site remembers of the keys of one link's device, so that each is used once: kept in its store (`store.sources`).

Devices repeat themselves: a folder is filled twice, a KME hands a key out again, a crash comes between use and removal. A key
is known by its name and by its mark, a keyed digest from which nothing of the key can be found.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, Protocol

from keystrand.core.labels import LABELS
from keystrand.sources.device import DeviceKey

Claim = tuple[str, bytes]
_MARK_BYTES: Final = 16


def claim_of(key: DeviceKey) -> Claim:
    """Its name and its mark, of 128 bits."""
    return key.name, hmac.digest(key.material.reveal(), LABELS["source/claim"], hashlib.sha256)[:_MARK_BYTES]


class Journal(Protocol):
    """Of one link. Each answer is durable. Raises StoreUnavailable."""

    async def last_name(self) -> str:
        """Of the newest key that was used; "" before the first."""

    async def known(self, names: Sequence[str], /) -> frozenset[str]:
        """Those of these keys that were used or burnt."""

    # pushed keys, which wait in the store
    async def push(self, keys: Sequence[DeviceKey], /, *, bits_max: int) -> int:
        """All or none; how many bits wait then. Raises BadRequest, Unavailable."""

    async def offer(self, limit: int, /) -> list[DeviceKey]:
        """The oldest that wait: the same ones until they are claimed."""

    async def waiting(self, names: Sequence[str], /) -> list[DeviceKey]:
        """Those of these names that wait, in this order."""

    async def burn_older(self, wait_s: float, /) -> None:
        """What has waited for so long."""
