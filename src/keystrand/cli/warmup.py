"""keystrand warmup"""

from __future__ import annotations

import secrets
import time

import click

from keystrand.cli.terminal import say
from keystrand.core.errors import Unavailable

WARMUP_BITS = 20_000


@click.command()
def command() -> None:
    """Compile the number crunching of the simulated link ahead of its first use, into the cache on disk."""
    began_s = time.monotonic()
    try:
        _distill()
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed", hint='pip install "keystrand[sim]"') from None
    say(f"compiled in {time.monotonic() - began_s:.1f} s")


def _distill() -> None:
    """One small block through reconciliation, verification and amplification touches every kernel."""
    import numpy as np

    from keystrand.qkd.distill import amplify, cascade, verify

    seed = secrets.token_bytes(32)
    theirs = np.frombuffer(secrets.token_bytes(WARMUP_BITS), np.uint8) % np.uint8(2)
    ours = theirs.copy()
    ours[::50] ^= 1  # 2 % of errors
    corrector = cascade.Corrector(ours, qber_estimate=0.02, seed=seed)
    oracle = cascade.Oracle(theirs, qber_estimate=0.02, seed=seed)
    while (query := corrector.ask()) is not None:
        corrector.hear(oracle.answer(query))
    verify.tag(corrector.corrected, seed=seed)
    wanted_bits = WARMUP_BITS // 2
    public = secrets.token_bytes(amplify.seed_bytes(WARMUP_BITS, wanted_bits))
    amplify.amplify(corrector.corrected, seed=public, length_bits=wanted_bits)
