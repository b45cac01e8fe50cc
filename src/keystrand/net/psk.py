"""TLS with an external pre-shared key for the accepting end: TLS 1.2 DHE-PSK and ECDHE-PSK, TLS 1.3 psk_dhe_ke.

Routers that have no certificate authenticate so (Cisco SKIP). RFC 4279, RFC 5489, RFC 5487 and RFC 8446, 4.2.11; what an
external PSK must be like is RFC 9257. Every suite here has a 256-bit key. `PskContexts` stands where TlsContexts stands.
"""

from __future__ import annotations

import base64
import math
import secrets
import stat
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from OpenSSL import SSL

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import BadRequest, ConfigError, NotPermitted
from keystrand.core.events import Event, Scalar, Sink
from keystrand.core.identity import Identity, check_name
from keystrand.core.secret import Secret
from keystrand.net.tls import RELOAD_CHECK_S, TlsPeer, TlsPolicy

PSK_BITS_MIN: Final = 256
PSK_BITS_FLOOR: Final = 128  # RFC 9257, 6: not less entropy than this, whatever the operator wants
PSK_BITS_MAX: Final = 512

_SUITES_DHE: Final = "DHE-PSK-AES256-GCM-SHA384:ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-CHACHA20-POLY1305"
_SUITES_PSK: Final = "PSK-AES256-GCM-SHA384"
# a PSK without a stated hash goes with SHA-256 in TLS 1.3 (RFC 8446, 4.2.11); of those suites this one has 256 bits
_SUITES_TLS13: Final = b"TLS_CHACHA20_POLY1305_SHA256"
_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


@dataclass(frozen=True, slots=True, kw_only=True)
class PskPolicy:
    """What a connection must have. forward_secrecy=False also takes plain PSK, where whoever learns the PSK later can
    read what was recorded; some routers offer nothing better.

    Raises ConfigError below PSK_BITS_FLOOR.
    """

    minimum: Literal["1.3", "1.2"] = "1.2"
    forward_secrecy: bool = True
    psk_bits_min: int = PSK_BITS_MIN

    def __post_init__(self) -> None:
        if not PSK_BITS_FLOOR <= self.psk_bits_min <= PSK_BITS_MAX:
            raise ConfigError(f"psk_bits_min={self.psk_bits_min} is not {PSK_BITS_FLOOR} to {PSK_BITS_MAX}")

    @property
    def suites_tls12(self) -> str:
        """TLS 1.2 cipher suites in OpenSSL's words."""
        return _SUITES_DHE if self.forward_secrecy else f"{_SUITES_DHE}:{_SUITES_PSK}"


