"""A secret in n shares, any m of which give it back (Shamir, CACM 22(11), 1979), byte by byte over GF(2^8).

The field is in crypto/field.py. Fewer than m shares are independent of the secret. The
scheme itself notices no wrong share, so that a single bad one would silently spoil the result: the record of an escrow
therefore holds a salted digest of every share, and `combine` names the one that does not fit. The salt lies in the share;
without it a digest would let somebody try out shares of a short secret.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from keystrand.core.errors import BadRequest, Tampered
from keystrand.core.labels import LABELS
from keystrand.core.secret import Secret
from keystrand.crypto.field import evaluate, interpolate

SHARES_MAX: Final = 255  # the elements of the field, less zero, where the secret lies
THRESHOLD_MIN: Final = 2  # with one, every share is the secret
SECRET_BYTES_MAX: Final = 4096
ESCROW_ID_BYTES: Final = 16
SALT_BYTES: Final = 32
VERSION: Final = 1
_HEADER_BYTES: Final = 1 + ESCROW_ID_BYTES + 1 + 1 + SALT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One share. index: its x, from 1 on. Secret as the key that it is a share of."""

    escrow_id: bytes
    threshold: int
    index: int
    salt: Secret
    value: Secret

    def encode(self) -> Secret:
        """version (1) || escrow ID (16) || threshold (1) || index (1) || salt (32) || value"""
        head = bytes([VERSION]) + self.escrow_id + bytes([self.threshold, self.index])
        return Secret(head + self.salt.reveal() + self.value.reveal())

    @classmethod
    def decode(cls, encoded: Secret) -> Share:
        """What `encode` made. Raises BadRequest for anything else."""
        raw = encoded.reveal()
        if not _HEADER_BYTES < len(raw) <= _HEADER_BYTES + SECRET_BYTES_MAX or raw[0] != VERSION:
            raise BadRequest("not a share", hint="ask the custodian for the share as it was handed out")
        threshold, index = raw[1 + ESCROW_ID_BYTES : 3 + ESCROW_ID_BYTES]
        if threshold < THRESHOLD_MIN or index == 0:
            raise BadRequest("not a share: it has no threshold or no index")
        salt = raw[_HEADER_BYTES - SALT_BYTES : _HEADER_BYTES]
        return cls(
            escrow_id=raw[1 : 1 + ESCROW_ID_BYTES],
            threshold=threshold,
            index=index,
            salt=Secret(salt),
            value=Secret(raw[_HEADER_BYTES:]),
        )

    def digest(self) -> bytes:
        """What the record holds of this share: SHA-256 over label and the whole encoding, salt included."""
        return hashlib.sha256(LABELS["escrow/share"] + self.encode().reveal()).digest()


class EscrowRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be known of an escrow; the site keeps it, authentic. digests[i] belongs to the share of index i + 1."""

    escrow_id: bytes
    threshold: int
    digests: tuple[bytes, ...]

    @property
    def shares(self) -> int:
        return len(self.digests)

    def fits(self, share: Share) -> bool:
        """Is it the very share that was made for its index?"""
        if not 0 < share.index <= self.shares:
            return False
        return hmac.compare_digest(self.digests[share.index - 1], share.digest())


def split(
    secret: Secret, threshold: int, shares: int, *, entropy: Callable[[int], bytes] = secrets.token_bytes
) -> tuple[EscrowRecord, tuple[Share, ...]]:
    """`secret` in `shares` shares, any `threshold` of which suffice, and the record to check them by.

    entropy: bytes -> so many random bytes. Raises BadRequest unless 2 <= threshold <= shares <= 255.
    """
    if not THRESHOLD_MIN <= threshold <= shares <= SHARES_MAX:
        raise BadRequest(f"{threshold} of {shares} is no quorum", hint="2 <= threshold <= shares <= 255")
    if not 0 < len(secret) <= SECRET_BYTES_MAX:
        raise BadRequest(f"a secret of {len(secret)} bytes cannot be escrowed; 1 to {SECRET_BYTES_MAX} can")
    coefficients = [secret.reveal(), *(entropy(len(secret)) for _ in range(threshold - 1))]
    escrow_id = entropy(ESCROW_ID_BYTES)
    made = tuple(
        Share(
            escrow_id=escrow_id,
            threshold=threshold,
            index=index,
            salt=Secret(entropy(SALT_BYTES)),
            value=Secret(evaluate(coefficients, index)),
        )
        for index in range(1, shares + 1)
    )
    digests = tuple(share.digest() for share in made)
    return EscrowRecord(escrow_id=escrow_id, threshold=threshold, digests=digests), made


def combine(record: EscrowRecord, shares: Iterable[Share]) -> Secret:
    """The secret. Raises Tampered, naming each share that is not the one handed out; BadRequest where they are too few.

    The same share twice counts once; shares beyond the threshold are checked as well.
    """
    given = list(shares)
    wrong = sorted({share.index for share in given if not record.fits(share)})
    if wrong:
        names = ", ".join(map(str, wrong))
        raise Tampered(f"share {names} is not what was handed out", hint="combine without it; ask its custodian")
    distinct = {share.index: share for share in given}
    if len(distinct) < record.threshold:
        raise BadRequest(
            f"{len(distinct)} shares of the {record.threshold} that are needed", hint="ask more custodians"
        )
    points = [(index, share.value.reveal()) for index, share in sorted(distinct.items())[: record.threshold]]
    return Secret(interpolate(points))
