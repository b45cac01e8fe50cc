"""Kernels against textbook twins, with and without compilation, and where no cache can be kept."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.qkd.kernels import cascade, kernel

SCRIPT = """
import numpy as np
from keystrand.qkd.distill.reconcile import Corrector, Oracle
rng = np.random.default_rng(3)
sent = rng.integers(0, 2, 600, dtype=np.uint8)
received = sent ^ (rng.random(600) < 0.03).astype(np.uint8)
oracle = Oracle(sent, qber_estimate=0.03, seed=b"public")
corrector = Corrector(received, qber_estimate=0.03, seed=b"public")
while (query := corrector.ask()) is not None:
    corrector.hear(oracle.answer(query))
print(corrector.leak_bits, corrector.errors, corrector.round_trips, corrector.corrected.tobytes().hex())
"""


def run(**environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, **environment}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compiled_and_plain_kernels_agree():
    assert run(NUMBA_DISABLE_JIT="1") == run(NUMBA_DISABLE_JIT="0")


def test_a_kernel_works_where_no_cache_can_be_kept():
    names = {}
    exec("def double(x):\n    return 2 * x", names)  # no source file, so numba finds no place for a cache
    if not numba.config.DISABLE_JIT:
        with pytest.raises(RuntimeError, match="no locator"):
            numba.njit(cache=True)(names["double"])
    assert kernel(names["double"])(21) == 42


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 130), st.integers(0, 2**32))
def test_weave_is_undone_by_unweave(size, frames, rng_seed):
    bits = np.random.default_rng(rng_seed).integers(0, 2, size * frames, dtype=np.uint8)
    words = np.zeros((-(-frames // 64), size), np.uint64)
    cascade.weave(bits, words, frames)
    assert all(int(words[f >> 6, i]) >> (f & 63) & 1 == bits[f * size + i] for f in range(frames) for i in range(size))
    out = np.empty_like(bits)
    cascade.unweave(words, out, frames)
    assert np.array_equal(out, bits)


def textbook_scatter(seed, size, slots):
    order, state = list(range(size)), seed
    for i in range(size - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        j = ((z ^ z >> 31) >> 32) * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return [slots + rank * slots // size for rank in order]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 100), st.integers(0, 2**64 - 1))
def test_scatter_and_grow_equal_their_textbook_twins(size, seed):
    slots = 1 << (size - 1).bit_length()
    leaves, bit_at = np.zeros(size, np.int32), np.zeros(slots, np.int32)
    with np.errstate(over="ignore"):
        cascade.scatter(np.uint64(seed), leaves, bit_at)
    assert leaves.tolist() == textbook_scatter(seed, size, slots)
    assert sorted(bit_at[bit_at >= 0].tolist()) == list(range(size))
    assert all(bit_at[leaves[i] - slots] == i for i in range(size))

    words = np.random.default_rng(seed).integers(0, 2**64, (1, size), dtype=np.uint64)
    trees = np.zeros((1, 2 * slots), np.uint64)
    cascade.grow(words, leaves, trees)
    for node in range(1, 2 * slots):
        below = [i for i in range(size) if any(int(leaves[i]) >> k == node for k in range(slots.bit_length()))]
        assert trees[0, node] == np.bitwise_xor.reduce(words[0, below]) if below else trees[0, node] == 0


def test_every_late_block_has_its_share_of_the_bits():
    size, slots = 40_000, 65_536
    leaves, bit_at = np.zeros(size, np.int32), np.zeros(slots, np.int32)
    cascade.scatter(np.uint64(5), leaves, bit_at)
    assert np.bincount(leaves >> 15, minlength=4)[2:].tolist() == pytest.approx([size / 2] * 2, abs=1)
