"""AES-256-GCM for one segment of a transfer, in one direction: the key is derived, the nonce is a counter.

The key is HKDF-SHA256 (RFC 5869) over the delivered key; the label and a length-framed context separate every segment
and direction. The nonce (NIST SP 800-38D, 8.2.1, deterministic) is the number of the record within the segment, kept
here and advanced by every call, so that no caller can repeat one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystrand.core.errors import BadRequest, IllegalTransition, Tampered
from keystrand.core.labels import LABELS
from keystrand.core.secret import Secret

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
RECORDS_MAX: Final = 2**32  # far below the bound of SP 800-38D 8.3; a segment is over long before

Buffer = bytes | bytearray | memoryview


class SegmentCipher:
    """Seals, or opens, the records of one segment in order. One object is used by one side of one direction."""

    def __init__(self, material: Secret, *, salt: bytes, context: Sequence[bytes]) -> None:
        """Raises BadRequest when `material` is shorter than the 256 bits that the cipher is sold with."""
        if len(material) < KEY_BYTES:
            raise BadRequest(
                f"a key of {material.length_bits} bits is too short for AES-256", hint="ask the KME for 256-bit keys"
            )
        info = LABELS["gateway/segment"] + b"".join(len(part).to_bytes(4, "big") + part for part in context)
        self._aead = AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, salt, info).derive(material.reveal()))
        self._count = 0

    def _next(self, associated: bytes) -> tuple[bytes, bytes]:
        if self._count >= RECORDS_MAX:
            raise IllegalTransition("the segment has used up its nonces")
        number = self._count.to_bytes(8, "big")
        self._count += 1
        return b"\0\0\0\0" + number, associated + number

    def seal(self, plain: Buffer, associated: bytes) -> bytes:
        """Ciphertext and tag of the next record."""
        nonce, bound = self._next(associated)
        return self._aead.encrypt(nonce, bytes(plain), bound)

    def seal_into(self, plain: Buffer, associated: bytes, out: memoryview) -> None:
        """Like `seal`, into `out`, which is exactly TAG_BYTES longer than `plain`. Gives up the GIL."""
        nonce, bound = self._next(associated)
        self._aead.encrypt_into(nonce, plain, bound, out)

    def open(self, sealed: Buffer, associated: bytes) -> bytes:
        """The plaintext of the next record. Raises Tampered."""
        nonce, bound = self._next(associated)
        try:
            return self._aead.decrypt(nonce, bytes(sealed), bound)
        except InvalidTag:
            raise Tampered("a record of the transfer does not verify") from None

    def open_into(self, sealed: Buffer, associated: bytes, out: memoryview) -> None:
        """Like `open`, into `out`, which is exactly TAG_BYTES shorter than `sealed`. On Tampered, `out` is void."""
        nonce, bound = self._next(associated)
        try:
            self._aead.decrypt_into(nonce, sealed, bound, out)
        except InvalidTag:
            raise Tampered("a record of the transfer does not verify") from None
