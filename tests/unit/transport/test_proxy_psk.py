"""Imported PSKs and TLS 1.3 under them, without a network."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from keystrand.core.errors import BadRequest, NotPermitted
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.testing.tunnels import place_of
from keystrand.transport.tls.connector import psk_of
from keystrand.transport.tls.importer import HKDF_SHA256, ImportedIdentity, expand_label, import_psk, read_identity
from keystrand.transport.tls.psk import PROBE, RELAY, PskClient, PskServer, peer_of
from keystrand.transport.tunnel.contract import Generation

KEY = Secret(bytes(range(48)))
IDENTITY = ImportedIdentity(external=b"key", context=b"a to b")


def shake(server: PskServer, client: PskClient, purpose: bytes = RELAY) -> tuple[SSL.Connection, SSL.Connection]:
    there, here = server.connection(), client.connection(purpose)
    for _ in range(4):
        for one, two in ((here, there), (there, here)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                two.bio_write(one.bio_read(1 << 16))
    return there, here


def test_expand_label_as_in_the_published_trace_of_tls13() -> None:
    """RFC 8448, 3: early secret -> "derived" """
    early = bytes.fromhex("33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a")
    nothing = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    derived = "6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba"
    assert expand_label(early, b"derived", nothing, 32, SHA256()).hex() == derived


def test_an_imported_psk_depends_on_every_part_of_its_identity() -> None:
    parts = [
        IDENTITY,
        replace(IDENTITY, external=b"kez"),
        replace(IDENTITY, context=b"b to a"),
        replace(IDENTITY, protocol=0x0305),
        replace(IDENTITY, external=b"keya", context=b" to b"),
    ]
    made = {import_psk(KEY, part).reveal() for part in parts}
    assert len(made) == len(parts)
    assert {len(psk) for psk in made} == {48}
    assert len(import_psk(KEY, replace(IDENTITY, kdf=HKDF_SHA256))) == 32


@given(st.binary(min_size=1, max_size=80), st.binary(max_size=80), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_identities_are_read_as_they_were_written(external: bytes, context: bytes, protocol: int, kdf: int) -> None:
    identity = ImportedIdentity(external=external, context=context, protocol=protocol, kdf=kdf)
    assert read_identity(identity.encode()) == identity


@given(st.binary(max_size=40))
def test_other_bytes_are_no_identity_or_one_that_is_written_so(raw: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert read_identity(raw).encode() == raw


def test_an_identity_needs_a_name() -> None:
    with pytest.raises(BadRequest):
        replace(IDENTITY, external=b"").encode()


def test_both_ends_derive_the_same_and_it_is_not_the_key(tmp_path) -> None:  # type: ignore[no-untyped-def]
    given_ = Generation(number=1, key_id="key-1", material=Secret(os.urandom(32)), protection=Protection.HYBRID)
    made = [psk_of(given_, place_of(tmp_path, role)) for role in ("initiator", "responder")]
    assert made[0][0] == made[1][0]
    assert made[0][1].matches(made[1][1])
    assert given_.material.reveal() not in made[0][1].reveal()
    assert read_identity(made[0][0]).external == b"key-1"
    assert b"sae" not in made[0][0], "who speaks to whom is not told in clear"


@pytest.mark.proves("R082")
@pytest.mark.parametrize("purpose", [RELAY, PROBE])
def test_handshakes_are_by_psk_with_an_ml_kem_group(purpose: bytes) -> None:
    server = PskServer({b"one": Secret(bytes(48)), b"two": KEY}.get)
    there, here = shake(server, PskClient(b"two", KEY), purpose)
    assert server.identity(there) == b"two"
    assert there.get_alpn_proto_negotiated() == purpose
    for end in (there, here):
        peer = peer_of(end, "x")
        assert (peer.version, peer.group, peer.cipher) == ("TLSv1.3", "X25519MLKEM768", "TLS_AES_256_GCM_SHA384")


def test_a_wrong_key_and_an_unknown_identity_fail_alike() -> None:
    said = []
    for client in (PskClient(b"two", Secret(os.urandom(48))), PskClient(b"nobody", KEY)):
        with pytest.raises(SSL.Error) as failed:
            shake(PskServer({b"two": KEY}.get), client)
        said.append(failed.value.args)
    assert said[0] == said[1]


def test_without_a_handshake_nobody_vouches_for_anybody() -> None:
    server = PskServer({b"two": KEY}.get)
    with pytest.raises(NotPermitted):
        server.identity(server.connection())
    with pytest.raises(NotPermitted):
        peer_of(PskClient(b"two", KEY).connection(RELAY), "x")
