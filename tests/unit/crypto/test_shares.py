"""Escrow: any m shares give the secret back, fewer say nothing, a wrong one is named, a sealed one opens for its holder."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.escrow import PUBLIC_BYTES, CustodianKey, hand_out, seal_share
from keystrand.crypto.field import evaluate, interpolate, invert, multiply
from keystrand.crypto.shares import (
    EscrowRecord,
    Share,
    combine,
    split,
)


def plain_multiply(a: int, b: int) -> int:
    """Schoolbook: multiply as polynomials over GF(2), then divide by x^8 + x^4 + x^3 + x + 1."""
    wide = 0
    for bit in range(8):
        if b & 1 << bit:
            wide ^= a << bit
    for bit in range(14, 7, -1):
        if wide & 1 << bit:
            wide ^= 0x11B << bit - 8
    return wide


def test_the_field_is_that_of_aes() -> None:
    assert multiply(0x57, 0x83) == 0xC1  # FIPS 197, 4.2
    assert multiply(0x57, 0x13) == 0xFE  # FIPS 197, 4.2.1
    assert all(multiply(a, b) == plain_multiply(a, b) for a, b in product(range(256), repeat=2))


def test_every_element_but_zero_has_an_inverse() -> None:
    assert all(multiply(a, invert(a)) == 1 for a in range(1, 256))
    assert invert(0) == 0


def test_the_published_vector_of_threshold_secret_sharing() -> None:
    """draft-mcgrew-tss-03, clause 9: the secret "test" with its final zero, two shares of two."""
    points = [(1, bytes.fromhex("b9fa07e185")), (2, bytes.fromhex("f5409b4511"))]
    assert interpolate(points) == b"test\0"
    slope = bytes(a ^ b for a, b in zip(points[0][1], b"test\0", strict=True))
    assert [evaluate([b"test\0", slope], x) for x, _ in points] == [values for _, values in points]


@given(st.binary(min_size=1, max_size=48), st.integers(2, 6), st.integers(0, 4), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_any_quorum_gives_the_secret_back(secret: bytes, threshold: int, spare: int, random: Random) -> None:
    record, shares = split(Secret(secret), threshold, threshold + spare)
    chosen = list(shares)
    random.shuffle(chosen)
    assert combine(record, chosen[:threshold]).reveal() == secret
    assert combine(record, chosen).reveal() == secret
    with pytest.raises(BadRequest, match="shares of the"):
        combine(record, [*chosen[: threshold - 1], chosen[0]])  # the same one twice counts once


def test_every_quorum_of_three_in_five_works_and_no_pair_does() -> None:
    secret = bytes(range(32))
    record, shares = split(Secret(secret), 3, 5)
    assert all(combine(record, chosen).reveal() == secret for chosen in combinations(shares, 3))
    for pair in combinations(shares, 2):
        assert interpolate([(share.index, share.value.reveal()) for share in pair]) != secret


@pytest.mark.parametrize("secret", [0, 1, 0x57, 0xFF])
def test_one_share_less_than_the_threshold_says_nothing(secret: int) -> None:
    """The whole distribution, counted: over all coefficients, what two of three see is uniform whatever the secret is."""
    alone: Counter[int] = Counter(evaluate([bytes([secret]), bytes([slope])], 7)[0] for slope in range(256))
    assert set(alone.values()) == {1}
    assert len(alone) == 256
    pairs: Counter[tuple[int, int]] = Counter()
    for slope, bend in product(range(256), repeat=2):
        # at x = 1 the sum of the coefficients, at x = 2 multiples of them: `evaluate` unrolled, 65,536 times
        one = secret ^ slope ^ bend
        two = secret ^ _TWICE[slope] ^ _TWICE[_TWICE[bend]]
        pairs[one, two] += 1
    assert len(pairs) == 65_536


_TWICE = [multiply(value, 2) for value in range(256)]


def test_the_first_shares_of_different_secrets_are_spread_alike() -> None:
    """The same, through `split` itself: each coefficient drawn once, each value of the share seen once."""
    for secret in (b"\x00", b"\xa5"):
        seen = set()
        for value in range(256):
            _, shares = split(Secret(secret), 2, 2, entropy=lambda size, value=value: bytes([value]) * size)
            seen.add(shares[0].value.reveal())
        assert len(seen) == 256


def altered(share: Share, **change: object) -> Share:
    fields = {name: getattr(share, name) for name in ("escrow_id", "threshold", "index", "salt", "value")}
    return Share(**(fields | change))


@pytest.mark.parametrize(
    "change",
    [
        {"value": Secret(bytes(32))},
        {"salt": Secret(bytes(32))},
        {"escrow_id": bytes(16)},
        {"threshold": 2},
        {"index": 5},
        {"index": 200},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_share_is_named(change: dict[str, object]) -> None:
    record, shares = split(Secret(bytes(32)), 3, 5)
    bad = altered(shares[1], **change)
    with pytest.raises(Tampered, match=f"share {bad.index} is not"):
        combine(record, [shares[0], bad, shares[2], shares[3]])
    assert combine(record, [shares[0], shares[2], shares[3]]).reveal() == bytes(32)


def test_shares_of_two_escrows_of_one_secret_do_not_mix() -> None:
    first, shares = split(Secret(b"s" * 32), 2, 3)
    _, others = split(Secret(b"s" * 32), 2, 3)
    with pytest.raises(Tampered, match="share 2"):
        combine(first, [shares[0], others[1]])


@pytest.mark.parametrize(("threshold", "shares"), [(0, 3), (1, 3), (4, 3), (2, 256), (-1, -1)])
def test_what_is_no_quorum_is_refused(threshold: int, shares: int) -> None:
    with pytest.raises(BadRequest, match="quorum"):
        split(Secret(b"secret"), threshold, shares)


@pytest.mark.parametrize("size_bytes", [0, 4097])
def test_empty_and_huge_secrets_are_refused(size_bytes: int) -> None:
    with pytest.raises(BadRequest):
        split(Secret(bytes(size_bytes)), 2, 3)


def test_a_share_reads_back_and_the_record_travels() -> None:
    record, shares = split(Secret(b"key"), 2, 2)
    again = [Share.decode(share.encode()) for share in shares]
    kept = msgspec.json.decode(msgspec.json.encode(record), type=EscrowRecord)
    assert combine(kept, again).reveal() == b"key"


@given(st.binary(max_size=120))
def test_whatever_is_no_share_is_refused(raw: bytes) -> None:
    try:
        share = Share.decode(Secret(raw))
    except BadRequest:
        return
    assert share.encode().reveal() == raw


def test_I12_a_record_says_nothing_of_a_short_secret() -> None:
    """Without the salts, the digests of a one-byte secret's shares could be tried out."""
    record, shares = split(Secret(b"\x07"), 2, 3)
    tried = {altered(shares[0], value=Secret(bytes([guess])), salt=Secret(bytes(32))).digest() for guess in range(256)}
    assert not tried & set(record.digests)


