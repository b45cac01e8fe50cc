"""Reconcile and verify many sifted bits and count the errors that nobody noticed: python -m bench.bench_distill --bits 1e9"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".numba_cache"))

import numpy as np

from bench.report import Row, publish
from keystrand.core.errors import PeerFault
from keystrand.qkd.distill import amplify, cascade, verify

BLOCK_BITS: Final = 64 * cascade.FRAME_BITS_MAX
EXTENSIONS_MAX: Final = 8


@dataclass(slots=True)
class Tally:
    """Sums over the blocks of one run."""

    bits: int = 0
    errors: int = 0
    leak_bits: int = 0
    round_trips: int = 0
    blocks: int = 0
    caught: int = 0  # tags that did not fit: residual errors noticed
    lost_blocks: int = 0  # given up after EXTENSIONS_MAX further attempts
    undetected: int = 0  # wrong bits behind a tag that fits
    spent_s: float = 0.0  # both ends together, on one core


def converse(corrector: cascade.Corrector, oracle: cascade.Oracle) -> None:
    while (query := corrector.ask()) is not None:
        corrector.hear(oracle.answer(query))


def agree(corrector: cascade.Corrector, oracle: cascade.Oracle, sent: cascade.Bits, tally: Tally) -> bool:
    """Reconcile until the tags fit; False where they never do."""
    for _ in range(EXTENSIONS_MAX):
        converse(corrector, oracle)
        seed = os.urandom(verify.SEED_BYTES)
        tally.leak_bits += verify.TAG_BITS
        if verify.tag(corrector.corrected, seed=seed) == verify.tag(sent, seed=seed):
            return True
        tally.caught += 1
        corrector.extend()
    return False


def run_block(rng: np.random.Generator, size: int, qber: float, tally: Tally) -> None:
    sent = rng.integers(0, 2, size, dtype=np.uint8)
    flips = (rng.random(size, dtype=np.float32) < qber).astype(np.uint8)
    received, seed = sent ^ flips, os.urandom(32)
    begun_s = time.process_time()
    oracle = cascade.Oracle(sent, qber_estimate=qber, seed=seed)
    corrector = cascade.Corrector(received, qber_estimate=qber, seed=seed)
    try:
        agreed = agree(corrector, oracle, sent, tally)
    except PeerFault:
        agreed = False
    tally.spent_s += time.process_time() - begun_s
    assert corrector.leak_bits == oracle.leak_bits
    tally.undetected += int(np.count_nonzero(corrector.corrected != sent)) if agreed else 0
    tally.lost_blocks += not agreed
    tally.blocks += 1
    tally.bits += size
    tally.errors += int(flips.sum())
    tally.leak_bits += corrector.leak_bits
    tally.round_trips += corrector.round_trips


def amplify_mbps(size: int) -> float:
    """Speed of privacy amplification of `size` bits to half of them."""
    rng = np.random.default_rng(1)
    bits, seed = rng.integers(0, 2, size, dtype=np.uint8), rng.bytes(amplify.seed_bytes(size))
    begun_s = time.process_time()
    amplify.amplify(bits, seed=seed, length_bits=size // 2)
    return size / (time.process_time() - begun_s) / 1e6


def entropy(p: float) -> float:
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p) if 0 < p < 1 else 0.0


def rows(tally: Tally, qber: float) -> list[Row]:
    shannon_bits = tally.bits * entropy(tally.errors / tally.bits)
    speed = tally.bits / tally.spent_s / 1e6
    cascade = "Mao et al. 2021: 1.038; Mueller et al. 2024 discuss the trade-off"
    return [
        Row(name="sifted bits", value=tally.bits, unit="bit", goal=1e9, note=f"QBER {qber:.3g}"),
        Row(name="undetected errors", value=tally.undetected, unit="bit", goal=0, better="lower"),
        Row(name="tags that did not fit", value=tally.caught, unit="count"),
        Row(name="blocks", value=tally.blocks, unit="count", note=f"of {BLOCK_BITS} bit"),
        Row(name="blocks lost", value=tally.lost_blocks, unit="count", goal=0, better="lower"),
        Row(name="f_ec", value=tally.leak_bits / shannon_bits, unit="", goal=1.05, better="lower", note=cascade),
        Row(name="round trips per block", value=tally.round_trips / tally.blocks, unit="count"),
        Row(name="reconcile, both ends", value=speed, unit="Mbit/s/core", goal=20, note="cascade-cpp: 10 to 30"),
        Row(name="amplify 1e6 bit by half", value=amplify_mbps(1_000_000), unit="Mbit/s/core", goal=5),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=float, default=1e8)
    parser.add_argument("--qber", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, tally, said = np.random.default_rng(options.seed), Tally(), 0
    run_block(np.random.default_rng(0), 10_000, options.qber, Tally())  # compile
    while tally.bits < options.bits:
        run_block(rng, min(BLOCK_BITS, int(options.bits) - tally.bits), options.qber, tally)
        if (percent := int(100 * tally.bits / options.bits)) >= said + 5:
            said = percent
            print(f"{percent} %: {tally.undetected} undetected, {tally.caught} caught", file=sys.stderr, flush=True)
    return 0 if publish("distill", rows(tally, options.qber)) else 1


if __name__ == "__main__":
    sys.exit(main())
