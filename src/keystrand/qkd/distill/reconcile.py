"""Reconciliation: the receiver's sifted bits become the transmitter's. One interface, two schemes.

Cascade (cascade.py) discloses least and takes hundreds of round trips, which several blocks in work hide on any fibre of
ordinary length. LDPC (ldpc.py) takes one or a few and discloses more: for ends that are far apart.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from keystrand.core.clock import Entropy
from keystrand.qkd.distill import cascade, ldpc
from keystrand.qkd.profile import LinkProfile, Scheme

Bits = NDArray[np.uint8]

BLOCKS_IN_WORK_MAX: Final = 4  # at once, so that one is worked on while others wait for an answer
CASCADE_ROUND_TRIPS: Final = 300
WORK_BPS: Final = 50e6  # sifted bits that a core reconciles, roughly
ROUND_TRIP_S_PER_KM: Final = 1e-5  # light in fibre, there and back


class Oracle(Protocol):
    """The transmitter's side. leak_bits: what it disclosed, every bit counted."""

    leak_bits: int

    def answer(self, query: bytes) -> bytes:
        """Raises PeerFault for a query that is malformed, out of order or without end."""


class Corrector(Protocol):
    """The receiver's side: `ask`, send, `hear` the answer, until `ask` returns None."""

    leak_bits: int
    round_trips: int

    @property
    def errors(self) -> int:
        """Bits corrected so far."""

    @property
    def corrected(self) -> Bits:
        """The bits as far as they are corrected: uint8 of 0/1."""

    def ask(self) -> bytes | None:
        """The next query, or None when nothing more is planned."""

    def hear(self, answer: bytes) -> None:
        """Raises PeerFault where it does not fit the query."""

    def extend(self) -> None:
        """Plan further work, because verification failed. Raises PeerFault where the block is lost."""


def oracle(scheme: Scheme, sifted: Bits, *, qber_estimate: float, seed: bytes, entropy: Entropy) -> Oracle:
    """The transmitter's side of `scheme` (not AUTO)."""
    if scheme is Scheme.CASCADE:
        return cascade.Oracle(sifted, qber_estimate=qber_estimate, seed=seed)
    private = entropy.bytes(ldpc.Layout.plan(sifted.size, qber_estimate).private_bytes())
    return ldpc.Oracle(sifted, qber_estimate=qber_estimate, seed=seed, private=private)


def corrector(scheme: Scheme, sifted: Bits, *, qber_estimate: float, seed: bytes) -> Corrector:
    """The receiver's side of `scheme` (not AUTO)."""
    kind = cascade.Corrector if scheme is Scheme.CASCADE else ldpc.Corrector
    return kind(sifted, qber_estimate=qber_estimate, seed=seed)


def choose(profile: LinkProfile) -> Scheme:
    """The scheme of a link: as its profile says; AUTO means Cascade as long as its waiting does not hold the link back."""
    rules, source = profile.distillation, profile.source
    if rules.reconciler is not Scheme.AUTO:
        return rules.reconciler
    click = 1 - np.exp(-source.mu * profile.transmittance * profile.detector.efficiency)
    gates = 1 / (1 / max(click * source.clock_hz, 1e-9) + profile.detector.dead_time_s)
    sifted_bps = gates * source.p_key_basis**2
    wait_s = _cascade_wait_s(profile) / BLOCKS_IN_WORK_MAX
    return Scheme.LDPC if sifted_bps * wait_s > rules.block_sifted_bits else Scheme.CASCADE


def blocks_in_work(profile: LinkProfile) -> int:
    """How many blocks the ends of a link correct at once: enough for one to be on the fibre and one in hand, and no more, as
    each takes its share of the processor's caches."""
    if choose(profile) is Scheme.LDPC:
        return 2
    work_s = profile.distillation.block_sifted_bits / WORK_BPS
    return min(BLOCKS_IN_WORK_MAX, 2 + int(_cascade_wait_s(profile) / work_s))


def _cascade_wait_s(profile: LinkProfile) -> float:
    return CASCADE_ROUND_TRIPS * ROUND_TRIP_S_PER_KM * profile.fibre.length_km
