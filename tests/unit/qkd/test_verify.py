"""The verification hash: what it must equal, what it must tell apart."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.qkd.distill import verify

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "verify.json").read_text())
P = 2**130 - 5


def textbook_tag(bits, seed):
    """RFC 8439 2.5 without the pad, then an inner product over GF(2^64), in long integers."""
    message = len(bits).to_bytes(8, "big") + np.packbits(bits).tobytes()
    r = int.from_bytes(seed[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\1", "little")) * r % P
    digest = (total % 2**128).to_bytes(16, "little")
    product = 0
    for half in (0, 8):
        a, b = (int.from_bytes(x[half : half + 8], "big") for x in (digest, seed[16:]))
        for k in range(64):
            if b >> k & 1:
                product ^= a << k
    for k in range(127, 63, -1):
        if product >> k & 1:
            product ^= (2**64 + 0b11011) << (k - 64)
    return product.to_bytes(8, "big")


@given(st.lists(st.integers(0, 1), min_size=1, max_size=600), st.binary(min_size=32, max_size=32))
def test_tag_equals_its_textbook_twin(bits, seed):
    assert verify.tag(np.array(bits, np.uint8), seed=seed) == textbook_tag(bits, seed)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_tag_vectors(vector):
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(vector["bits"]), np.uint8), count=vector["length_bits"])
    assert verify.tag(bits, seed=bytes.fromhex(vector["seed"])).hex() == vector["tag"]


@given(st.integers(1, 5000), st.data())
def test_a_mismatch_never_survives(n, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    bits, seed = rng.integers(0, 2, n, dtype=np.uint8), rng.bytes(32)
    other = bits.copy()
    other[data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8, unique=True))] ^= 1
    assert verify.tag(bits, seed=seed) != verify.tag(other, seed=seed)


def test_length_is_part_of_what_is_hashed():
    seed = bytes(range(32))
    assert verify.tag(np.zeros(8, np.uint8), seed=seed) != verify.tag(np.zeros(9, np.uint8), seed=seed)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_another_seed_length_is_refused(length):
    with pytest.raises(ValueError, match="32 bytes"):
        verify.tag(np.zeros(8, np.uint8), seed=bytes(length))


def test_collision_bound_is_hardly_above_the_tag_length():
    assert 2.0**-64 <= verify.collision_bound(1) <= verify.collision_bound(10**9) < 2.0**-63.9