# custodians ----------------------------------------------------------------------------------------------------------


def test_three_of_five_custodians_give_the_key_back() -> None:
    keys = {name: CustodianKey.generate() for name in ("ada", "bo", "cy", "dee", "eli")}
    record, sealed = hand_out(Secret(bytes(range(32))), 3, {name: key.public for name, key in keys.items()})
    shares = [keys[name].open(name, sealed[name]) for name in ("eli", "bo", "cy")]
    assert combine(record, shares).reveal() == bytes(range(32))


def test_a_sealed_share_opens_for_its_custodian_only() -> None:
    ada, bo = CustodianKey.generate(), CustodianKey.generate()
    _, sealed = hand_out(Secret(b"key"), 2, {"ada": ada.public, "bo": bo.public})
    assert ada.open("ada", sealed["ada"]).index == 1
    for key, name, content in (
        (bo, "bo", sealed["ada"]),
        (ada, "bo", sealed["ada"]),
        (ada, "ada", sealed["ada"][:-1]),
        (ada, "ada", b""),
        (ada, "ada", sealed["ada"][:1130] + bytes([sealed["ada"][1130] ^ 1]) + sealed["ada"][1131:]),
    ):
        with pytest.raises(Tampered):
            key.open(name, content)


def test_a_custodians_key_is_kept_as_96_bytes() -> None:
    key = CustodianKey.generate()
    again = CustodianKey(key.secret)
    assert again.public == key.public
    assert len(key.public) == PUBLIC_BYTES
    assert repr(key) == "<CustodianKey>"
    with pytest.raises(BadRequest, match="96 bytes"):
        CustodianKey(Secret(bytes(95)))


@pytest.mark.parametrize("public", [b"", bytes(PUBLIC_BYTES - 1), b"\xff" * PUBLIC_BYTES])
def test_what_is_no_custodians_key_gets_no_share(public: bytes) -> None:
    _, shares = split(Secret(b"key"), 2, 2)
    with pytest.raises(BadRequest, match="ada"):
        seal_share(shares[0], "ada", public)


def test_one_person_cannot_be_two_custodians() -> None:
    key = CustodianKey.generate()
    with pytest.raises(BadRequest, match="same key"):
        hand_out(Secret(b"key"), 2, {"ada": key.public, "bo": key.public})
