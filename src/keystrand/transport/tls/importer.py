"""External PSK importer, RFC 9258: from one key, a PSK and an identity that are bound to protocol and KDF.

OpenSSL has no binder of imported PSKs: its label stays "ext binder" where section 5.2 wants "imp binder". So both ends must
be ours; the derivation itself (sections 4.1 and 5.1) is that of the RFC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keystrand.core.errors import BadRequest
from keystrand.core.secret import Secret

TLS13: Final = 0x0304
HKDF_SHA256: Final = 0x0001  # IANA, TLS KDF Identifiers
HKDF_SHA384: Final = 0x0002
_HASHES: Final[dict[int, type[hashes.SHA256] | type[hashes.SHA384]]] = {
    HKDF_SHA256: hashes.SHA256,
    HKDF_SHA384: hashes.SHA384,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedIdentity:
    """What goes over the wire, in clear, as the identity of the PSK. external: our name of the key."""

    external: bytes
    context: bytes = b""
    protocol: int = TLS13
    kdf: int = HKDF_SHA384

    def encode(self) -> bytes:
        """Raises BadRequest for an empty name, or one that does not fit."""
        if not 1 <= len(self.external) <= 0xFFFF or len(self.context) > 0xFFFF:
            raise BadRequest("an external identity has 1 to 65535 bytes, its context at most 65535")
        parts = (_framed(self.external), _framed(self.context), self.protocol.to_bytes(2), self.kdf.to_bytes(2))
        return b"".join(parts)


def read_identity(raw: bytes) -> ImportedIdentity:
    """Raises BadRequest for what `encode` does not write."""
    external, rest = _cut(raw)
    context, rest = _cut(rest)
    if not external or len(rest) != 4:
        raise BadRequest("not an ImportedIdentity")
    protocol, kdf = int.from_bytes(rest[:2]), int.from_bytes(rest[2:])
    return ImportedIdentity(external=external, context=context, protocol=protocol, kdf=kdf)


def import_psk(key: Secret, identity: ImportedIdentity) -> Secret:
    """ipskx of section 5.1: HKDF-Expand-Label(HKDF-Extract(0, epsk), "derived psk", Hash(ImportedIdentity), L), as long as
    the hash of the target KDF. The hash that the EPSK itself goes with is SHA-256, as none is stated for it."""
    length_bytes = _HASHES[identity.kdf]().digest_size
    digest = hashes.Hash(hashes.SHA256())
    digest.update(identity.encode())
    extract = hmac.HMAC(bytes(32), hashes.SHA256())
    extract.update(key.reveal())
    return Secret(expand_label(extract.finalize(), b"derived psk", digest.finalize(), length_bytes, hashes.SHA256()))


def expand_label(secret: bytes, label: bytes, context: bytes, length_bytes: int, algorithm: HashAlgorithm) -> bytes:
    """HKDF-Expand-Label, RFC 8446, 7.1"""
    words = b"tls13 " + label
    info = length_bytes.to_bytes(2) + bytes((len(words),)) + words + bytes((len(context),)) + context
    return HKDFExpand(algorithm, length_bytes, info).derive(secret)


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(2) + part


def _cut(raw: bytes) -> tuple[bytes, bytes]:
    end = 2 + int.from_bytes(raw[:2])
    if len(raw) < end or len(raw) < 2:
        raise BadRequest("not an ImportedIdentity")
    return raw[2:end], raw[end:]
