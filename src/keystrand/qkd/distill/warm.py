"""What a process does before its first block: compile the kernels or load them from disk, and keep memory between blocks."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

import numpy as np

from keystrand.core.clock import SystemEntropy
from keystrand.qkd.distill import amplify, reconcile, verify
from keystrand.qkd.distill.sift import Sifted, SiftedBuffer
from keystrand.qkd.profile import LinkProfile, Scheme

M_TRIM_THRESHOLD: Final = -1  # malloc.h of glibc
M_MMAP_THRESHOLD: Final = -3
KEPT_BYTES: Final = 1 << 30
MAPPED_FROM_BYTES: Final = 32 << 20  # the most that glibc takes
WARM_BITS: Final = 20_000
WARM_QBER: Final = 0.03


def warm_up(profile: LinkProfile | None = None) -> None:
    """One small block through everything that the link of `profile` uses; all schemes where none is given."""
    keep_memory()
    schemes = [reconcile.choose(profile)] if profile else [Scheme.CASCADE, Scheme.LDPC]
    _sift()
    for scheme in schemes:
        _distil(scheme)


def keep_memory() -> None:
    """Have freed memory kept for the next block: each one takes the same tens of megabytes, and to fetch them from the system
    page by page costs an eighth of its time. Where the allocator is not glibc's nothing changes."""
    with contextlib.suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None).mallopt
        for option, value in ((M_TRIM_THRESHOLD, KEPT_BYTES), (M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)):
            allocator(option, value)


def _sift() -> None:
    nothing, buffer = np.zeros(WARM_BITS, np.uint8), SiftedBuffer(2)
    buffer.add(Sifted.of(nothing, nothing, nothing, nothing), 1)
    buffer.cut(WARM_BITS)


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
