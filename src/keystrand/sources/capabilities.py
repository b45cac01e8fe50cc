"""What a device can do, as its maker states it, and whether two devices can feed one link together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keystrand.sources.device import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Of one device. interfaces: those that it delivers key by; rate_bps: of secret key, 0: not stated."""

    interfaces: tuple[str, ...]
    key_bits_min: int
    key_bits_max: int
    key_ids: str
    rate_bps: int = 0

    def lacks(self, kind: Kind, key_bits: int) -> Iterator[str]:
        """Why it cannot serve a source of this kind that asks for keys of this length."""
        if kind not in self.interfaces:
            yield f"delivers by {' and '.join(self.interfaces)}, not by {kind}"
        if not self.key_bits_min <= key_bits <= self.key_bits_max:
            yield f"has keys of {self.key_bits_min} to {self.key_bits_max} bits, not of {key_bits}"


def apart(one: Capabilities, other: Capabilities) -> Iterator[str]:
    """Why these two cannot feed one link; nothing where they can."""
    if not set(one.interfaces) & set(other.interfaces):
        yield f"no common interface: {' and '.join(one.interfaces)} here, {' and '.join(other.interfaces)} there"
    if one.key_bits_min > other.key_bits_max or other.key_bits_min > one.key_bits_max:
        yield (
            f"no common key length: {one.key_bits_min} to {one.key_bits_max} bits here, "
            f"{other.key_bits_min} to {other.key_bits_max} there"
        )
    if one.key_ids != other.key_ids:
        yield f"keys are named by {one.key_ids} here and by {other.key_ids} there, so the ends cannot tell them apart"
