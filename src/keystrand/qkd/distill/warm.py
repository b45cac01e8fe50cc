"""Compile the kernels ahead of the first block, or load them from the cache on disk."""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from keystrand.core.clock import SystemEntropy
from keystrand.qkd.distill import amplify, reconcile, verify
from keystrand.qkd.profile import LinkProfile, Scheme

WARM_BITS: Final = 20_000
WARM_QBER: Final = 0.03


def warm_up(profile: LinkProfile | None = None) -> None:
    """One small block through everything that the link of `profile` uses; all schemes where none is given."""
    schemes = [reconcile.choose(profile)] if profile else [Scheme.CASCADE, Scheme.LDPC]
    for scheme in schemes:
        _distil(scheme)


def _distil(scheme: Scheme) -> None:
    seed = os.urandom(verify.SEED_BYTES)
    sent = np.frombuffer(os.urandom(WARM_BITS), np.uint8) & np.uint8(1)
    received = sent.copy()
    received[:: round(1 / WARM_QBER)] ^= 1
    oracle = reconcile.oracle(scheme, sent, qber_estimate=WARM_QBER, seed=seed, entropy=SystemEntropy())
    corrector = reconcile.corrector(scheme, received, qber_estimate=WARM_QBER, seed=seed)
    while (query := corrector.ask()) is not None:
        corrector.hear(oracle.answer(query))
    verify.tag(corrector.corrected, seed=seed)
    half = WARM_BITS // 2
    amplify.amplify(corrector.corrected, seed=os.urandom(amplify.seed_bytes(WARM_BITS)), length_bits=half)
