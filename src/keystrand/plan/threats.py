"""Threats against a link, and which of its layers reduce which: data, so that page, score and test read one table."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from keystrand.plan.pattern import Layer, Pattern
from keystrand.plan.shelf import shipped_rows

LAYER_KEYS: Final = {
    "hardened": Layer.HARDENED,
    "pqc": Layer.PQC,
    "qkd-refresh": Layer.QKD_REFRESH,
    "multi-source": Layer.MULTI_SOURCE,
    "qkd-otp": Layer.QKD_OTP,
}


class Effect(StrEnum):
    """What a layer, or a pattern, does about a threat. There is no "solved"."""

    REDUCED = "reduced"
    NOT_REDUCED = "not reduced"


class Threat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row. `reduced_by` has for each layer that reduces the threat why it does."""

    name: str
    says: Annotated[str, Meta(description="in words for everybody")]
    attack_class: Annotated[str, Meta(description="what a vendor would have to claim to reduce")]
    validated_by: Annotated[str, Meta(description="what would show that it is reduced")]
    reduced_by: dict[str, str] = {}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """That reduce it, in the order of the layers."""
        return tuple(layer for key, layer in LAYER_KEYS.items() if key in self.reduced_by)

    def under(self, pattern: Pattern) -> Effect:
        """What the pattern does about it: a pattern reduces what any of its layers reduces."""
        return Effect.REDUCED if set(self.layers) & set(pattern.layers) else Effect.NOT_REDUCED


def threats() -> tuple[Threat, ...]:
    """The shipped threats, in the order of the table. Raises ValueError where one names a layer that there is not."""
    table = shipped_rows("threats", "threats", Threat)
    for threat in table:
        if unknown := threat.reduced_by.keys() - LAYER_KEYS.keys():
            raise ValueError(f"{threat.name} names layers that there are not: {', '.join(sorted(unknown))}")
    return table


def attack_class(words: str) -> Threat | None:
    """The threat whose attack class, or name, these words are; None where no row of the matrix is meant."""
    asked = words.strip().lower()
    return next((threat for threat in threats() if asked in (threat.name, threat.attack_class.lower())), None)
