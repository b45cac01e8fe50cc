"""Distillation of one small block, step by step, for a reader: the same functions that a link runs, on bits that fit a screen.

What stands in brackets is secret to both ends; everything else was said in public, and an eavesdropper knows it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.distill import amplify, cascade, verify
from keystrand.qkd.distill.estimate import binary_entropy

Bits = NDArray[np.uint8]
BASES = "+x"  # key basis, test basis


@dataclass(frozen=True, slots=True)
class Step:
    """One stage: its name, what is done and why, what there is to see, and figures for machines."""

    stage: str
    why: str
    shown: tuple[str, ...]
    facts: dict[str, object]


def text(bits: Bits) -> str:
    return "".join(str(bit) for bit in bits)


def distil(*, clicks: int, qber: float, seed: int) -> Iterator[Step]:
    """The stages in order. `clicks` pulses that were detected, `qber` their error rate in the right basis; seeded."""
    rng = np.random.default_rng(seed)
    sent, bases = rng.integers(0, 2, clicks, dtype=np.uint8), (rng.random(clicks) < 0.25).astype(np.uint8)
    measured = (rng.random(clicks) < 0.25).astype(np.uint8)
    noise = np.where(bases == measured, rng.random(clicks) < qber, rng.random(clicks) < 0.5)
    got = sent ^ noise.astype(np.uint8)
    yield _raw(sent, bases, measured, got)
    same = bases == measured
    test, key = same & (bases == 1), same & (bases == 0)
    alice, bob = sent[key], got[key]
    yield _sifted(bases, measured, alice, bob)
    wrong = int(np.count_nonzero(sent[test] ^ got[test]))
    estimate = min(max(wrong / max(int(test.sum()), 1), 0.01), 0.25)
    yield _estimated(sent[test], got[test], estimate)
    public = rng.bytes(32)
    corrector, leak_bits = cascade.Corrector(bob, qber_estimate=estimate, seed=public), 0
    oracle = cascade.Oracle(alice, qber_estimate=estimate, seed=public)
    asked: list[str] = []
    while (query := corrector.ask()) is not None:
        answer = oracle.answer(query)
        before, leak_bits = leak_bits, oracle.leak_bits
        asked.append(f"{_asked(query)}: {leak_bits - before} parities")
        corrector.hear(answer)
    yield _reconciled(alice, bob, corrector, asked)
    yield _verified(alice, corrector.corrected, rng.bytes(verify.SEED_BYTES))
    yield _amplified(corrector.corrected, estimate, leak_bits + verify.TAG_BITS, rng)


def _raw(sent: Bits, bases: Bits, measured: Bits, got: Bits) -> Step:
    return Step(
        "raw",
        "Alice sent bits in random bases; these pulses clicked at Bob, who chose bases of his own.",
        (
            f"Alice's basis  {''.join(BASES[b] for b in bases)}",
            f"Alice's bit   [{text(sent)}]",
            f"Bob's basis    {''.join(BASES[b] for b in measured)}",
            f"Bob's bit     [{text(got)}]",
        ),
        {"clicks": sent.size},
    )


def _sifted(bases: Bits, measured: Bits, alice: Bits, bob: Bits) -> Step:
    kept = "".join("^" if a == b == 0 else ("t" if a == b else " ") for a, b in zip(bases, measured, strict=True))
    return Step(
        "sifted",
        "Bases are compared in public. ^: both measured in the key basis, kept; t: both in the test basis, told openly.",
        (f"               {kept}", f"Alice keeps   [{text(alice)}]", f"Bob keeps     [{text(bob)}]"),
        {"sifted_bits": alice.size},
    )


def _estimated(told: Bits, seen: Bits, estimate: float) -> Step:
    wrong = int(np.count_nonzero(told ^ seen))
    return Step(
        "estimated",
        "Bits of the test basis never become key; their errors tell how much an eavesdropper may know.",
        (
            f"Alice says     {text(told)}",
            f"Bob says       {text(seen)}",
            f"{wrong} of {told.size} differ: {estimate:.1%}",
        ),
        {"test_bits": told.size, "test_errors": wrong},
    )


def _asked(query: bytes) -> str:
    names = {
        cascade.TOPS: "blocks of pass",
        cascade.SWEEP: "halves of odd blocks of pass",
        cascade.STEP: "the next halves",
    }
    step = "" if query[4] == cascade.STEP else f" {query[5] + 1}"
    return names[query[4]] + step


def _reconciled(alice: Bits, bob: Bits, corrector: cascade.Corrector, asked: list[str]) -> Step:
    marks = "".join("^" if a != b else " " for a, b in zip(alice, bob, strict=True))
    shannon = alice.size * binary_entropy(float(np.mean(alice != bob)))
    return Step(
        "reconciled",
        "Bob asks for parities of blocks; an odd one hides an error, which halving finds. Every parity is one bit leaked.",
        (
            *asked[:12],
            *([f"and {len(asked) - 12} more questions"] if len(asked) > 12 else []),
            f"Alice         [{text(alice)}]",
            f"Bob before    [{text(bob)}]",
            f"errors         {marks}",
            f"Bob after     [{text(corrector.corrected)}]",
            f"{corrector.errors} errors, {corrector.leak_bits} bits leaked; {shannon:.0f} are the least on average",
        ),
        {"errors": corrector.errors, "leak_bits": corrector.leak_bits, "round_trips": corrector.round_trips},
    )


def _verified(alice: Bits, corrected: Bits, seed: bytes) -> Step:
    tags = verify.tag(alice, seed=seed).hex(), verify.tag(corrected, seed=seed).hex()
    bound = verify.collision_bound(alice.size)
    return Step(
        "verified",
        "Both hash what they hold under a seed drawn just now. Different strings have the same tag with a chance of "
        f"{bound:.0e} at most.",
        (
            f"Alice's tag    {tags[0]}",
            f"Bob's tag      {tags[1]}",
            "equal" if tags[0] == tags[1] else "different: correct further",
        ),
        {"equal": tags[0] == tags[1]},
    )


def _amplified(corrected: Bits, error_rate: float, leak_bits: int, rng: np.random.Generator) -> Step:
    """By the asymptotic rate of an ideal source: a block this small has no secret bit by any finite-key bound."""
    ideal = corrected.size * (1 - binary_entropy(error_rate)) - leak_bits
    length = max(8, int(ideal) // 8 * 8)
    seed = rng.bytes(amplify.seed_bytes(corrected.size))
    secret = amplify.amplify(corrected, seed=seed, length_bits=length).reveal()
    return Step(
        "secret",
        "Each secret bit is one bit, and to it the parity of a random half of those that are given up (a Toeplitz matrix): "
        "who lacks enough of them knows nothing.",
        (
            f"seed           {seed.hex()[:48]}... ({8 * len(seed)} public bits)",
            f"secret        [{secret.hex()}]",
            f"{corrected.size} bits, less what the light may have told and {leak_bits} bits that were said: {ideal:.0f}",
            "(by the limit of endless blocks; a finite-key bound leaves none to a block this small)",
            *(["nothing is left, so the 8 bits shown are no key: try --clicks 4000"] if ideal < 8 else []),
        ),
        {"secret_bits": length if ideal >= 8 else 0, "leak_bits": leak_bits},
    )
