"""What a transfer needs from outside, what it tells, and its limits."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeVar

from keystrand.core.errors import BadRequest, Unavailable
from keystrand.core.key import Key
from keystrand.core.pool import PoolStatus

MIB = 1 << 20
AES: Final = "AES-256-GCM under keys that rotate"
PAD: Final = "one-time pad"
PadRule = Literal["off", "allowed", "required"]


class KeySource(Protocol):
    """The SAE's own KME. Both calls may raise Unavailable (ask again later) and block for a while."""

    def fresh(self, responder: str, size_bits: int) -> Key:
        """A new key shared with SAE `responder`."""

    def pick_up(self, initiator: str, key_id: str) -> Key:
        """The copy of a key that SAE `initiator` was given. It is handed out once; then UnknownKey."""

    def status(self, responder: str) -> PoolStatus:
        """What may be drawn towards SAE `responder` now."""

    def draw(self, responder: str, number: int, size_bits: int) -> list[Key]:
        """`number` new keys at once, all or none."""

    def pick_up_all(self, initiator: str, key_ids: Sequence[str]) -> list[Key]:
        """Like `pick_up`, in the order of `key_ids`, all or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLimits:
    """Ours to tune. Raises ValueError where a number makes no sense."""

    chunk_bytes: int = MIB  # plaintext of one record, at most frames.DATA_BYTES_MAX
    connect_s: float = 10.0
    opening_s: float = 10.0  # a caller without a verified key has this long, in total
    idle_s: float = 180.0  # neither side may be silent longer; above beat_s and key_wait_s
    beat_s: float = 10.0  # an empty DATA goes out after this much silence
    key_wait_s: float = 120.0  # how long a transfer waits for the KME to have keys again
    reconnect_s: float = 60.0  # how long a sender tries to come back without progress
    checkpoint_bytes: int = 64 * MIB  # the receiver makes its part durable this often
    connections_max: int = 32  # at a time, at the receiver; each holds two records in memory
    pad_bytes_max: int = 64 << 10  # what may go under a one-time pad at once, at most pad_frames.PLAIN_BYTES_MAX
    partial_ttl_s: float = 7 * 86_400.0  # what was not resumed for so long is deleted
    progress_s: float = 0.25

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.chunk_bytes > MIB:
            raise ValueError(f"chunk_bytes={self.chunk_bytes} must be at most {MIB}")
        if self.idle_s <= max(self.beat_s, self.key_wait_s):
            raise ValueError(f"idle_s={self.idle_s} must exceed beat_s={self.beat_s} and key_wait_s={self.key_wait_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A transfer at one moment. `state`: started, progress, rotated, waiting, resumed, finished or failed.

    `protection` is what the key's own KME says of it, "unknown" where it says nothing. No field is secret.
    """

    state: str
    transfer_id: str
    direction: str  # "sending" or "receiving"
    peer: str
    name: str
    bytes_done: int
    bytes_total: int | None
    rotations: int
    throughput_bytes_per_s: float
    key_id: str
    protection: str
    message: str = ""


Report = Callable[[Progress], None]


def transfer_of(transfer_id: str | None) -> uuid.UUID:
    """The transfer of an earlier try, or a new one. Raises BadRequest for what is no ID."""
    try:
        return uuid.UUID(transfer_id) if transfer_id else uuid.uuid4()
    except ValueError:
        raise BadRequest(f"{transfer_id!r} is not a transfer ID") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferReport:
    """A transfer that both ends verified. `bytes` counts the content, `seconds` the time since the first key."""

    transfer_id: str
    name: str
    peer: str
    bytes: int
    seconds: float
    rotations: int
    key_ids: tuple[str, ...]
    transcript: str  # hexadecimal, the same at both ends: of the last connection, or the digest over all streams
    sha256: str  # of the content, hexadecimal; empty where nothing asked for it or several streams hashed their parts
    resumed: int  # how often the transfer went on after a broken connection
    secrecy: str = AES  # what the content went under, in words
    streams: int = 1  # connections that carried it side by side
    path: str = ""  # where the receiver put it

    @property
    def throughput_bytes_per_s(self) -> float:
        return self.bytes / self.seconds if self.seconds else 0.0

    @property
    def fingerprint(self) -> str:
        """The SHA-256 where there is one, else the transcript, which says so."""
        return self.sha256 or f"transcript:{self.transcript}"


def silent(progress: Progress) -> None:
    """The report of whoever does not want any."""


T = TypeVar("T")  # a key, or several


def when_available(
    ask: Callable[[], T], *, wait_s: float, stop: threading.Event, waiting: Callable[[Unavailable], None]
) -> T:
    """`ask` until the KME has what is asked for, for at most `wait_s`. Raises the last Unavailable after that, or on `stop`."""
    until_s = time.monotonic() + wait_s
    pause_s = 0.05
    while True:
        try:
            return ask()
        except Unavailable as fault:
            if time.monotonic() + pause_s > until_s or stop.is_set():
                raise
            waiting(fault)
            stop.wait(pause_s)
            pause_s = min(2 * pause_s, max(fault.retry_after_s, 0.05), 5.0)
