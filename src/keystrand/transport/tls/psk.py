"""TLS 1.3 with an external PSK and an ML-KEM group: the contexts of both ends, for net.tls_transport.

Only psk_dhe_ke (RFC 8446, 4.2.9): whoever learns the PSK later reads nothing, and whoever breaks the group neither. No
certificate, no ticket, no early data: each connection proves the key anew. What an external PSK must be like: RFC 9257.
"""

from __future__ import annotations

import math
import secrets
import socket
import weakref
from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL

from keystrand.core.errors import ConfigError, NotPermitted
from keystrand.core.identity import Identity
from keystrand.core.secret import Secret
from keystrand.net.tls import TlsPeer, is_pqc

GROUPS: Final = b"X25519MLKEM768"
SUITE: Final = b"TLS_AES_256_GCM_SHA384"  # the hash belongs to the PSK: no second suite
_CODES: Final = {
    SUITE: b"\x13\x02",
    b"TLS_CHACHA20_POLY1305_SHA256": b"\x13\x03",
    b"TLS_AES_128_GCM_SHA256": b"\x13\x01",
}
_TLS13: Final = 0x0304
RELAY: Final = b"keystrand-relay/1"  # ALPN: what the connection is for
PROBE: Final = b"keystrand-probe/1"  # a handshake and nothing else
PSK_BYTES: Final = 48

Find = Callable[[bytes], Secret | None]


class PskServer:
    """The accepting end. find: identity -> PSK of PSK_BYTES, or None."""

    def __init__(self, find: Find) -> None:
        self._claims: weakref.WeakKeyDictionary[SSL.Connection, bytes] = weakref.WeakKeyDictionary()
        # OpenSSL keeps the bare pointer of the callback: it must live as long as the context
        self._callback = _find_callback(find, self._claims)
        self._context = _context(SSL.TLS_SERVER_METHOD)
        self._context.set_alpn_select_callback(_choose)
        _LIB.SSL_CTX_set_psk_find_session_callback(_bare(self._context), self._callback)

    def connection(self) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return connection

    def identity(self, connection: SSL.Connection) -> bytes:
        """Of the PSK that the client has proven. Raises NotPermitted where it has proven none."""
        identity = self._claims.pop(connection, None)
        if identity is None or not _LIB.SSL_session_reused(connection._ssl):
            raise NotPermitted("no pre-shared key vouches for the other side")
        return identity


class PskClient:
    """The connecting end, under one PSK. suite, groups: for others than our own proxy, in OpenSSL's words."""

    def __init__(self, identity: bytes, psk: Secret, *, suite: bytes = SUITE, groups: bytes = GROUPS) -> None:
        self._callback = _use_callback(identity, psk, suite)
        self._context = _context(SSL.TLS_CLIENT_METHOD, suite, groups)
        _LIB.SSL_CTX_set_psk_use_session_callback(_bare(self._context), self._callback)

    def connection(self, purpose: bytes = b"", sock: socket.socket | None = None) -> SSL.Connection:
        """Over memory where no socket is given. purpose: RELAY or PROBE, or none for others than our own proxy."""
        connection = SSL.Connection(self._context, sock)
        connection.set_connect_state()
        if purpose:
            connection.set_alpn_protos([purpose])
        return connection


def peer_of(connection: SSL.Connection, sae: str) -> TlsPeer:
    """After the handshake. Raises NotPermitted where it was not by PSK, or the group has no ML-KEM."""
    group = connection.get_group_name() or ""
    if not _LIB.SSL_session_reused(connection._ssl) or not is_pqc(group):
        raise NotPermitted(f"keys were agreed with {group or 'no group'}, or without the pre-shared key")
    return TlsPeer(
        identity=Identity("sae", sae),
        fingerprint="",
        group=group,
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        not_after_s=math.inf,
    )


# pyOpenSSL has no public door to external PSKs of TLS 1.3 yet; `cryptography` binds the calls ------------------------

_LIB: Final[Any] = getattr(SSL, "_lib", None)
_FFI: Final[Any] = getattr(SSL, "_ffi", None)


def _bare(context: SSL.Context) -> Any:
    return getattr(context, "_context")  # noqa: B009


def _context(method: int, suite: bytes = SUITE, groups: bytes = GROUPS) -> SSL.Context:
    if not getattr(_LIB, "Cryptography_HAS_PSK_TLSv1_3", 0):
        raise ConfigError("this OpenSSL has no pre-shared keys of TLS 1.3", hint="use a tunnel of kind stunnel")
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_tls13_ciphersuites(suite)
    if _LIB.SSL_CTX_set1_curves_list(_bare(context), groups) != 1:
        raise ConfigError(f"OpenSSL does not know the group {groups.decode()}")
    return context


def _choose(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    return PROBE if PROBE in offered else RELAY if RELAY in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _session(ssl: Any, psk: bytes, suite_name: bytes = SUITE) -> Any:
    """An SSL_SESSION that OpenSSL takes over."""
    session, suite = _LIB.Cryptography_SSL_SESSION_new(), _LIB.SSL_CIPHER_find(ssl, _CODES[suite_name])
    if session == _FFI.NULL or suite == _FFI.NULL:
        raise MemoryError
    _LIB.SSL_SESSION_set1_master_key(session, psk, len(psk))
    _LIB.SSL_SESSION_set_cipher(session, suite)
    _LIB.SSL_SESSION_set_protocol_version(session, _TLS13)
    return session


def _find_callback(find: Find, claims: weakref.WeakKeyDictionary[SSL.Connection, bytes]) -> Any:
    def find_session(ssl: Any, raw: Any, length: int, out: Any) -> int:
        connection = SSL.Connection._reverse_mapping.get(ssl)
        if connection is None:
            return 0
        identity = bytes(_FFI.buffer(raw, length))
        known = find(identity)
        claims.pop(connection, None)
        if known is not None:
            claims[connection] = identity
        # one that we do not know fails as one with a wrong key does: nobody learns which identities there are
        out[0] = _session(ssl, secrets.token_bytes(PSK_BYTES) if known is None else known.reveal())
        return 1

    # a fault in here ends the handshake, as 0 means failure; cffi would print it, with what it held
    kind = "int(SSL *, const unsigned char *, size_t, SSL_SESSION **)"
    return _FFI.callback(kind, find_session, error=0, onerror=lambda *_: None)


def _use_callback(identity: bytes, psk: Secret, suite: bytes) -> Any:
    name = _FFI.new("unsigned char[]", identity)

    def use_session(ssl: Any, _digest: Any, out_name: Any, out_length: Any, out: Any) -> int:
        out_name[0], out_length[0] = name, len(identity)
        out[0] = _session(ssl, psk.reveal(), suite)
        return 1

    kind = "int(SSL *, const EVP_MD *, const unsigned char **, size_t *, SSL_SESSION **)"
    return _FFI.callback(kind, use_session, error=0, onerror=lambda *_: None)
