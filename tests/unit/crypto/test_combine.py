"""The combiner against an HMAC written out straight (RFC 5869, RFC 2104) and against published vectors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import StrandUnavailable
from keystrand.core.secret import Secret
from keystrand.crypto.combine import combine, combine_each

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "combine.json").read_text())["vectors"]


def hmac_sha384(key: bytes, message: bytes) -> bytes:
    key = key if len(key) <= 128 else hashlib.sha384(key).digest()
    key = key.ljust(128, b"\0")
    inner = hashlib.sha384(bytes(byte ^ 0x36 for byte in key) + message).digest()
    return hashlib.sha384(bytes(byte ^ 0x5C for byte in key) + inner).digest()


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    extracted, block, out, counter = hmac_sha384(bytes(48), secret), b"", b"", 1
    while len(out) < length:
        block = hmac_sha384(extracted, block + info + bytes([counter]))
        out, counter = out + block, counter + 1
    return out[:length]


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def expected(parts: dict[str, bytes], context: list[bytes], size: int) -> bytes:
    label = b"keystrand v1/combine/strands"
    info = u32(len(label)) + label + u32(len(parts))
    for name in sorted(parts):
        info += u32(len(name)) + name.encode() + u32(len(parts[name]))
    info += u32(len(context)) + b"".join(u32(len(piece)) + piece for piece in context) + u32(8 * size)
    return hkdf(b"".join(parts[name] for name in sorted(parts)), info, size)


def secrets_of(parts: dict[str, bytes]) -> dict[str, Secret]:
    return {name: Secret(part) for name, part in parts.items()}


def test_the_straight_hkdf_of_this_test_meets_the_published_sha384_vector() -> None:
    ikm, info = b"\1" * 32 + b"\2" * 32 + b"\3" * 32, b"qkms-hybrid-v1|test"
    assert hkdf(ikm, info, 64).hex() == (
        "56d3f148a077a83758f1d7709bdc8736f1c2df093dbebbe3f2fde6892029cefb"
        "b2f31897056072a17fa4b94f7a6caaa7465f0e31909f492b351f41f5ad2ebc94"
    )


@pytest.mark.proves("R030")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_published_vectors(vector: dict) -> None:
    parts = {name: bytes.fromhex(part) for name, part in vector["parts"].items()}
    context = [bytes.fromhex(piece) for piece in vector["context"]]
    key = combine(secrets_of(parts), context=context, size_bytes=vector["size_bytes"])
    assert key.reveal().hex() == vector["key"]
    if list(parts) != ["qkd"]:
        assert expected(parts, context, vector["size_bytes"]).hex() == vector["key"]


PARTS = st.dictionaries(st.sampled_from(["qkd", "pqc", "classical"]), st.binary(min_size=1, max_size=80), min_size=2)
CONTEXT = st.lists(st.binary(max_size=40), max_size=6)


@given(PARTS, CONTEXT, st.integers(1, 200))
def test_any_strands_and_context_match_the_straight_form(parts: dict, context: list, size: int) -> None:
    assert combine(secrets_of(parts), context=context, size_bytes=size).reveal() == expected(parts, context, size)


@given(PARTS, CONTEXT, st.data())
def test_every_input_bit_and_every_cut_matters(parts: dict, context: list, data: st.DataObject) -> None:
    key = combine(secrets_of(parts), context=context, size_bytes=32)
    name = data.draw(st.sampled_from(sorted(parts)))
    at = data.draw(st.integers(0, 8 * len(parts[name]) - 1))
    flipped = bytearray(parts[name])
    flipped[at // 8] ^= 1 << at % 8
    assert not combine(secrets_of(parts | {name: bytes(flipped)}), context=context, size_bytes=32).matches(key)
    assert not combine(secrets_of(parts), context=[*context, b""], size_bytes=32).matches(key)


def test_bits_moved_from_one_strand_to_the_next_give_another_key() -> None:
    one = combine(secrets_of({"pqc": b"ab", "qkd": b"c"}), context=[], size_bytes=32)
    two = combine(secrets_of({"pqc": b"a", "qkd": b"bc"}), context=[], size_bytes=32)
    assert not one.matches(two)


def test_qkd_alone_is_passed_through_bit_by_bit() -> None:
    part = Secret(bytes(range(32)))
    key = combine({"qkd": part}, context=[b"key"], size_bytes=32)
    assert key.matches(part)
    part.wipe()
    assert key.reveal() == bytes(range(32))  # a copy, not the same buffer


def test_pqc_alone_is_derived_not_passed_through() -> None:
    part = Secret(bytes(range(32)))
    assert not combine({"pqc": part}, context=[], size_bytes=32).matches(part)


@pytest.mark.proves("R030")
@pytest.mark.parametrize(
    ("parts", "strands"),
    [
        ({}, None),
        ({"qkd": b""}, None),
        ({"qkd": b"x" * 32, "pqc": b""}, None),
        ({"qkd": b"x" * 32}, {"qkd", "pqc"}),
        ({"qkd": b"x" * 32, "pqc": b"y" * 32}, {"qkd"}),
        ({"qkd": b"x" * 32, "magic": b"y" * 32}, None),
        ({"qkd": b"x" * 31}, None),
    ],
)
def test_a_missing_or_surplus_strand_fails_closed(parts: dict, strands: set | None) -> None:
    with pytest.raises(StrandUnavailable):
        combine(secrets_of(parts), context=[], size_bytes=32, strands=strands)


KEYS_AT_ONCE = st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(min_size=32, max_size=32)), min_size=1)


@pytest.mark.proves("R030")
@given(KEYS_AT_ONCE, st.binary(min_size=1, max_size=64), CONTEXT, st.sampled_from(["hybrid", "pqc", "qkd"]))
def test_I2_many_keys_at_once_are_the_keys_one_by_one(
    keys: list[tuple[bytes, bytes]], strand: bytes, context: list[bytes], kind: str
) -> None:
    pieces = [None if kind == "pqc" else Secret(piece) for _, piece in keys]
    shared = None if kind == "qkd" else Secret(strand)
    names = [name for name, _ in keys]
    together = combine_each(names, pieces, shared, context=context, size_bytes=32)
    for name, piece, key in zip(names, pieces, together, strict=True):
        parts = {word: part for word, part in (("qkd", piece), ("pqc", shared)) if part is not None}
        assert key.reveal() == combine(parts, context=[name, *context], size_bytes=32).reveal()


def test_keys_that_are_made_together_have_the_same_strands() -> None:
    piece, strand = Secret(bytes(32)), Secret(bytes(32))
    for odd in (None, Secret(bytes(31))):
        with pytest.raises(StrandUnavailable):
            combine_each([b"1", b"2"], [piece, odd], strand, context=[], size_bytes=32)
    for other in (None, Secret(bytes(31))):
        with pytest.raises(StrandUnavailable):
            combine_each([b"1", b"2"], [piece, other], None, context=[], size_bytes=32)
    with pytest.raises(StrandUnavailable):
        combine_each([b"1"], [None], None, context=[], size_bytes=32)
    assert combine_each([], [], strand, context=[], size_bytes=32) == []