def read_psk_file(path: Path, *, psk_bits_min: int = PSK_BITS_MIN) -> dict[str, Secret]:
    """PSK identity -> key, from lines `identity:hex` (as stunnel's PSKsecrets); # begins a comment line.

    Raises ConfigError, with the line but never its content; also where others than the owner may read the file.
    """
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError("others may read these keys", path=str(path), hint=f"chmod 600 {path}")
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as problem:
        raise ConfigError(f"cannot be read: {problem.strerror}", path=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("is not ASCII text", path=str(path)) from None
    keys: dict[str, Secret] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            identity, key = _entry(line.strip(), path, number, psk_bits_min)
            if identity in keys:
                raise ConfigError("this PSK identity stands here twice", path=str(path), line=number)
            keys[identity] = key
    return keys


def _entry(line: str, path: Path, number: int, psk_bits_min: int) -> tuple[str, Secret]:
    identity, _, digits = line.rpartition(":")  # an identity may hold colons, hex does not
    try:
        check_name(identity, what="PSK identity")
        key = Secret(bytes.fromhex(digits.strip()))
    except (BadRequest, ValueError):
        raise ConfigError("not identity:hex", path=str(path), line=number) from None
    if not psk_bits_min <= key.length_bits <= PSK_BITS_MAX:
        raise ConfigError(
            f"the key has {key.length_bits} bits, not {psk_bits_min} to {PSK_BITS_MAX}",
            path=str(path),
            line=number,
            hint="make one: openssl rand -hex 32",
        )
    return identity, key


@dataclass(slots=True)
class PskContexts:
    """The accepting end for clients that hold a PSK of the file. saes: PSK identity -> SAE ID, where they differ.

    The file is read again when it changes; one that is broken leaves the keys before in use and says so by an event. Raises
    ConfigError if the first reading fails, or if OpenSSL was built without PSK.
    """

    path: Path
    policy: PskPolicy = PskPolicy()
    saes: Mapping[str, str] = field(default_factory=dict)
    sink: Sink | None = None
    clock: Clock = field(default_factory=SystemClock)
    _keys: dict[str, Secret] = field(init=False, repr=False)
    _stamp: tuple[int, int, int] = field(init=False)
    _checked_s: float = field(init=False)
    _context: SSL.Context = field(init=False, repr=False)
    _callback: Any = field(init=False, repr=False)
    _claims: weakref.WeakKeyDictionary[SSL.Connection, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._stamp = _stamp(self.path)
        self._keys = read_psk_file(self.path, psk_bits_min=self.policy.psk_bits_min)
        self._checked_s = self.clock.monotonic_s()
        self._claims = weakref.WeakKeyDictionary()
        # OpenSSL keeps the bare pointer of the callback: it must live as long as the context
        self._callback = _server_callback(self)
        self._context = _context(self.policy, self._callback)

    def server_connection(self) -> SSL.Connection:
        """The accepting end of a new connection, over memory."""
        self.refresh()
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return connection

    def accepted(self, connection: SSL.Connection) -> TlsPeer:
        """The client behind a finished handshake. Raises NotPermitted where no PSK vouches for it."""
        identity = self._claims.pop(connection, None)
        if identity is None or identity not in self._keys:
            raise NotPermitted("no pre-shared key vouches for the other side")
        return TlsPeer(
            identity=Identity("sae", self.saes.get(identity, identity)),
            fingerprint="",
            group=connection.get_group_name() or "",
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "",
            not_after_s=math.inf,
        )

    def review(self, connection: SSL.Connection, peer: TlsPeer) -> None:
        """Raises NotPermitted where the file has no key for the client any more."""
        self.refresh()
        if peer.identity.name not in {self.saes.get(identity, identity) for identity in self._keys}:
            raise NotPermitted("no pre-shared key vouches for the other side")

    def emit(self, kind: str, **fields: Scalar) -> None:
        if self.sink is not None:
            self.sink.emit(Event(kind, self.clock.now_s(), fields))

    def refresh(self) -> None:
        """Take up a changed file; looks at most once in RELOAD_CHECK_S."""
        now_s = self.clock.monotonic_s()
        if now_s - self._checked_s < RELOAD_CHECK_S:
            return
        self._checked_s = now_s
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_psk_file(self.path, psk_bits_min=self.policy.psk_bits_min)
        except ConfigError as problem:
            self.emit("tls.reload_failed", reason=str(problem))
        else:
            self.emit("tls.reloaded", psk_identities=len(self._keys))

    def key_for(self, connection: SSL.Connection, identity: str) -> bytes:
        """The key that the client must prove. Whom we do not know gets a random one, so that the handshake fails just
        as with a wrong key, and nobody learns which identities exist."""
        known = self._keys.get(identity)
        if known is None:
            self._claims.pop(connection, None)
            return secrets.token_bytes(PSK_BITS_MIN // 8)
        self._claims[connection] = identity
        return known.reveal()


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        facts = path.stat()
    except OSError:
        return 0, 0, 0
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


# pyOpenSSL has no public door to PSK yet; `cryptography` binds the calls ---------------------------------------------


def _server_callback(contexts: PskContexts) -> Any:
    ffi = getattr(SSL, "_ffi")  # noqa: B009

    def key_of(ssl: Any, identity: Any, out: Any, bytes_max: int) -> int:
        connection = SSL.Connection._reverse_mapping.get(ssl)
        if connection is None or identity == ffi.NULL:
            return 0
        key = contexts.key_for(connection, ffi.string(identity).decode("ascii", "replace"))
        if len(key) > bytes_max:
            return 0
        ffi.memmove(out, key, len(key))
        return len(key)

    # a fault in here ends the handshake, as 0 means no key; cffi would print it, with what it held
    return ffi.callback(
        "unsigned int(SSL *, char *, unsigned char *, unsigned int)", key_of, error=0, onerror=lambda *_: None
    )


def _context(policy: PskPolicy, callback: Any) -> SSL.Context:
    lib = getattr(SSL, "_lib", None)
    if not getattr(lib, "Cryptography_HAS_PSK", 0):
        raise ConfigError("this OpenSSL has no pre-shared keys", hint="authenticate by certificate instead")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[policy.minimum])
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # each connection proves its key anew
    context.set_cipher_list(policy.suites_tls12.encode())
    context.set_tls13_ciphersuites(_SUITES_TLS13)
    groups = TlsPolicy(minimum="1.2", require_pqc_group=False).group_list
    if lib.SSL_CTX_set1_curves_list(context._context, groups) != 1:  # type: ignore[union-attr]
        raise ConfigError(f"OpenSSL does not know a group of {groups.decode()}")
    _load_dh(context)
    lib.SSL_CTX_set_psk_server_callback(context._context, callback)  # type: ignore[union-attr]
    return context


def _load_dh(context: SSL.Context) -> None:
    # PKCS #3 DHParameter: SEQUENCE { prime INTEGER (a zero octet and 384), base INTEGER 2 }
    der = bytes.fromhex("30820188 02820181") + ffdhe3072().to_bytes(385, "big") + bytes.fromhex("020102")
    pem = b"-----BEGIN DH PARAMETERS-----\n" + base64.encodebytes(der) + b"-----END DH PARAMETERS-----\n"
    with tempfile.NamedTemporaryFile() as file:  # public numbers, and the door takes a path only
        file.write(pem)
        file.flush()
        context.load_tmp_dh(file.name)


def ffdhe3072() -> int:
    """The prime of RFC 7919, A.2, from its definition: 2^3072 - 2^3008 + (floor(2^2942 e) + 2625351) 2^64 - 1."""
    guard = 64
    term = total = 1 << (2942 + guard)
    for n in range(1, 500):  # 1/500! is far below 2^-3006
        term //= n
        total += term
    return int((1 << 3072) - (1 << 3008) + (((total >> guard) + 2_625_351) << 64) - 1)
