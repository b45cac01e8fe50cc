"""Kernels against textbook twins, with and without compilation, and where no cache can be kept."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.qkd.twins import textbook_shuffle

from keystrand.qkd.distill.packed import from_bytes, to_bytes, unweave, weave
from keystrand.qkd.kernels import cascade, kernel, optics, words

SCRIPT = """
import numpy as np
from keystrand.qkd.distill.cascade import Corrector, Oracle
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


def test_kernels_keep_no_reference_to_what_they_were_given():
    rng, out = np.random.default_rng(1), np.empty(8, np.int64)
    optics.gaps(rng, 0.5, 0, 100, out)
    before = sys.getrefcount(rng), sys.getrefcount(rng.bit_generator), sys.getrefcount(out)
    for _ in range(5):
        optics.gaps(rng, 0.5, 0, 100, out)
        words.write(out.view(np.uint64), 0, np.uint64(1), 1)
    assert (sys.getrefcount(rng), sys.getrefcount(rng.bit_generator), sys.getrefcount(out)) == before


@settings(deadline=None)
@given(st.integers(1, 70), st.integers(1, 200), st.integers(0, 70), st.integers(0, 2**32))
def test_weave_is_undone_by_unweave(size, frames, missing, rng_seed):
    bits = np.random.default_rng(rng_seed).integers(0, 2, max(1, size * frames - missing), dtype=np.uint8)
    rows = weave(bits, frames, size)
    assert rows.shape == (-(-frames // 64), size)
    out = unweave(rows, frames)
    assert np.array_equal(out[: bits.size], bits)
    assert not out[bits.size :].any()
    for place, bit in enumerate(bits):
        group, rest = divmod(place, 64 * size)
        lanes = min(64, frames - 64 * group)
        assert int(rows[group, rest // lanes]) >> rest % lanes & 1 == bit


WORD = st.integers(0, 2**64 - 1).map(np.uint64)


@given(WORD, WORD)
def test_gather_and_spread_move_the_bits_under_a_mask(word, mask):
    places = [i for i in range(64) if int(mask) >> i & 1]
    gathered = sum((int(word) >> place & 1) << i for i, place in enumerate(places))
    spread = sum((int(word) >> i & 1) << place for i, place in enumerate(places))
    for gather, back in ((words.gather, words.spread), (words._gather, words._spread)):
        assert int(gather(word, mask)) == gathered
        assert int(back(word, mask)) == spread
    with np.errstate(over="ignore"):
        assert words.count(mask) == words._count(mask) == len(places)


@given(st.lists(st.integers(0, 64).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 2**n - 1))), max_size=40))
def test_a_stream_gives_back_what_was_written(items):
    stream, place = np.zeros(sum(n for n, _ in items) // 64 + 2, np.uint64), 0
    for number, bits in items:
        place = words.write(stream, place, np.uint64(bits), number)
    assert place == sum(n for n, _ in items)
    assert int.from_bytes(to_bytes(stream, place), "little") == int(
        "".join(format(bits, f"0{n}b") for n, bits in reversed(items) if n) or "0", 2
    )
    again, place = from_bytes(to_bytes(stream, place)), 0
    for number, bits in items:
        assert int(words.read(again, place, number)) % 2**number == bits
        place += number


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 100), st.integers(0, 2**64 - 1))
def test_shuffle_and_grow_equal_their_textbook_twins(size, seed):
    slots = 1 << (size - 1).bit_length()
    order, bit_at = np.arange(size, dtype=np.int32), np.full(slots, -1, np.int32)
    with np.errstate(over="ignore"):
        cascade.shuffle(np.uint64(seed), order)
    assert order.tolist() == textbook_shuffle(seed, size)
    leaves = slots + order.astype(np.int64) * slots // size
    bit_at[leaves - slots] = np.arange(size)
    rows = np.random.default_rng(seed).integers(0, 2**64, (2, size), dtype=np.uint64)
    first = 1 << int(seed % slots.bit_length())
    tree = np.zeros((2, slots), np.uint64)
    cascade.grow(rows, bit_at, first, tree.reshape(-1), np.empty(slots, np.uint64))

    def parity(group, node):
        below = [i for i in range(size) if any(int(leaves[i]) >> k == node for k in range(slots.bit_length()))]
        return np.bitwise_xor.reduce(rows[group, below])

    for group in range(2):
        assert tree[group, :first].tolist() == [parity(group, first + block) for block in range(first)]
        assert tree[group, first:].tolist() == [parity(group, 2 * node) for node in range(first, slots)]


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 150), st.integers(0, 2**32))
def test_halves_are_the_parities_of_the_members(size, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 2**64, (2, size), dtype=np.uint64)
    member = rng.integers(0, 2**64, (3, -(-size // 64)), dtype=np.uint64)
    parities = np.zeros((3, 2), np.uint64)
    cascade.halves(rows, member, parities)
    for late in range(3):
        inside = [i for i in range(size) if int(member[late, i >> 6]) >> (i & 63) & 1]
        assert parities[late].tolist() == [np.bitwise_xor.reduce(rows[group, inside]) for group in range(2)]
