"""A folder as the KMEs of two sites: keys are handed out once to each end, also between processes.

For tests and benches of connectors alone; the material lies in the folder in clear until it is picked up.
"""

from __future__ import annotations

import os
import secrets
import uuid
from pathlib import Path

from keystrand.core.errors import BadRequest, KeyUnavailable, UnknownKey
from keystrand.core.key import Key
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret


class KeyFolder:
    """The KME of SAE `me`. `left` counts the keys that may still be drawn; None means no end."""

    def __init__(self, folder: Path, me: str, *, left: int | None = None) -> None:
        self._folder = folder
        self._me = me
        self.left = left

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

    @staticmethod
    def _key(key_id: str, material: bytes) -> Key:
        return Key(key_id=key_id, material=Secret(material), strands=frozenset({Strand.QKD, Strand.PQC}))
