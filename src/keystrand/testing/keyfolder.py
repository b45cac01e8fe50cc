"""A folder as the KMEs of two sites: keys are handed out once to each end, also between processes.

For tests and benches of connectors alone; the material lies in the folder in clear until it is picked up.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Sequence
from pathlib import Path

from keystrand.core.errors import BadRequest, KeyUnavailable, UnknownKey
from keystrand.core.key import Key
from keystrand.core.pool import PoolStatus
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret


class KeyFolder:
    """The KME of SAE `me`. `left` counts the keys that may still be drawn; None means no end. `strands`: of each key."""

    def __init__(
        self,
        folder: Path,
        me: str,
        *,
        left: int | None = None,
        strands: frozenset[Strand] = frozenset({Strand.QKD, Strand.PQC}),
    ) -> None:
        self._folder = folder
        self._me = me
        self._strands = strands
        self.left = left
        self.fill_bps = 1000.0

    def fresh(self, responder: str, size_bits: int) -> Key:
        """Raises KeyUnavailable once `left` is used up, BadRequest for odd sizes."""
        if size_bits % 8 or size_bits <= 0:
            raise BadRequest("size is not a multiple of 8")
        if self.left is not None:
            if self.left <= 0:
                raise KeyUnavailable("the folder has no keys left", retry_after_s=0.05)
            self.left -= 1
        key_id, material = str(uuid.uuid4()), secrets.token_bytes(size_bits // 8)
        drawn = self._folder / f"{key_id}.new"
        drawn.write_bytes(material)
        drawn.rename(self._folder / f"{key_id}.{self._me}.{responder}")
        return self._key(key_id, material)

    def pick_up(self, initiator: str, key_id: str) -> Key:
        """Raises UnknownKey for a key that was never drawn for this pair, or was picked up before."""
        stored = self._folder / f"{key_id}.{initiator}.{self._me}"
        taken = stored.with_name(f"{key_id}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            stored.rename(taken)
        except FileNotFoundError:
            raise UnknownKey("no such key") from None
        material = taken.read_bytes()
        taken.unlink()
        return self._key(key_id, material)

    def status(self, responder: str) -> PoolStatus:
        """As of a KME whose default key has 256 bits; it fills at `fill_bps`."""
        return PoolStatus(
            source_kme_id="folder",
            target_kme_id="folder",
            initiator=self._me,
            responder=responder,
            key_size_bits=256,
            stored_keys=1_000_000 if self.left is None else self.left,
            stored_keys_max=1_000_000,
            keys_per_request_max=16,
            key_size_bits_max=256,
            key_size_bits_min=64,
            additional_recipients_max=0,
            extension={"keystrand_fill_bps": self.fill_bps, "keystrand_simulated": 1},
        )

    def draw(self, responder: str, number: int, size_bits: int) -> list[Key]:
        """All or none."""
        if self.left is not None and self.left < number:
            raise KeyUnavailable("the folder has not so many keys left", retry_after_s=0.05)
        return [self.fresh(responder, size_bits) for _ in range(number)]

    def pick_up_all(self, initiator: str, key_ids: Sequence[str]) -> list[Key]:
        return [self.pick_up(initiator, key_id) for key_id in key_ids]

    def _key(self, key_id: str, material: bytes) -> Key:
        return Key(key_id=key_id, material=Secret(material), strands=self._strands)
