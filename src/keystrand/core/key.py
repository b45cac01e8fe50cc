"""Block and Key: the bits that a link delivers, and the named key that two sites make of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from keystrand.core.protection import Protection, Strand
from keystrand.core.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a block came to be: what the QKD module measured and what it spent. Facts for audit, metrics and planning.

    qber: error rate of the sifted key basis; qber_test: that of the test basis; eps_sec: chance that the block is not
    secret; eps_cor: chance that it is not the same at both ends, or that a forged message passed (what was asked for, plus
    the bounds of the verification hash and of the tags); bound_bits: the finite-key bound that secret_bits stays below.
    """

    source: str  # "simulated-bb84", or the vendor and model of a device
    sifted_bits: int = 0
    secret_bits: int = 0
    bound_bits: int = 0
    leak_ec_bits: int = 0
    auth_bits: int = 0
    qber: float = 0.0
    qber_test: float = 0.0
    eps_sec: float = 0.0
    eps_cor: float = 0.0
    duration_s: float = 0.0  # of quantum transmission, as the source's clock counts it


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Secret bits of one link, the same at both ends. `sequence` counts the link's blocks from 0 and never repeats."""

    link: str
    sequence: int
    material: Secret = field(repr=False, compare=False)
    provenance: Provenance

    @property
    def length_bits(self) -> int:
        return self.material.length_bits


class Segment(NamedTuple):
    """`length_bits` bits of pool block `block_id` from bit `offset_bits` on. Both are multiples of 8."""

    block_id: str
    offset_bits: int
    length_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A managed key as its recipients know it: a name, the material, and what stands behind it."""

    key_id: str
    material: Secret = field(repr=False, compare=False)
    strands: frozenset[Strand]

    @property
    def protection(self) -> Protection:
        return Protection.of(self.strands)
