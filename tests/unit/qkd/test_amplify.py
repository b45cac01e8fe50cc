"""Toeplitz hashing: exact against the definition, linear, and strict about its inputs."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.qkd.distill import amplify

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "amplify.json").read_text())


def textbook_toeplitz(bits, diagonals):
    n, m = len(bits), len(diagonals) - len(bits) + 1
    return [sum(int(diagonals[i - j + n - 1]) & int(bits[j]) for j in range(n)) % 2 for i in range(m)]


@given(st.integers(1, 200), st.data())
def test_hash_equals_its_textbook_twin(n, data):
    m = data.draw(st.integers(1, n))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    bits, diagonals = rng.integers(0, 2, n, dtype=np.uint8), rng.integers(0, 2, n + m - 1, dtype=np.uint8)
    assert amplify.toeplitz(bits, diagonals).tolist() == textbook_toeplitz(bits, diagonals)


def test_hash_is_exact_at_the_length_of_a_block():
    rng = np.random.default_rng(7)
    n, m = 250_000, 100_000
    bits, diagonals = rng.integers(0, 2, n, dtype=np.uint8), rng.integers(0, 2, n + m - 1, dtype=np.uint8)
    out = amplify.toeplitz(bits, diagonals)
    for i in rng.integers(0, m, 200):
        assert out[i] == (diagonals[i : i + n][::-1] & bits).sum() % 2


def test_all_ones_at_a_million_bits_are_counted_exactly():
    n, m = 1_000_000, 8
    out = amplify.toeplitz(np.ones(n, np.uint8), np.ones(n + m - 1, np.uint8))
    assert out.tolist() == [n % 2] * m


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_amplify_vectors(vector):
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(vector["bits"]), np.uint8), count=vector["n_bits"])
    seed = bytes.fromhex(vector["seed"])
    assert amplify.amplify(bits, seed=seed, length_bits=vector["m_bits"]).reveal().hex() == vector["out"]


@pytest.mark.parametrize(("n", "m"), [(64, 0), (64, -8), (64, 72), (64, 12)])
def test_impossible_lengths_are_refused(n, m):
    with pytest.raises(ValueError, match="multiple of 8"):
        amplify.amplify(np.zeros(n, np.uint8), seed=bytes(amplify.seed_bytes(n, 8)), length_bits=m)


def test_a_seed_of_another_length_is_refused():
    with pytest.raises(ValueError, match="seed"):
        amplify.amplify(np.zeros(64, np.uint8), seed=bytes(8), length_bits=32)


@given(st.integers(1, 10**9))
def test_smooth_is_smooth_and_at_most_a_quarter_longer(least):
    size = rest = amplify.smooth(least)
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1
    assert least <= size <= max(least * 1.25, least + 1)
