"""A small certificate authority for labs, demos and first installations.

One directory holds it: `ca.pem`, `ca.key`, `ca.crl` and, for each holder, KIND-NAME.pem and KIND-NAME.key. The CRL is
the only record of what is revoked. Certificates name their holder by the URI `urn:keystrand:KIND:NAME` (RFC 5280
subject alternative name), beside the hosts where the holder is reached.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keystrand.core.errors import BadRequest, ConfigError
from keystrand.core.identity import Identity, check_name, holder

Algorithm = Literal["ecdsa-p256", "ml-dsa-65"]
Kind = Literal["sae", "kme", "module", "admin"]
SigningKey = ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey

CA_DAYS: Final = 3650
CERTIFICATE_DAYS: Final = 397
CRL_DAYS: Final = 397
OWN_MACHINE: Final = ("localhost", "127.0.0.1")
BACKDATE_S: Final = 300  # clocks of two sites differ

_GENERATE: Final[dict[str, Callable[[], SigningKey]]] = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
}


def create_ca(directory: Path, name: str, *, algorithm: Algorithm = "ecdsa-p256") -> tuple[Path, Path]:
    """Make the authority and its empty CRL; returns (ca.pem, ca.key). Raises ConfigError where one exists already."""
    check_name(name, what="name of the authority")
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    key = _generate(algorithm)
    subject = _subject(f"{name} CA")
    builder = _builder(subject, subject, key, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(ca=True), critical=True)
    certificate = builder.sign(key, _digest(key))
    paths = directory / "ca.pem", directory / "ca.key"
    _write_pair(*paths, certificate, key, force=False)
    _write_crl(directory, certificate, key, [], number=1)
    return paths


def issue(
    directory: Path,
    *,
    kind: Kind,
    name: str,
    hosts: Iterable[str] = (),
    days: float = CERTIFICATE_DAYS,
    algorithm: Algorithm | None = None,
    force: bool = False,
) -> tuple[Path, Path]:
    """A certificate for `name`, reached at `hosts` (DNS names and IP addresses); returns (certificate, private key).

    hosts: none keeps those of the certificate that is replaced; a KME is reached at its own machine besides, by its modules,
    gateway and operators. algorithm: of its key; left out: that of the authority. Raises ConfigError where the files exist
    (unless `force`) or the authority cannot be read, BadRequest for a name.
    """
    check_name(name)
    paths = directory / f"{kind}-{name}.pem", directory / f"{kind}-{name}.key"
    hosts = tuple(hosts) or (hosts_of(load_certificate(paths[0])) if force and paths[0].exists() else ())
    if kind == "kme":
        hosts = tuple(dict.fromkeys((*hosts, *OWN_MACHINE)))
    ca, ca_key = _load_ca(directory)
    key = _generate(algorithm or _algorithm_of(ca_key))
    builder = _builder(_subject(name), ca.subject, key, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(ca=False), critical=True)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    names = [x509.UniformResourceIdentifier(Identity(kind, name).urn), *map(_host, hosts)]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    vouching = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = builder.add_extension(vouching, critical=False).sign(ca_key, _digest(ca_key))
    _write_pair(*paths, certificate, key, force=force)
    return paths


def _algorithm_of(key: SigningKey) -> Algorithm:
    return "ml-dsa-65" if isinstance(key, mldsa.MLDSA65PrivateKey) else "ecdsa-p256"


def revoke(directory: Path, certificate: Path) -> Path:
    """Add `certificate` to the CRL of the authority; returns the CRL. Raises ConfigError if it is another's."""
    ca, ca_key = _load_ca(directory)
    revoked = load_certificate(certificate)
    if revoked.issuer != ca.subject:
        raise ConfigError("this authority did not issue the certificate", path=str(certificate))
    return _extend_crl(directory, ca, ca_key, revoked.serial_number)


