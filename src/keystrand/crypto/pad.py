"""One-time pad and one-time Wegman–Carter authentication, for payloads so small that key can be spent bit for bit.

The authenticator is Poly1305 (RFC 8439) under a key that is used for one message: a polynomial over GF(2¹³⁰−5), evaluated
at a secret point, plus a secret mask: Wegman and Carter's construction. A forger who computes without bounds succeeds
with probability at most 8⌈L/16⌉ · 2⁻¹⁰⁶ for a message of L bytes (Bernstein, "The Poly1305-AES message-authentication
code", 2005, section 3, with a random mask in the place of AES). The pad is Vernam's: ciphertext = plaintext ⊕ key bits.
Both are information-theoretically secure where the key bits are uniform, secret and used once. Used once is kept here;
where the bits come from, the caller must know.
"""

from __future__ import annotations

import math
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from keystrand.core.errors import IllegalTransition, Tampered
from keystrand.core.secret import Secret

MAC_KEY_BYTES: Final = 32
MAC_BYTES: Final = 16
OVERHEAD_BYTES: Final = 2 * MAC_KEY_BYTES  # one key for the message, one for the answer


def forgery_bound_log2(length_bytes: int) -> float:
    """log2 of the chance that a forged message of `length_bytes`, associated data included, passes."""
    return math.log2(8 * max(1, -(-length_bytes // 16))) - 106


class OneTimePad:
    """Key bits that are spent from front to back: what was taken is zeroed, so it cannot be taken again.

    Layout: MAC key of the message (32 bytes), MAC key of the answer (32), pad. One object seals or opens one message
    and signs or checks one answer; whatever else is asked of it raises IllegalTransition.
    """

    def __init__(self, material: Secret) -> None:
        """Takes the bits over: `material` is empty of secrets afterwards."""
        self._bits = bytearray(material.reveal())
        material.wipe()
        self._spent_bytes = OVERHEAD_BYTES
        self._mac_keys = [0, MAC_KEY_BYTES]  # where those that are not spent begin
        if len(self._bits) < OVERHEAD_BYTES:
            raise IllegalTransition("a pad shorter than its two MAC keys")

    @property
    def left_bytes(self) -> int:
        """How long a message may be."""
        return len(self._bits) - self._spent_bytes

    def seal(self, plain: bytes, associated: bytes) -> bytes:
        """Ciphertext and tag; the tag covers `associated` and the ciphertext. Raises IllegalTransition when used twice."""
        cipher = _xor(plain, self._take_pad(len(plain)))
        return cipher + _tag(self._take_mac_key(0), associated + cipher)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """The plaintext. Raises Tampered, and then the pad is spent as well."""
        cipher, tag = sealed[:-MAC_BYTES], sealed[-MAC_BYTES:]
        pad = self._take_pad(max(0, len(sealed) - MAC_BYTES))
        _verify(self._take_mac_key(0), associated + cipher, tag)
        return _xor(cipher, pad)

    def sign_answer(self, answer: bytes) -> bytes:
        """The tag of the one answer."""
        return _tag(self._take_mac_key(MAC_KEY_BYTES), answer)

    def check_answer(self, answer: bytes, tag: bytes) -> None:
        """Raises Tampered."""
        _verify(self._take_mac_key(MAC_KEY_BYTES), answer, tag)

    def burn(self) -> None:
        """Nothing of it can be used any more. Idempotent."""
        self._bits[:] = bytes(len(self._bits))
        self._spent_bytes = len(self._bits)
        self._mac_keys.clear()

    def _take_pad(self, length_bytes: int) -> bytes:
        if length_bytes > self.left_bytes or 0 not in self._mac_keys:
            raise IllegalTransition("the pad is spent, or shorter than the message")
        start, self._spent_bytes = self._spent_bytes, self._spent_bytes + length_bytes
        return self._take(start, length_bytes)

    def _take_mac_key(self, start: int) -> bytes:
        if start not in self._mac_keys:
            raise IllegalTransition("the key of this one-time MAC is spent")
        self._mac_keys.remove(start)
        return self._take(start, MAC_KEY_BYTES)

    def _take(self, start: int, length_bytes: int) -> bytes:
        end = start + length_bytes
        taken = bytes(self._bits[start:end])
        self._bits[start:end] = bytes(length_bytes)
        return taken


def _xor(one: bytes, other: bytes) -> bytes:
    assert len(one) == len(other)
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


def _tag(key: bytes, message: bytes) -> bytes:
    return Poly1305.generate_tag(key, message)


def _verify(key: bytes, message: bytes, tag: bytes) -> None:
    try:
        Poly1305.verify_tag(key, message, tag)
    except InvalidSignature:
        raise Tampered("a message under a one-time pad does not verify") from None
