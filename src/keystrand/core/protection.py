"""Strands, and the protection that a set of strands gives."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from functools import cache


class Strand(StrEnum):
    """One source of secrecy. A key holds while any one of its strands holds."""

    QKD = "qkd"
    PQC = "pqc"
    CLASSICAL = "classical"


class Protection(IntEnum):
    """Ordered: a higher level satisfies every demand for a lower one.

    QKD stands above PQC only in this sense: where a policy asks for quantum keys, PQC alone does not do.
    """

    NONE = 0
    CLASSICAL = 1
    PQC = 2
    QKD = 3
    HYBRID = 4

    @property
    def label(self) -> str:
        """The word used in configuration files, audit records and metrics."""
        return self.name.lower()

    @classmethod
    def of(cls, strands: Iterable[Strand]) -> Protection:
        """The level that these strands give together."""
        return _level_of(frozenset(strands))

    @classmethod
    def parse(cls, word: str) -> Protection:
        """From the word in a file. Raises ValueError that lists the choices."""
        try:
            return cls[word.upper()]
        except KeyError:
            raise ValueError(f"{word!r} is none of {', '.join(level.label for level in cls)}") from None


@cache
def _level_of(strands: frozenset[Strand]) -> Protection:
    if {Strand.QKD, Strand.PQC} <= strands:
        return Protection.HYBRID
    if Strand.QKD in strands:
        return Protection.QKD
    if Strand.PQC in strands:
        return Protection.PQC
    return Protection.CLASSICAL if strands else Protection.NONE


@cache
def names_of(strands: frozenset[Strand]) -> tuple[str, ...]:
    """The words of these strands, sorted: as records, messages and rows have them."""
    return tuple(sorted(strand.value for strand in strands))


def strands_for(required: Protection) -> frozenset[Strand]:
    """The strands that a KME weaves into a key so that it reaches `required` exactly."""
    return {
        Protection.HYBRID: frozenset({Strand.QKD, Strand.PQC}),
        Protection.QKD: frozenset({Strand.QKD}),
        Protection.PQC: frozenset({Strand.PQC}),
        Protection.CLASSICAL: frozenset({Strand.CLASSICAL}),
        Protection.NONE: frozenset[Strand](),
    }[required]
