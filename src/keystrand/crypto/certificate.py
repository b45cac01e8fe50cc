"""What a certificate says of itself, for an inventory: nothing is verified here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from keystrand.core.errors import BadRequest


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """signature: algorithm by name, or its OID where no name is known. public_key: such as `RSA 2048`."""

    subject: str
    issuer: str
    signature: str
    public_key: str
    expires: date
    fingerprint: str


def facts_of(der: bytes) -> CertificateFacts:
    """Raises BadRequest for what is no certificate."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        return CertificateFacts(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            signature=_named(certificate.signature_algorithm_oid),
            public_key=_key(certificate),
            expires=certificate.not_valid_after_utc.date(),
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        )
    except ValueError as error:
        raise BadRequest(f"not a certificate: {error}") from None


def _named(oid: x509.ObjectIdentifier) -> str:
    name = getattr(oid, "_name", "")
    return oid.dotted_string if not name or name == "Unknown OID" else name


def _key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return _named(certificate.public_key_algorithm_oid)
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return type(key).__name__.removesuffix("PublicKey")
    return _named(certificate.public_key_algorithm_oid)
