"""Mutual TLS: contexts from files that may change, and who is at the other end once a handshake is done.

pyOpenSSL over the OpenSSL that `cryptography` carries, so that X25519MLKEM768 is there on any host and the group that
was agreed is known. TLS 1.3 is RFC 8446; the hybrid groups are those of draft-ietf-tls-ecdhe-mlkem.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

import service_identity
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from service_identity.hazmat import DNS_ID, DNSPattern, IPAddress_ID, IPAddressPattern, verify_service_identity

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import ConfigError, NotPermitted
from keystrand.core.events import Event, Scalar, Sink
from keystrand.core.identity import Identity, holder

HYBRID_GROUPS: Final = ("X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024")
CLASSICAL_GROUPS: Final = ("X25519", "P-256", "P-384")
RELOAD_CHECK_S: Final = 1.0

# TLS 1.2 where it is allowed at all: forward secrecy and AEAD only
_CIPHERS_TLS12: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_GROUP_NAMES: Final = {"x25519": "X25519", "secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one end: chain, private key, CAs that may vouch for the other end, and their CRLs (None: no check)."""

    certificate: Path
    private_key: Path
    trust: Path
    revoked: Path | None = None

    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.certificate, self.private_key, self.trust, self.revoked) if path)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPolicy:
    """What a connection must have. groups: in order of preference; empty: hybrid ones first, then classical ones.

    Raises ConfigError where the parts contradict each other.
    """

    minimum: Literal["1.3", "1.2"] = "1.3"
    require_pqc_group: bool = True
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.require_pqc_group and self.minimum != "1.3":
            raise ConfigError(
                "require_pqc_group needs TLS 1.3, but minimum is 1.2",
                hint='set minimum = "1.3", or require_pqc_group = false',
            )
        if self.require_pqc_group and not any(map(is_pqc, self.offered)):
            raise ConfigError("require_pqc_group is set, but no group has ML-KEM", hint="add X25519MLKEM768 to groups")

    @property
    def offered(self) -> tuple[str, ...]:
        """Groups to negotiate from; with require_pqc_group the classical ones are not even offered."""
        groups = self.groups or HYBRID_GROUPS + CLASSICAL_GROUPS
        return tuple(filter(is_pqc, groups)) if self.require_pqc_group else groups

    @property
    def group_list(self) -> bytes:
        """In OpenSSL's words: every PQC group outranks every classical one, even at the price of a round trip."""
        hybrid = ":".join(filter(is_pqc, self.offered))
        classical = ":".join(group for group in self.offered if not is_pqc(group))
        return "/".join(filter(None, (hybrid, classical))).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPeer:
    """Who is at the other end. fingerprint: SHA-256 of the certificate, hex; group: as IANA names it, "" if none."""

    identity: Identity
    fingerprint: str
    group: str
    version: str
    cipher: str
    not_after_s: float

    @property
    def is_pqc(self) -> bool:
        return is_pqc(self.group)


class ServerSide(Protocol):
    """What an accepting transport needs, however the client proves who it is: TlsContexts, or PskContexts."""

    def server_connection(self) -> SSL.Connection: ...
    def accepted(self, connection: SSL.Connection, /) -> TlsPeer: ...
    def review(self, connection: SSL.Connection, peer: TlsPeer, /) -> None: ...
    def emit(self, kind: str, **fields: Scalar) -> None: ...


class ClientSide(Protocol):
    """What a connecting transport needs: TlsContexts, or contexts of a pre-shared key."""

    def client_connection(self, host: str, /) -> SSL.Connection: ...
    def connected(self, connection: SSL.Connection, host: str, expect: tuple[str | None, str], /) -> TlsPeer: ...
    def review(self, connection: SSL.Connection, peer: TlsPeer, /) -> None: ...


def is_pqc(group: str) -> bool:
    return "MLKEM" in group.upper()


@dataclass(slots=True)
class _Loaded:
    server: SSL.Context
    client: SSL.Context
    own: x509.Certificate
    stamp: tuple[tuple[int, int, int], ...]
    vouched: set[str] = field(default_factory=set)  # fingerprints of certificates that were good under these files


