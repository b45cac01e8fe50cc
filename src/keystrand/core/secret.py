"""A secret is a type that cannot speak: it does not print, compare, hash, pickle or copy.

CPython cannot promise erasure (copies made by `reveal`, by base64 and by TLS outlive us), so `wipe` is best effort;
what it does guarantee is that this buffer is zero afterwards.
"""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Key material in memory. `reveal()` is the only way out, so that a search for it finds every use."""

    __slots__ = ("_buffer",)

    def __init__(self, material: bytes | bytearray | memoryview) -> None:
        self._buffer = bytearray(material)

    def __len__(self) -> int:
        """Length in bytes."""
        return len(self._buffer)

    @property
    def length_bits(self) -> int:
        return 8 * len(self._buffer)

    def reveal(self) -> bytes:
        """A copy of the material. Keep it short-lived and local."""
        return bytes(self._buffer)

    def matches(self, other: Secret) -> bool:
        """Constant-time comparison."""
        return hmac.compare_digest(self._buffer, other._buffer)

    def wipe(self) -> None:
        """Overwrite the buffer with zeros. Idempotent."""
        self._buffer[:] = bytes(len(self._buffer))

    def __repr__(self) -> str:
        return f"<Secret {self.length_bits} bits>"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("compare secrets with .matches()")

    # Defining __eq__ alone already makes instances unhashable; saying so keeps mypy and readers honest.
    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("secrets are not pickled or copied")
