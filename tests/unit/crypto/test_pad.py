"""The one-time pad: spent once, front to back; the MAC is the textbook's."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import IllegalTransition, Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.pad import MAC_BYTES, OVERHEAD_BYTES, OneTimePad, forgery_bound_log2

PRIME = 2**130 - 5


def poly1305(key, message):
    """RFC 8439, 2.5, word for word."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s, total = int.from_bytes(key[16:], "little"), 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\x01", "little")) * r % PRIME
    return ((total + s) % 2**128).to_bytes(16, "little")


def pad(length_bytes, seed=1):
    return random.Random(seed).randbytes(OVERHEAD_BYTES + length_bytes)


@given(st.binary(max_size=200), st.binary(max_size=40), st.integers(0, 30))
def test_a_message_comes_back_and_is_vernam_with_poly1305(plain, associated, more):
    bits = pad(len(plain) + more)
    sealed = OneTimePad(Secret(bits)).seal(plain, associated)
    cipher = bytes(a ^ b for a, b in zip(plain, bits[OVERHEAD_BYTES:], strict=False))
    assert sealed == cipher + poly1305(bits[:32], associated + cipher)
    assert OneTimePad(Secret(bits)).open(sealed, associated) == plain


def test_the_mac_is_that_of_the_standard():
    """RFC 8439, 2.5.2."""
    key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    message = b"Cryptographic Forum Research Group"
    sealed = OneTimePad(Secret(key + bytes(32))).seal(b"", message)
    assert sealed.hex() == "a8061dc1305136c6c22b8baf0c0127a9"


def test_every_flipped_bit_is_refused_and_burns_the_message():
    bits, plain = pad(9), b"nine byte"
    sealed = OneTimePad(Secret(bits)).seal(plain, b"who")
    for place in range(8 * len(sealed)):
        bent = bytearray(sealed)
        bent[place // 8] ^= 1 << place % 8
        receiver = OneTimePad(Secret(bits))
        with pytest.raises(Tampered):
            receiver.open(bytes(bent), b"who")
        with pytest.raises(IllegalTransition):
            receiver.open(sealed, b"who")


@pytest.mark.proves("R084")
def test_I1_no_bit_is_used_twice():
    one = OneTimePad(Secret(pad(100)))
    one.seal(b"first", b"")
    with pytest.raises(IllegalTransition):
        one.seal(b"again", b"")
    one.sign_answer(b"yes")
    with pytest.raises(IllegalTransition):
        one.sign_answer(b"no")


def test_I6_a_burnt_pad_gives_nothing():
    one = OneTimePad(Secret(pad(100)))
    one.burn()
    for use in (lambda: one.seal(b"", b""), lambda: one.sign_answer(b""), lambda: one.open(bytes(16), b"")):
        with pytest.raises(IllegalTransition):
            use()
    one.burn()


def test_what_is_taken_is_zeroed_and_the_source_is_wiped():
    material = Secret(pad(10))
    one = OneTimePad(material)
    assert not any(material.reveal())
    one.seal(b"0123456789", b"")
    assert not any(one._bits[:32])
    assert not any(one._bits[OVERHEAD_BYTES:])
    assert any(one._bits[32:64])  # the key of the answer is still to come


def test_a_message_longer_than_the_pad_is_refused_before_anything_is_spent():
    one = OneTimePad(Secret(pad(4)))
    with pytest.raises(IllegalTransition):
        one.seal(b"fiver", b"")
    assert one.left_bytes == 4
    one.seal(b"four", b"")


def test_answers_verify_under_their_own_bits_only():
    bits = pad(4)
    near, far = OneTimePad(Secret(bits)), OneTimePad(Secret(bits))
    tag = near.sign_answer(b"yes")
    with pytest.raises(Tampered):
        far.check_answer(b"no!", tag)
    OneTimePad(Secret(bits)).check_answer(b"yes", tag)


def test_a_pad_without_room_for_its_keys_is_refused():
    with pytest.raises(IllegalTransition):
        OneTimePad(Secret(bytes(OVERHEAD_BYTES - 1)))


def test_the_bound_of_a_forgery():
    assert forgery_bound_log2(16) == 3 - 106
    assert forgery_bound_log2(1 << 16) == 3 + 12 - 106


@pytest.mark.parametrize("cut", range(MAC_BYTES + 1))
def test_what_is_cut_short_is_refused(cut):
    sealed = OneTimePad(Secret(pad(1))).seal(b"x", b"")
    with pytest.raises(Tampered):
        OneTimePad(Secret(pad(1))).open(sealed[:cut], b"")