@dataclass(slots=True)
class TlsContexts:
    """Contexts of one end, made anew when its files change; open connections are then held against the new ones.

    rule: where identities stand, "san-uri" or "cn". Raises ConfigError if the first load fails; a later one that fails
    leaves the old contexts in use and says so by an event.
    """

    files: TlsFiles
    policy: TlsPolicy = TlsPolicy()
    rule: str = "san-uri"
    sink: Sink | None = None
    clock: Clock = field(default_factory=SystemClock)
    _loaded: _Loaded = field(init=False)
    _checked_s: float = field(init=False)
    _failed: tuple[tuple[int, int, int], ...] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._loaded = self._load()
        self._checked_s = self.clock.monotonic_s()

    def server_connection(self) -> SSL.Connection:
        """The accepting end of a new connection, over memory."""
        self.refresh()
        connection = SSL.Connection(self._loaded.server, None)
        connection.set_accept_state()
        return connection

    def client_connection(self, host: str) -> SSL.Connection:
        """The connecting end of a new connection to `host`, over memory."""
        self.refresh()
        connection = SSL.Connection(self._loaded.client, None)
        connection.set_connect_state()
        if not _is_address(host):
            connection.set_tlsext_host_name(host.encode("idna"))
        return connection

    def refresh(self) -> None:
        """Take up changed files; looks at most once in RELOAD_CHECK_S."""
        now_s = self.clock.monotonic_s()
        if now_s - self._checked_s >= RELOAD_CHECK_S:
            self._checked_s = now_s
            self._reload_if_changed()

    @property
    def own_not_after_s(self) -> float:
        """When the own certificate ends, Unix time."""
        return self._loaded.own.not_valid_after_utc.timestamp()

    @property
    def own_identity(self) -> Identity:
        return _identity(self._loaded.own, self.rule)

    def accepted(self, connection: SSL.Connection) -> TlsPeer:
        """The client behind a finished handshake. Raises NotPermitted if identity or group will not do."""
        return self._peer(connection)

    def connected(self, connection: SSL.Connection, host: str, expect: tuple[str | None, str]) -> TlsPeer:
        """The server behind a finished handshake: it must be certified for `host` and be `expect` (kind, name)."""
        peer = self._peer(connection)
        _check_host(_certificate(connection), host)
        kind, name = expect
        # under the rule "cn" certificates state no kind, so only the name can be held against them
        if peer.identity.name != name or (peer.identity.kind or kind) != kind:
            raise NotPermitted(f"{host} is {peer.identity}, not {kind or ''} {name}".replace("  ", " "))
        return peer

    def review(self, connection: SSL.Connection, peer: TlsPeer) -> None:
        """Raises NotPermitted where the certificate that was shown would not be taken now: ended, or revoked since."""
        self.refresh()
        if self.clock.now_s() >= peer.not_after_s:
            raise NotPermitted("TLS: the certificate has expired")
        if peer.fingerprint in self._loaded.vouched:
            return
        store, certificate = self._loaded.server.get_cert_store(), connection.get_peer_certificate()
        if store is None or certificate is None:
            raise NotPermitted("TLS: no certificate was shown")
        try:
            crypto.X509StoreContext(store, certificate, connection.get_peer_cert_chain()).verify_certificate()
        except crypto.X509StoreContextError as problem:
            words = _VERIFY_PROBLEMS.get(problem.errors[0], str(problem))
            raise NotPermitted(
                f"TLS: {words}", hint="check trust, revocation list and validity on both sides"
            ) from None
        self._loaded.vouched.add(peer.fingerprint)

    def emit(self, kind: str, **fields: Scalar) -> None:
        if self.sink is not None:
            self.sink.emit(Event(kind, self.clock.now_s(), fields))

    def _peer(self, connection: SSL.Connection) -> TlsPeer:
        certificate = _certificate(connection)
        group = connection.get_group_name() or ""
        if self.policy.require_pqc_group and not is_pqc(group):
            raise NotPermitted(f"keys were agreed with {group or 'no group'}; policy requires ML-KEM")
        return TlsPeer(
            identity=_identity(certificate, self.rule),
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            group=_GROUP_NAMES.get(group, group),
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "",
            not_after_s=certificate.not_valid_after_utc.timestamp(),
        )

    def _reload_if_changed(self) -> None:
        stamp = _stamp(self.files)
        if stamp in (self._loaded.stamp, self._failed):
            return
        self._failed = stamp
        try:
            self._loaded = self._load()
        except ConfigError as problem:
            self.emit("tls.reload_failed", reason=str(problem))
        else:
            self._failed = None
            self.emit("tls.reloaded", not_after_s=self.own_not_after_s)

    def _load(self) -> _Loaded:
        try:
            stamp = _stamp(self.files)  # before reading: a change while we read is then seen the next time
            own = x509.load_pem_x509_certificates(self.files.certificate.read_bytes())
            contexts = [_context(self.files, self.policy, own) for _ in range(2)]
        except OSError as problem:
            raise ConfigError(f"cannot be read: {problem.strerror}", path=str(problem.filename)) from None
        except (ValueError, SSL.Error, crypto.Error) as problem:
            raise ConfigError(
                f"certificate, key, trust or CRL is broken: {describe(problem)}", path=str(self.files.certificate)
            ) from None
        return _Loaded(contexts[0], contexts[1], own[0], stamp)