def renew_crl(directory: Path) -> Path:
    """The same CRL with a fresh validity: OpenSSL refuses everyone under a CRL that has expired."""
    ca, ca_key = _load_ca(directory)
    return _extend_crl(directory, ca, ca_key, None)


def load_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file. Raises ConfigError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise ConfigError(f"no PEM certificate: {problem}", path=str(path)) from None


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and IP addresses at which its holder is reached."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))


def identity_of(certificate: x509.Certificate, *, rule: str = "san-uri") -> Identity:
    """Who holds `certificate`, by "san-uri" or "cn". Raises NotPermitted unless it states exactly one identity."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    common = [str(entry.value) for entry in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return holder(uris=uris, common_names=common, rule=rule)


def _generate(algorithm: str) -> SigningKey:
    if algorithm not in _GENERATE:
        raise BadRequest(f"signature algorithm {algorithm!r} is none of {', '.join(_GENERATE)}")
    return _GENERATE[algorithm]()


def _digest(key: SigningKey) -> hashes.SHA256 | None:
    return hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _builder(subject: x509.Name, issuer: x509.Name, key: SigningKey, days: float) -> x509.CertificateBuilder:
    start = _now() - dt.timedelta(seconds=BACKDATE_S)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(start, start + dt.timedelta(days=days)))
        .not_valid_after(_now() + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _load_ca(directory: Path) -> tuple[x509.Certificate, SigningKey]:
    path = directory / "ca.key"
    if path.exists() and path.stat().st_mode & 0o077:
        raise ConfigError("others can read the key of the authority", path=str(path), hint=f"chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as problem:
        hint = "make the authority first: `keystrand site init`"
        raise ConfigError(f"no private key of an authority: {problem}", path=str(path), hint=hint) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey):
        raise ConfigError("the authority's key is neither ECDSA nor ML-DSA-65", path=str(path))
    return load_certificate(directory / "ca.pem"), key


def _extend_crl(directory: Path, ca: x509.Certificate, key: SigningKey, serial: int | None) -> Path:
    path = directory / "ca.crl"
    try:
        old = x509.load_pem_x509_crl(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise ConfigError(f"no certificate revocation list: {problem}", path=str(path)) from None
    entries = list(old)
    if serial is not None and old.get_revoked_certificate_by_serial_number(serial) is None:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_now())
        entries.append(entry.build())
    number = old.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return _write_crl(directory, ca, key, entries, number=number + 1)


def _write_crl(
    directory: Path, ca: x509.Certificate, key: SigningKey, entries: Iterable[x509.RevokedCertificate], *, number: int
) -> Path:
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.subject)
    builder = builder.last_update(_now() - dt.timedelta(seconds=BACKDATE_S))
    builder = builder.next_update(_now() + dt.timedelta(days=CRL_DAYS))
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    vouching = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    builder = builder.add_extension(vouching, critical=False)
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    path = directory / "ca.crl"
    signed = builder.sign(key, _digest(key))
    _write(path, signed.public_bytes(serialization.Encoding.PEM), mode=0o644, force=True)
    return path


def _write_pair(
    certificate_path: Path, key_path: Path, certificate: x509.Certificate, key: SigningKey, *, force: bool
) -> None:
    taken = [path for path in (certificate_path, key_path) if path.exists()]
    if taken and not force:
        raise ConfigError("exists already", path=str(taken[0]), hint="choose another name, or pass --force")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write(key_path, key.private_bytes(pem, pkcs8, serialization.NoEncryption()), mode=0o600, force=force)
    _write(certificate_path, certificate.public_bytes(pem), mode=0o644, force=force)


def _write(path: Path, content: bytes, *, mode: int, force: bool) -> None:
    """Whole or not at all, on disk when it returns; never over an existing file unless `force`."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if force:
            draft.replace(path)
        else:
            path.hardlink_to(draft)
    except FileExistsError:
        raise ConfigError("exists already", path=str(path)) from None
    finally:
        draft.unlink(missing_ok=True)
