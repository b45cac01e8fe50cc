"""What a device can do, as its maker states it, and whether two devices can feed one link together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keystrand.core.pool import PoolStatus
from keystrand.sources.device import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Of one device. interfaces: those that it delivers key by; key_ids: what names a key at both ends."""

    interfaces: tuple[str, ...]
    key_bits_min: int
    key_bits_max: int
    key_ids: str

    def lacks(self, kind: Kind, key_bits: int) -> Iterator[str]:
        """Why it cannot serve a source of this kind that asks for keys of this length."""
        if kind not in self.interfaces:
            yield f"delivers by {' and '.join(self.interfaces)}, not by {kind}"
        if not self.key_bits_min <= key_bits <= self.key_bits_max:
            yield f"has keys of {self.key_bits_min} to {self.key_bits_max} bits, not of {key_bits}"


def departs(status: PoolStatus, device: Capabilities, key_bits: int, number: int) -> Iterator[str]:
    """Where what a device says of itself (ETSI GS QKD 014 V1.1.1, 6.1) is not enough for what is asked, or not what its maker
    states."""
    shortest, longest = status.key_size_bits_min, status.key_size_bits_max
    if not shortest <= key_bits <= longest:
        yield f"it has keys of {shortest} to {longest} bits, and is asked for {key_bits}"
    if number > status.keys_per_request_max:
        yield f"it gives {status.keys_per_request_max} keys at once, and is asked for {number}: lower keys_per_block"
    if device.key_bits_min < shortest or device.key_bits_max > longest:
        yield f"it has keys of {shortest} to {longest} bits; the file says {device.key_bits_min} to {device.key_bits_max}"


def apart(one: Capabilities, other: Capabilities) -> Iterator[str]:
    """Why these two cannot feed one link; nothing where they can."""
    share_one = bool(set(one.interfaces) & set(other.interfaces))
    if not share_one:
        yield f"no common interface: {' and '.join(one.interfaces)} here, {' and '.join(other.interfaces)} there"
    if one.key_bits_min > other.key_bits_max or other.key_bits_min > one.key_bits_max:
        yield (
            f"no common key length: {one.key_bits_min} to {one.key_bits_max} bits here, "
            f"{other.key_bits_min} to {other.key_bits_max} there"
        )
    if share_one and one.key_ids != other.key_ids:  # without one, the names differ for that reason
        yield f"keys are named by {one.key_ids} here and by {other.key_ids} there, so the ends cannot tell them apart"
