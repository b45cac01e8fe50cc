"""TLS by pre-shared key without sockets: which group is agreed, who is believed to be at the other end."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from keystrand.core.errors import KeystrandError, NotPermitted
from keystrand.core.identity import Identity
from keystrand.net.psk import PskContexts, PskPolicy
from keystrand.net.tls_engine import TlsEngine
from keystrand.testing.clock import VirtualClock

KEY = bytes(range(32))


class Client:
    """A client with a PSK, by the same OpenSSL."""

    def __init__(self, identity: bytes, key: bytes, version: int, groups: bytes) -> None:
        ffi: Any = SSL._ffi
        lib: Any = SSL._lib

        def offer(ssl: Any, hint: Any, out_identity: Any, identity_max: int, out_key: Any, key_max: int) -> int:
            ffi.memmove(out_identity, identity + b"\0", len(identity) + 1)
            ffi.memmove(out_key, key, len(key))
            return len(key)

        signature = "unsigned int(SSL *, char *, char *, unsigned int, unsigned char *, unsigned int)"
        self.callback = ffi.callback(signature, offer)
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.context.set_min_proto_version(version)
        self.context.set_max_proto_version(version)
        self.context.set_cipher_list(b"PSK")
        assert lib.SSL_CTX_set1_curves_list(self.context._context, groups) == 1
        lib.SSL_CTX_set_psk_client_callback(self.context._context, self.callback)
        self.connection = SSL.Connection(self.context, None)
        self.connection.set_connect_state()

    def shake_hands(self, engine: TlsEngine) -> None:
        for _ in range(6):
            with contextlib.suppress(SSL.WantReadError):
                self.connection.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                engine.receive(self.connection.bio_read(65536))
            answer = engine.outgoing()
            if answer:
                self.connection.bio_write(answer)
            if engine.peer is not None:
                return


@pytest.fixture
def contexts(tmp_path: Path) -> PskContexts:
    path = tmp_path / "psk"
    path.write_text(f"router-a:{KEY.hex()}\nrouter-b:{KEY[::-1].hex()}\n")
    path.chmod(0o600)
    return PskContexts(path, saes={"router-a": "enc-a"})


def engine_of(contexts: PskContexts) -> TlsEngine:
    return TlsEngine(contexts.server_connection(), contexts.accepted, handshake_bytes_max=100_000)


@pytest.mark.parametrize(
    ("version", "groups", "cipher", "group"),
    [
        (SSL.TLS1_3_VERSION, b"X25519MLKEM768:X25519", "TLS_CHACHA20_POLY1305_SHA256", "X25519MLKEM768"),
        (SSL.TLS1_3_VERSION, b"X25519:X25519MLKEM768", "TLS_CHACHA20_POLY1305_SHA256", "X25519MLKEM768"),
        (SSL.TLS1_3_VERSION, b"X25519", "TLS_CHACHA20_POLY1305_SHA256", "x25519"),
        (SSL.TLS1_2_VERSION, b"X25519", "DHE-PSK-AES256-GCM-SHA384", ""),
    ],
)
def test_the_strongest_common_group_is_agreed(
    contexts: PskContexts, version: int, groups: bytes, cipher: str, group: str
) -> None:
    engine = engine_of(contexts)
    Client(b"router-a", KEY, version, groups).shake_hands(engine)
    assert engine.peer is not None
    assert (engine.peer.identity, engine.peer.cipher) == (Identity("sae", "enc-a"), cipher)
    assert engine.peer.group == group
    assert engine.peer.is_pqc == (group == "X25519MLKEM768")


def test_interleaved_handshakes_keep_their_identities(contexts: PskContexts) -> None:
    first, second = engine_of(contexts), engine_of(contexts)
    a = Client(b"router-a", KEY, SSL.TLS1_3_VERSION, b"X25519")
    b = Client(b"router-b", KEY[::-1], SSL.TLS1_3_VERSION, b"X25519")
    for client, engine in ((a, first), (b, second), (b, second), (a, first)):
        with contextlib.suppress(SSL.WantReadError):
            client.connection.do_handshake()
        engine.receive(client.connection.bio_read(65536))
        answer = engine.outgoing()
        if answer:
            client.connection.bio_write(answer)
    names = [engine.peer.identity.name for engine in (first, second) if engine.peer]
    assert names == ["enc-a", "router-b"]


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize(
    ("identity", "key"), [(b"router-a", KEY[::-1]), (b"router-x", KEY), (b"", KEY), (b"\xff", KEY)]
)
def test_a_wrong_key_and_an_unknown_identity_are_one_failure(
    contexts: PskContexts, version: int, identity: bytes, key: bytes
) -> None:
    engine = engine_of(contexts)
    with pytest.raises((KeystrandError, SSL.Error)):
        Client(identity, key, version, b"X25519").shake_hands(engine)
    assert engine.peer is None


def test_a_connection_that_proved_nothing_is_nobody(contexts: PskContexts) -> None:
    with pytest.raises(NotPermitted):
        contexts.accepted(contexts.server_connection())


def test_TLS_1_3_only_where_the_operator_says_so(contexts: PskContexts) -> None:
    strict = PskContexts(contexts.path, PskPolicy(minimum="1.3"))
    with pytest.raises((KeystrandError, SSL.Error)):
        Client(b"router-a", KEY, SSL.TLS1_2_VERSION, b"X25519").shake_hands(engine_of(strict))


def test_a_key_withdrawn_during_the_handshake_vouches_for_nobody(contexts: PskContexts) -> None:
    clock = VirtualClock()
    contexts = PskContexts(contexts.path, clock=clock)
    engine = engine_of(contexts)
    client = Client(b"router-a", KEY, SSL.TLS1_3_VERSION, b"X25519")
    with contextlib.suppress(SSL.WantReadError):
        client.connection.do_handshake()
    engine.receive(client.connection.bio_read(65536))
    client.connection.bio_write(engine.outgoing())
    contexts.path.write_text(f"router-b:{KEY.hex()}\n")
    clock.move_to(2.0)
    contexts.refresh()
    client.connection.do_handshake()
    with pytest.raises(NotPermitted):
        engine.receive(client.connection.bio_read(65536))
    assert engine.peer is None