def _context(files: TlsFiles, policy: TlsPolicy, chain: list[x509.Certificate]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(_VERSIONS[policy.minimum])
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    # no resumption: each connection proves its certificate anew; `review` sees to those that are open
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"keystrand")  # without one, OpenSSL fails a client that merely tries to resume
    context.set_cipher_list(_CIPHERS_TLS12)
    _pin_groups(context, policy)
    context.use_certificate(chain[0])
    for link in chain[1:]:
        context.add_extra_chain_cert(link)
    context.use_privatekey_file(str(files.private_key))
    context.check_privatekey()
    _trust(context, files)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _remember_problem)
    return context


def _pin_groups(context: SSL.Context, policy: TlsPolicy) -> None:
    # pyOpenSSL has no public door to this yet; without it the group is still checked after each handshake
    lib = getattr(SSL, "_lib", None)
    pin: Callable[[object, bytes], int] | None = getattr(lib, "SSL_CTX_set1_curves_list", None)
    if pin is not None and hasattr(context, "_context") and pin(context._context, policy.group_list) != 1:
        raise ValueError(f"OpenSSL does not know a group of {policy.group_list.decode()}")


def _trust(context: SSL.Context, files: TlsFiles) -> None:
    store = context.get_cert_store()
    if store is None:
        raise ValueError("no certificate store")
    authorities = x509.load_pem_x509_certificates(files.trust.read_bytes())
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)
    if files.revoked is None:
        return
    for crl in _crls(files.revoked.read_bytes()):
        store.add_crl(crl)
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)


def _crls(pem: bytes) -> list[x509.CertificateRevocationList]:
    begin, end = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
    blocks = [begin + part.partition(end)[0] + end + b"\n" for part in pem.split(begin)[1:]]
    if not blocks:
        raise ValueError("the file of revoked certificates has no CRL")
    return [x509.load_pem_x509_crl(block) for block in blocks]


def _remember_problem(connection: SSL.Connection, _cert: crypto.X509, error: int, _depth: int, ok: int) -> bool:
    if not ok:
        connection.set_app_data(error)
    return bool(ok)


def _certificate(connection: SSL.Connection) -> x509.Certificate:
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        raise NotPermitted("no certificate was shown")
    return certificate


def _stamp(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    return tuple(map(_file_stamp, files.paths()))


def _file_stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0  # missing is a state like others; reading it says what is wrong
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_host(certificate: x509.Certificate, host: str) -> None:
    # not service_identity's own reading of the certificate: it takes every URI for scheme:host, and a URN is not
    names = _alternative_names(certificate)
    dns = [DNSPattern.from_bytes(name.encode()) for name in names.get_values_for_type(x509.DNSName)]
    stated = map(str, names.get_values_for_type(x509.IPAddress))
    addresses = [IPAddressPattern(ipaddress.ip_address(address)) for address in stated]
    wanted = IPAddress_ID(ipaddress.ip_address(host)) if _is_address(host) else DNS_ID(host)
    try:
        verify_service_identity([*dns, *addresses], [wanted], [])
    except (service_identity.VerificationError, service_identity.CertificateError):
        raise NotPermitted(
            f"the certificate is not for {host}", hint=f"issue it with the host {host}: `keystrand pki issue`"
        ) from None


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _identity(certificate: x509.Certificate, rule: str) -> Identity:
    uris = _alternative_names(certificate).get_values_for_type(x509.UniformResourceIdentifier)
    common = [str(entry.value) for entry in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return holder(uris=uris, common_names=common, rule=rule)


# X509_V_ERR_… of OpenSSL's x509_vfy.h, in words
_VERIFY_PROBLEMS: Final = {
    3: "no CRL of its authority is at hand",
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    12: "the CRL of its authority has expired",
    18: "the certificate is self-signed",
    19: "its authority is not trusted",
    20: "its authority is not trusted",
    23: "the certificate is revoked",
    26: "the certificate is not meant for this use",
}


def describe(problem: BaseException, connection: SSL.Connection | None = None) -> str:
    """A TLS failure in words: OpenSSL's reasons, and what was wrong with the certificate where that is known."""
    code = connection.get_app_data() if connection is not None else None
    if isinstance(code, int):
        return _VERIFY_PROBLEMS.get(code, f"the certificate does not verify (X509_V_ERR {code})")
    if isinstance(problem, SSL.Error) and problem.args and isinstance(problem.args[0], list):
        return ", ".join(str(entry[2]) for entry in problem.args[0]) or type(problem).__name__
    return str(problem) or type(problem).__name__
