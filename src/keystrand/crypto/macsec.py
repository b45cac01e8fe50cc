"""Keys of MACsec at work: a SAK over frames (IEEE 802.1AE-2018), and what MKA derives from a CAK (IEEE 802.1X-2020).

SAK: GCM-AES-128 and GCM-AES-256. The nonce is SCI || PN (14.5), or with extended packet numbers (SSCI || 64-bit PN) xor the
salt (14.7). MKA: the key derivation function is AES-CMAC in counter mode (6.2.1), the labels are those of 9.3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from keystrand.core.errors import BadRequest, Tampered
from keystrand.core.secret import Secret

SALT_BYTES: Final = 12
PN_MAX: Final = 2**32 - 1
XPN_MAX: Final = 2**64 - 1
CKN_BYTES: Final = 16  # so much of a CKN goes into KEK and ICK
LABEL_ICK: Final = b"IEEE8021 ICK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """What extended packet numbers need beside the key. ssci: short name of the sender, alike at both ends."""

    ssci: int
    salt: bytes = field(repr=False)


class Sak:
    """A secure association key. key: 16 or 32 bytes; sci: of whoever sends under it.

    Who calls `protect` never gives one packet number twice to the same SAK and SCI.
    """

    def __init__(self, key: Secret, sci: bytes, extended: Extended | None = None) -> None:
        self._cipher = AESGCM(key.reveal())
        self.sci, self._extended = sci, extended

    @property
    def pn_max(self) -> int:
        return PN_MAX if self._extended is None else XPN_MAX

    def protect(self, pn: int, head: bytes, data: bytes, *, encrypt: bool = True) -> bytes:
        """Secure data and ICV. head: addresses and SecTAG."""
        if not 0 < pn <= self.pn_max:
            raise BadRequest(f"{pn} is not a packet number")
        if encrypt:
            return self._cipher.encrypt(self._nonce(pn), data, head)
        return data + self._cipher.encrypt(self._nonce(pn), b"", head + data)

    def validate(self, pn: int, head: bytes, data: bytes, icv: bytes, *, encrypted: bool = True) -> bytes:
        """The data. Raises Tampered."""
        try:
            if encrypted:
                return self._cipher.decrypt(self._nonce(pn), data + icv, head)
            self._cipher.decrypt(self._nonce(pn), icv, head + data)
        except InvalidTag:
            raise Tampered("a MACsec frame whose ICV is wrong") from None
        return data

    def full_pn(self, pn: int, lowest: int) -> int:
        """The packet number that these 32 bits stand for: with extended ones the first that is not far below `lowest`, the
        lowest acceptable one (10.6.2).
        """
        if self._extended is None:
            return pn
        high = lowest >> 32
        if lowest & 0x8000_0000 and not pn & 0x8000_0000:
            high += 1
        return high << 32 | pn

    def _nonce(self, pn: int) -> bytes:
        if self._extended is None:
            return self.sci + pn.to_bytes(4, "big")
        count = self._extended.ssci << 64 | pn
        return (count ^ int.from_bytes(self._extended.salt, "big")).to_bytes(SALT_BYTES, "big")


def kdf(key: Secret, label: bytes, context: bytes, length_bits: int) -> Secret:
    """6.2.1: CMAC(key, i || label || 0 || context || length) for i = 1, 2, …, cut to the length."""
    out = b""
    for turn in range(1, 1 + -(-length_bits // 128)):
        block = bytes([turn]) + label + b"\0" + context + length_bits.to_bytes(2, "big")
        out += _cmac(key, block)
    return Secret(out[: length_bits // 8])


def icv_key(cak: Secret, ckn: bytes) -> Secret:
    """ICK, as long as the CAK (9.3.3)."""
    return kdf(cak, LABEL_ICK, _short(ckn), 8 * len(cak))


def check_icv(ick: Secret, message: bytes, icv: bytes) -> None:
    """message: an MKPDU from its destination address up to the ICV (9.4.1). Raises Tampered."""
    mac = CMAC(AES(ick.reveal()))
    mac.update(message)
    try:
        mac.verify(icv)
    except InvalidSignature:
        raise Tampered("an MKPDU whose ICV is wrong") from None


def _short(ckn: bytes) -> bytes:
    return ckn[:CKN_BYTES].ljust(CKN_BYTES, b"\0")


def _cmac(key: Secret, message: bytes) -> bytes:
    mac = CMAC(AES(key.reveal()))
    mac.update(message)
    return mac.finalize()
