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


def new_uuid(entropy: Entropy) -> str:
    """A random (version 4) UUID, lower case, drawn from `entropy`."""
    return str(uuid.UUID(bytes=entropy.bytes(16), version=4))
