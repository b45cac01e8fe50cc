"""Which keys a tunnel takes: those of the required protection; when there are none, what the operator has written."""

from __future__ import annotations

from dataclasses import dataclass

from keystrand.core.errors import NotPermitted
from keystrand.core.protection import Protection


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What may carry traffic for `for_s` seconds after the last good key grew too old."""

    protection: Protection
    for_s: float


@dataclass(slots=True)
class Guard:
    """Judges by the clock and by what was in use. good_s: until when a key of the required protection was in use last.

    hold_s: how long a key may carry traffic; 0: for ever. Without a fallback nothing below `require` is ever taken.
    """

    require: Protection
    hold_s: float
    fallback: Fallback | None
    good_s: float
    below: bool = False  # what is in use has less than the required protection

    def check(self, protection: Protection, now_s: float) -> None:
        """Raises NotPermitted for a key that must not come into use now."""
        if protection >= self.require:
            return
        fallback = self.fallback
        low = f"the key is {protection.label}, this tunnel requires {self.require.label}"
        if fallback is None or protection < fallback.protection:
            raise NotPermitted(low, hint="see the rule for these SAEs: keystrand policy explain")
        if now_s < self.good_s + self.hold_s:
            raise NotPermitted(f"{low} as long as the key in use is young enough")
        if now_s >= self.good_s + self.hold_s + fallback.for_s:
            raise NotPermitted(f"{low}, and the time for less is over")

    def took(self, protection: Protection, now_s: float) -> None:
        """A key of this protection is in use from now on."""
        self.below = protection < self.require
        if not self.below:
            self.good_s = now_s

    def falls_back_s(self, now_s: float) -> float:
        """For how long what is in use has been less than it should be, and may be; 0: it is what it should be."""
        if self.fallback is None or not self.hold_s:
            return 0.0
        return max(0.0, now_s - self.good_s - self.hold_s)

    def hold_from(self, since_s: float) -> float:
        """Seconds from `since_s` on after which what is in use must not carry traffic any more; 0: no end."""
        if not self.hold_s:
            return 0.0
        end_s = since_s + self.hold_s
        if self.fallback is not None:
            end_s = self.good_s + self.hold_s + self.fallback.for_s
        return max(0.001, end_s - since_s)
