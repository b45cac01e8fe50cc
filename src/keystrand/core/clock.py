"""Time and randomness as two small interfaces, so that the same code runs in real and in virtual time."""

from __future__ import annotations

import secrets
import time
import uuid
from typing import Final, Protocol

_DRAWN_BYTES: Final = (
    10  # for a UUID of version 7: 74 bits, and six that its variant takes the place of or nobody needs
)
_VARIANTS: Final = dict(
    zip("0123456789abcdef", "89ab" * 4, strict=True)
)  # a hexadecimal digit -> two bits of it, and 10


class Clock(Protocol):
    """`now_s` is Unix time for people and records; `monotonic_s` never goes back and is what deadlines use."""

    def now_s(self) -> float: ...
    def monotonic_s(self) -> float: ...


class SystemClock:
    def now_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()


class Entropy(Protocol):
    """Where random bytes come from: the operating system, or a seeded stream in the simulation."""

    def bytes(self, length: int, /) -> bytes: ...


class SystemEntropy:
    def bytes(self, length: int, /) -> bytes:
        return secrets.token_bytes(length)


def new_key_ids(entropy: Entropy, at_s: float, number: int) -> list[str]:
    """UUIDs of version 7 (RFC 9562), lower case: the milliseconds of `at_s`, then 74 bits each, drawn from `entropy`.

    IDs that are made together lie together in an index, so that a table of keys grows at its end. Nobody gets a key for
    knowing its ID.
    """
    stamp = f"{int(max(0.0, at_s) * 1000) % 2**48:012x}"
    head = f"{stamp[:8]}-{stamp[8:]}-7"
    drawn = entropy.bytes(_DRAWN_BYTES * number).hex()
    parts = [drawn[at : at + 2 * _DRAWN_BYTES] for at in range(0, len(drawn), 2 * _DRAWN_BYTES)]
    return [f"{head}{part[:3]}-{_VARIANTS[part[3]]}{part[4:7]}-{part[7:19]}" for part in parts]


def new_uuid(entropy: Entropy) -> str:
    """A random (version 4) UUID, lower case, drawn from `entropy`."""
    return str(uuid.UUID(bytes=entropy.bytes(16), version=4))
