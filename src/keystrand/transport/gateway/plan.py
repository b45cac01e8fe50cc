"""Can so much go by then? From the pool, its rate, the rotation, the cipher's limit and a measured throughput. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from keystrand.core.pool import PoolStatus
from keystrand.transport.gateway.budget import FILL, PadBudget
from keystrand.transport.gateway.frames import Details
from keystrand.transport.gateway.ports import PadRule

KEY_BITS: Final = 256
# RFC 8446, 5.5: 2^24.5 records of 2^14 bytes under one AES-GCM key keep the advantage of an attacker below 2^-57.
CIPHER_BYTES_MAX: Final = 2**38


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is asked: so many bytes within `within_s` seconds, over `streams`, at `bytes_per_s` (measured or assumed)."""

    size_bytes: int
    within_s: float
    streams: int
    bytes_per_s: float
    rotate_bytes: int
    rotate_s: float
    pad_rule: PadRule
    pad_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to send it. done_s: seconds from now until it is over there, None where nobody can say or never; why: what
    stands against it or decides."""

    name: Literal["aes", "one-time pad"]
    keys: int
    needed_bits: int
    available_bits: int
    short_bits: int
    done_s: float | None
    fits: bool
    why: str


def plan_transfer(task: Task, status: PoolStatus) -> list[Way]:
    """Both ways, the one to prefer first: a one-time pad only where the site's file wants it."""
    ways = [_under_aes(task, status), _under_pad(task, status)]
    return ways[::-1] if task.pad_rule == "required" else ways


def _under_aes(task: Task, status: PoolStatus) -> Way:
    wire_s = task.size_bytes / task.bytes_per_s
    per_key_bytes = min(task.rotate_bytes, CIPHER_BYTES_MAX)
    by_bytes = task.streams * math.ceil(task.size_bytes / task.streams / per_key_bytes)
    keys = max(task.streams, by_bytes, task.streams * math.ceil(wire_s / task.rotate_s))
    needed_bits, available_bits = KEY_BITS * keys, status.stored_keys * status.key_size_bits
    short_bits = max(0, needed_bits - available_bits)
    keys_s = _until(short_bits, status)
    done_s = None if keys_s is None else max(wire_s, keys_s)
    why = "the throughput decides" if keys_s is not None and keys_s <= wire_s else "the key rate decides"
    if task.rotate_bytes > CIPHER_BYTES_MAX:
        why = f"rotate_bytes is above the limit of AES-GCM, {CIPHER_BYTES_MAX} bytes: lower it"
    if task.pad_rule == "required":
        why = "this site takes one-time pads only"
    fits = task.pad_rule != "required" and task.rotate_bytes <= CIPHER_BYTES_MAX and _in_time(done_s, task)
    return Way(
        name="aes",
        keys=keys,
        needed_bits=needed_bits,
        available_bits=available_bits,
        short_bits=short_bits,
        done_s=done_s,
        fits=fits,
        why=why,
    )


def _under_pad(task: Task, status: PoolStatus) -> Way:
    described = Details(name="n" * 64, size_bytes=task.size_bytes, source_mark=0, rotate_bytes=1, rotate_ms=1)
    budget = PadBudget.of(status, task.size_bytes, described)
    ready_s = budget.ready_in_s
    done_s = None if ready_s is None else ready_s + task.size_bytes / task.bytes_per_s
    why = "the pool has the bits" if not budget.short_bits else "the key rate decides"
    if task.size_bytes > task.pad_bytes_max:
        why = f"above pad_bytes_max = {task.pad_bytes_max}"
    if task.pad_rule == "off":
        why = "one-time pads are off for this site"
    allowed = task.pad_rule != "off" and task.size_bytes <= task.pad_bytes_max
    return Way(
        name="one-time pad",
        keys=budget.keys,
        needed_bits=budget.needed_bits,
        available_bits=budget.available_bits,
        short_bits=budget.short_bits,
        done_s=done_s,
        fits=allowed and _in_time(done_s, task),
        why=why,
    )


def _until(short_bits: int, status: PoolStatus) -> float | None:
    """Seconds until the pool has made up for `short_bits`; None where it never will, or nobody knows."""
    fill = status.extension.get(FILL, 0.0)
    if not short_bits:
        return 0.0
    return short_bits / fill if isinstance(fill, int | float) and fill > 0 else None


def _in_time(done_s: float | None, task: Task) -> bool:
    return done_s is not None and done_s <= task.within_s
