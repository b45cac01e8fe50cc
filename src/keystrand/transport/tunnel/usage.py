"""What a tunnel tells its KME of the key that carries it, and what it hears: whether that key was revoked, or is used up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from keystrand.core.errors import KeystrandError
from keystrand.wire.keyuse import KeyStand, UseReport


class KeyUses(Protocol):
    """Blocking calls to the KME, each with its own deadline; see transport.keys.Etsi014Keys."""

    def note_use(self, key_id: str, report: UseReport) -> KeyStand: ...


@dataclass(slots=True)
class Usage:
    """One tunnel's reports. consumer: what the register calls the tunnel."""

    uses: KeyUses
    consumer: str
    _key_id: str = field(default="", init=False)
    _bytes: int = field(default=0, init=False)  # under that key, as told

    async def tell(self, key_id: str, bytes_used: int) -> str:
        """Why the key must not go on; "" for no reason. A KME that does not answer is none: the hold time is for that."""
        is_new = key_id != self._key_id
        fresh_bytes = max(0, bytes_used - (0 if is_new else self._bytes))
        report = UseReport(consumer=self.consumer, uses=int(is_new), used_bytes=fresh_bytes)
        try:
            stand = await asyncio.to_thread(self.uses.note_use, key_id, report)
        except KeystrandError:
            return ""
        self._key_id, self._bytes = key_id, bytes_used
        return stand.why_not
