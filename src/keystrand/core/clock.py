"""Time and randomness as two small interfaces, so that the same code runs in real and in virtual time."""

from __future__ import annotations

import secrets
import time
import uuid
from typing import Protocol


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


def new_key_id(entropy: Entropy, at_s: float) -> str:
    """A UUID of version 7 (RFC 9562), lower case: the milliseconds of `at_s`, then 74 bits drawn from `entropy`.

    IDs that are made together lie together in an index, so that a table of keys grows at its end. Nobody gets a key for
    knowing its ID.
    """
    drawn = int.from_bytes(entropy.bytes(10))
    number = int(max(0.0, at_s) * 1000) % 2**48 << 80 | 7 << 76 | (drawn >> 62 & 0xFFF) << 64 | 2 << 62 | drawn % 2**62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_uuid(entropy: Entropy) -> str:
    """A random (version 4) UUID, lower case, drawn from `entropy`."""
    return str(uuid.UUID(bytes=entropy.bytes(16), version=4))
