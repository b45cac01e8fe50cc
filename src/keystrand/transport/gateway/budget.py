"""What a one-time pad costs in key bits, what the KME has, and when it will have enough. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from keystrand.core.errors import KeyUnavailable
from keystrand.core.key import Key
from keystrand.core.pool import PoolStatus
from keystrand.core.protection import Protection, Strand
from keystrand.crypto.pad import OVERHEAD_BYTES
from keystrand.transport.gateway.frames import Details

FILL: Final = "keystrand_fill_bps"  # members of the status extension
SIMULATED: Final = "keystrand_simulated"
REQUIRE: Final = "keystrand_require"


class BudgetShort(KeyUnavailable):
    """The pool lacks bits for a one-time pad; nothing was drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PadBudget:
    """needed_bits: of the pad and its two MAC keys; available_bits: free in the pool now; fill_bps: at which it grows, 0
    where the KME does not tell. Keys are drawn by key_size_bits, up to keys_per_request at once."""

    needed_bits: int
    available_bits: int
    fill_bps: float
    key_size_bits: int
    keys_per_request: int

    @classmethod
    def of(cls, status: PoolStatus, content_bytes: int, details: Details) -> PadBudget:
        """For a content of `content_bytes` whose `details` go under the pad, too."""
        fill = status.extension.get(FILL, 0.0)
        return cls(
            needed_bits=8 * (OVERHEAD_BYTES + len(details.pack()) + content_bytes),
            available_bits=status.stored_keys * status.key_size_bits,
            fill_bps=float(fill) if isinstance(fill, int | float) else 0.0,
            key_size_bits=status.key_size_bits,
            keys_per_request=status.keys_per_request_max,
        )

    @property
    def keys(self) -> int:
        return -(-self.needed_bits // self.key_size_bits)

    @property
    def short_bits(self) -> int:
        """What is missing; whole keys are drawn."""
        return max(0, self.keys * self.key_size_bits - self.available_bits)

    @property
    def ready_in_s(self) -> float | None:
        """When the pool suffices at the present rate; None where it never will, or nobody knows."""
        if not self.short_bits:
            return 0.0
        return self.short_bits / self.fill_bps if self.fill_bps > 0 else None

    def draws(self) -> Iterable[int]:
        """How many keys each request asks for."""
        whole, rest = divmod(self.keys, self.keys_per_request)
        return [self.keys_per_request] * whole + [rest] * bool(rest)

    def require(self) -> None:
        """Raises BudgetShort, which says what is missing and for how long."""
        if self.short_bits:
            ready_s = self.ready_in_s
            when = "the KME tells no rate" if ready_s is None else f"at {self.fill_bps:.0f} bit/s in {ready_s:.0f} s"
            raise BudgetShort(
                f"a one-time pad needs {self.needed_bits} bits, {self.available_bits} are available, "
                f"{self.short_bits} are missing ({when})",
                hint="wait, send less, or send under rotating AES keys (without --one-time-pad)",
                retry_after_s=min(ready_s or 60.0, 3600.0),
            )


def secrecy_of(keys: Iterable[Key], status: PoolStatus) -> str:
    """What may be said of a content under a one-time pad of these keys: never more than is known."""
    strands = {key.strands for key in keys}
    simulated = status.extension.get(SIMULATED)
    if strands != {frozenset({Strand.QKD})}:
        level = min(Protection.of(woven) for woven in strands)
        return f"one-time pad of {level.label} keys, as secret as these are, not ITS"
    if simulated == 0:
        return "one-time pad of QKD bits with a Wegman–Carter MAC: ITS, as far as both sites and their QKD devices keep faith"
    why = "simulated photons" if simulated else "the KME does not tell of what device"
    return f"one-time pad of QKD bits with a Wegman–Carter MAC ({why}: nothing is claimed)"
