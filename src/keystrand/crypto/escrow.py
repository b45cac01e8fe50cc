"""Shares for custodians: each sealed to the public key of one person, quantum-safe (HPKE, RFC 9180, with X-Wing).

The KEM is ML-KEM-768 with X25519 (draft-connolly-cfrg-xwing-kem), so that a sealed share may be mailed or printed. HPKE's
base mode says nothing about the sender; who handed out a share is shown by the digests of the escrow's record.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from keystrand.core.errors import BadRequest, Tampered
from keystrand.core.labels import LABELS
from keystrand.core.secret import Secret
from keystrand.crypto.combine import frame
from keystrand.crypto.shares import EscrowRecord, Share, split

MLKEM_SEED_BYTES: Final = 64  # FIPS 203: d || z
X25519_BYTES: Final = 32
PRIVATE_BYTES: Final = MLKEM_SEED_BYTES + X25519_BYTES
MLKEM_PUBLIC_BYTES: Final = 1184
PUBLIC_BYTES: Final = MLKEM_PUBLIC_BYTES + X25519_BYTES

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class CustodianKey:
    """The private key of one custodian: the seed of ML-KEM-768, then that of X25519."""

    __slots__ = ("_key", "_secret", "public")

    def __init__(self, secret: Secret) -> None:
        """secret: 96 bytes, as `secret` gave them. Raises BadRequest for another length."""
        if len(secret) != PRIVATE_BYTES:
            raise BadRequest(f"a custodian's key has {PRIVATE_BYTES} bytes, not {len(secret)}")
        raw = secret.reveal()
        mlkem = MLKEM768PrivateKey.from_seed_bytes(raw[:MLKEM_SEED_BYTES])
        x25519 = X25519PrivateKey.from_private_bytes(raw[MLKEM_SEED_BYTES:])
        self._secret = secret
        self._key = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> CustodianKey:
        return cls(Secret(secrets.token_bytes(PRIVATE_BYTES)))

    @property
    def secret(self) -> Secret:
        """For the custodian's own file or token; `CustodianKey(secret)` is this key again."""
        return Secret(self._secret.reveal())

    def open(self, custodian: str, sealed: bytes) -> Share:
        """The share in `sealed`. Raises Tampered unless it was sealed for `custodian` and this key."""
        try:
            return Share.decode(Secret(_SUITE.decrypt(sealed, self._key, _info(custodian))))
        except (InvalidTag, ValueError):
            hint = "is it the share of another custodian, or of another key?"
            raise Tampered(f"the share does not open for {custodian}", hint=hint) from None

    def __repr__(self) -> str:
        return "<CustodianKey>"


def _info(custodian: str) -> bytes:
    return LABELS["escrow/custodian"] + frame(custodian.encode())


def seal_share(share: Share, custodian: str, public: bytes) -> bytes:
    """`share` for the holder of the key behind `public` (1216 bytes) only. Raises BadRequest for a key that will not do."""
    try:
        if len(public) != PUBLIC_BYTES:
            raise ValueError("length")
        mlkem = MLKEM768PublicKey.from_public_bytes(public[:MLKEM_PUBLIC_BYTES])
        x25519 = X25519PublicKey.from_public_bytes(public[MLKEM_PUBLIC_BYTES:])
        key = MLKEM768X25519PublicKey(mlkem, x25519)
        return _SUITE.encrypt(share.encode().reveal(), key, _info(custodian))
    except ValueError:
        raise BadRequest(f"not the public key of a custodian: {custodian}", hint="ask for it again") from None


def hand_out(secret: Secret, threshold: int, custodians: Mapping[str, bytes]) -> tuple[EscrowRecord, dict[str, bytes]]:
    """`secret` split among `custodians` (name -> public key), any `threshold` of whom can give it back.

    The record to keep, and per custodian the sealed share. Raises BadRequest for a threshold that is no quorum, a key that
    will not do, or a key that two of them share: one person would count twice.
    """
    if len(set(custodians.values())) < len(custodians):
        raise BadRequest("two custodians have the same key", hint="each makes a key of his own")
    record, shares = split(secret, threshold, len(custodians))
    sealed = {
        name: seal_share(share, name, public) for (name, public), share in zip(custodians.items(), shares, strict=True)
    }
    return record, sealed
