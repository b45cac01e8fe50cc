"""Hashing by (I | T): exact against the definition, and strict about its inputs."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.qkd.distill import amplify
from keystrand.qkd.kernels import clmul

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "amplify.json").read_text())


def textbook_toeplitz(bits, diagonals):
    n, m = len(bits), len(diagonals) - len(bits) + 1
    return [sum(int(diagonals[i - j + n - 1]) & int(bits[j]) for j in range(n)) % 2 for i in range(m)]


def textbook_hash(bits, diagonals, m):
    rest = bits[m:]
    mixed = textbook_toeplitz(rest, diagonals) if len(rest) else [0] * m
    return [int(bits[i]) ^ mixed[i] for i in range(m)]


WAYS = [
    pytest.param(amplify.by_fft, id="fft"),
    pytest.param(
        amplify.by_clmul,
        id="clmul",
        marks=pytest.mark.skipif(not clmul.available, reason="needs PCLMULQDQ and compiled kernels"),
    ),
]


def drawn(n, m, rng_seed):
    """Input and seed of a Toeplitz product of n bits to m: that of hashing n + m bits to m."""
    rng = np.random.default_rng(rng_seed)
    bits, seed = rng.integers(0, 2, n, dtype=np.uint8), rng.bytes(amplify.seed_bytes(n + m))
    return bits, seed, np.unpackbits(np.frombuffer(seed, np.uint8), count=n + m - 1)


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None)
@given(st.integers(8, 300), st.data())
def test_product_equals_its_textbook_twin(way, n, data):
    m = 8 * data.draw(st.integers(1, n // 8))
    bits, seed, diagonals = drawn(n, m, data.draw(st.integers(0, 2**32)))
    assert np.unpackbits(np.frombuffer(way(bits, seed, m), np.uint8)).tolist() == textbook_toeplitz(bits, diagonals)


@settings(deadline=None)
@given(st.integers(8, 300), st.data())
def test_hash_equals_its_textbook_twin(n, data):
    m = 8 * data.draw(st.integers(1, n // 8))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    bits, seed = rng.integers(0, 2, n, dtype=np.uint8), rng.bytes(amplify.seed_bytes(n))
    diagonals = np.unpackbits(np.frombuffer(seed, np.uint8), count=n - 1)
    out = amplify.amplify(bits, seed=seed, length_bits=m).reveal()
    assert np.unpackbits(np.frombuffer(out, np.uint8)).tolist() == textbook_hash(bits, diagonals, m)


@pytest.mark.parametrize(("wrong", "together"), [((3,), 0), ((40,), 1), ((3, 40), 1), ((70, 71), 1)])
def test_inputs_that_differ_collide_no_more_than_a_random_hash_would(wrong, together):
    """Universal: over all seeds of a small case, at most 2^-8 of them; never where only the first 8 bits differ."""
    n, collisions = 72, 0
    flips = np.zeros(n, np.uint8)
    flips[list(wrong)] = 1
    rng = np.random.default_rng(5)
    for _ in range(20_000):
        seed = rng.bytes(amplify.seed_bytes(n))
        # The hash is linear: x and x ^ flips collide where that of the flips is zero.
        collisions += amplify.amplify(flips, seed=seed, length_bits=8).reveal() == b"\0"
    expected = 20_000 / 2**8 * together
    assert abs(collisions - expected) <= 5 * expected**0.5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("n", "m"), [(250_000, 100_000), (70_001, 69_992), (300_000, 8), (131_072, 65_536)])
def test_hash_is_exact_at_the_length_of_a_block(way, n, m):
    bits, seed, diagonals = drawn(n, m, 7)
    out = np.unpackbits(np.frombuffer(way(bits, seed, m), np.uint8))
    for i in np.random.default_rng(8).integers(0, m, 200):
        assert out[i] == (diagonals[i : i + n][::-1] & bits).sum() % 2


@pytest.mark.skipif(not clmul.available, reason="needs PCLMULQDQ and compiled kernels")
@pytest.mark.parametrize(
    ("n", "m"), [(1_000_000, 500_000), (999_999, 333_336), (262_144, 262_144), (4_194_304, 80_000)]
)
def test_both_ways_are_bit_equal(n, m):
    bits, seed, _ = drawn(n, m, n + m)
    assert amplify.by_clmul(bits, seed, m) == amplify.by_fft(bits, seed, m)


@pytest.mark.parametrize("way", WAYS)
def test_all_ones_at_a_million_bits_are_counted_exactly(way):
    for n in (1_000_000, 999_999):
        assert way(np.ones(n, np.uint8), b"\xff" * amplify.seed_bytes(n + 8), 8) == (b"\xff" if n % 2 else b"\0")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_amplify_vectors(vector):
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(vector["bits"]), np.uint8), count=vector["n_bits"])
    seed = bytes.fromhex(vector["seed"])
    assert amplify.amplify(bits, seed=seed, length_bits=vector["m_bits"]).reveal().hex() == vector["out"]


@pytest.mark.parametrize(("n", "m"), [(64, 0), (64, -8), (64, 72), (64, 12)])
def test_impossible_lengths_are_refused(n, m):
    with pytest.raises(ValueError, match="multiple of 8"):
        amplify.amplify(np.zeros(n, np.uint8), seed=bytes(amplify.seed_bytes(n)), length_bits=m)


def test_a_seed_of_another_length_is_refused():
    with pytest.raises(ValueError, match="seed"):
        amplify.amplify(np.zeros(64, np.uint8), seed=bytes(7), length_bits=32)
