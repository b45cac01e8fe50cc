"""The TLS engine without sockets: who is let in, who is not, and what hostile bytes do (nothing)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import ConfigError, KeystrandError, NotPermitted, PeerFault
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.net.tls_engine import Records, TlsEngine

HANDSHAKE_BYTES_MAX = 65_536


def ends(client, server, *, expect=("kme", "kme-a")):
    host = "127.0.0.1"
    dialling = TlsEngine(
        client.client_connection(host),
        lambda connection: client.connected(connection, host, expect),
        handshake_bytes_max=HANDSHAKE_BYTES_MAX,
    )
    accepting = TlsEngine(server.server_connection(), server.accepted, handshake_bytes_max=HANDSHAKE_BYTES_MAX)
    dialling.start()
    return dialling, accepting


def pump(dialling, accepting):
    """Carry bytes both ways until none are left; returns what each end failed with."""
    failed = [None, None]
    for _ in range(6):
        for turn, (giving, taking) in enumerate(((dialling, accepting), (accepting, dialling))):
            wire = giving.outgoing()
            if wire and taking.failure is None:
                try:
                    taking.receive(wire)
                except KeystrandError as problem:
                    failed[1 - turn] = problem
    return tuple(failed)


def open_pair(estate, client="sae-sae-1", **policy):
    pair = ends(estate.contexts(client, **policy), estate.contexts("kme-kme-a"))
    assert pump(*pair) == (None, None)
    return pair


@pytest.mark.proves("R068")
def test_both_ends_know_each_other_and_the_hybrid_group(estate):
    dialling, accepting = open_pair(estate)
    assert str(dialling.peer.identity) == "kme kme-a"
    assert str(accepting.peer.identity) == "sae sae-1"
    for peer in (dialling.peer, accepting.peer):
        assert (peer.group, peer.version, peer.is_pqc) == ("X25519MLKEM768", "TLSv1.3", True)
    assert len(accepting.peer.fingerprint) == 64


@pytest.mark.proves("R068")
def test_ml_dsa_certificates_work_end_to_end(tmp_path):
    from keystrand.crypto import pki

    pki.create_ca(tmp_path, "pq", algorithm="ml-dsa-65")
    contexts = {}
    for kind, name in (("kme", "kme-a"), ("sae", "s1")):
        paths = pki.issue(tmp_path, kind=kind, name=name, hosts=("127.0.0.1",), algorithm="ml-dsa-65")
        contexts[kind] = TlsContexts(TlsFiles(*paths, tmp_path / "ca.pem", tmp_path / "ca.crl"))
    dialling, accepting = ends(contexts["sae"], contexts["kme"])
    assert pump(dialling, accepting) == (None, None)
    assert accepting.peer.identity.name == "s1"


@pytest.mark.parametrize(
    ("holder", "reason"),
    [("sae-gone", "revoked"), ("sae-late", "expired"), ("stranger", "not trusted")],
)
def test_certificate_that_will_not_do_is_refused_with_the_reason_and_the_client_hears_of_it(estate, holder, reason):
    by = estate.other if holder == "stranger" else estate.home
    client = estate.contexts("sae-sae-1" if holder == "stranger" else holder, by=by)
    dialling, accepting = ends(client, estate.contexts("kme-kme-a"))
    heard, said = pump(dialling, accepting)
    assert isinstance(said, NotPermitted)
    assert reason in str(said)
    assert isinstance(heard, NotPermitted)
    assert accepting.peer is None


def test_server_of_a_stranger_is_refused_by_the_client(estate):
    server = TlsContexts(estate.files("sae-sae-1", by=estate.other))
    heard, _ = pump(*ends(estate.contexts("sae-sae-1"), server))
    assert isinstance(heard, NotPermitted)
    assert "not trusted" in str(heard)


def test_server_that_is_certified_for_another_host_is_refused(estate):
    server = estate.contexts("kme-kme-a")
    client = estate.contexts("sae-sae-1")
    dialling = TlsEngine(
        client.client_connection("kme.example"),
        lambda connection: client.connected(connection, "kme.example", ("kme", "kme-a")),
        handshake_bytes_max=HANDSHAKE_BYTES_MAX,
    )
    accepting = TlsEngine(server.server_connection(), server.accepted, handshake_bytes_max=HANDSHAKE_BYTES_MAX)
    dialling.start()
    heard, _ = pump(dialling, accepting)
    assert isinstance(heard, NotPermitted)
    assert "not for kme.example" in str(heard)


def test_classical_client_is_refused_where_policy_requires_pqc_and_let_in_elsewhere(estate):
    classical = {"require_pqc_group": False, "groups": ("X25519",)}
    dialling, accepting = ends(estate.contexts("sae-sae-1", **classical), estate.contexts("kme-kme-a"))
    _, said = pump(dialling, accepting)
    assert said is not None
    assert accepting.peer is None
    lenient = estate.contexts("kme-kme-a", require_pqc_group=False)
    dialling, accepting = ends(estate.contexts("sae-sae-1", **classical), lenient)
    assert pump(dialling, accepting) == (None, None)
    assert (accepting.peer.group, accepting.peer.is_pqc) == ("X25519", False)


def test_group_is_checked_after_the_handshake_even_if_it_could_not_be_pinned(estate, monkeypatch):
    monkeypatch.setattr("keystrand.net.tls._pin_groups", lambda context, policy: None)
    unpinned = estate.contexts("kme-kme-a")
    monkeypatch.undo()
    client = estate.contexts("sae-sae-1", require_pqc_group=False, groups=("P-256",))
    _, said = pump(*ends(client, unpinned))
    assert isinstance(said, NotPermitted)
    assert "requires ML-KEM" in str(said)


def test_hybrid_wins_over_a_classical_key_share_that_came_first(estate):
    eager = estate.contexts("sae-sae-1", require_pqc_group=False, groups=("X25519", "X25519MLKEM768"))
    server = estate.contexts("kme-kme-a", require_pqc_group=False)
    _, accepting = pair = ends(eager, server)
    assert pump(*pair) == (None, None)
    assert accepting.peer.is_pqc


@pytest.mark.parametrize(
    "policy", [{"minimum": "1.2"}, {"groups": ("X25519",)}], ids=["TLS 1.2 has no ML-KEM", "no ML-KEM group"]
)
def test_contradicting_policy_does_not_load(policy):
    with pytest.raises(ConfigError):
        TlsPolicy(**policy)


def test_unknown_group_does_not_load(estate):
    with pytest.raises(ConfigError):
        estate.contexts("kme-kme-a", require_pqc_group=False, groups=("X25519", "NOSUCH"))


def test_close_notify_is_told_from_a_cut(estate):
    dialling, accepting = open_pair(estate)
    dialling.send(b"last words")
    dialling.close()
    assert accepting.receive(dialling.outgoing()) == b"last words"
    assert accepting.finished


def test_long_handshake_is_ended(estate):
    accepting = TlsEngine(
        estate.contexts("kme-kme-a").server_connection(), lambda connection: None, handshake_bytes_max=2000
    )
    hello = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb"  # a record and a ClientHello that promise 16 KiB
    accepting.receive(hello)
    accepting.receive(bytes(1900))
    with pytest.raises(PeerFault, match="longer than allowed"):
        accepting.receive(bytes(200))
    with pytest.raises(PeerFault, match="longer than allowed"):
        accepting.receive(b"")


@given(st.lists(st.binary(min_size=1, max_size=600), max_size=6))
@settings(max_examples=150, deadline=None)
def test_random_bytes_before_the_handshake_never_pass(estate, chunks):
    server = FUZZED.setdefault("server", estate.contexts("kme-kme-a"))
    engine = TlsEngine(server.server_connection(), server.accepted, handshake_bytes_max=HANDSHAKE_BYTES_MAX)
    try:
        passed = b"".join(map(engine.receive, chunks))
    except (PeerFault, NotPermitted):
        passed = b""
    assert passed == b""
    assert engine.peer is None
    assert len(engine.outgoing()) < 100  # an alert at most: no amplification


FUZZED: dict = {}


@given(st.integers(0, 5000), st.integers(1, 255), st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_flipped_byte_anywhere_in_the_conversation_lets_nothing_wrong_through(estate, at, flip, flight):
    server = FUZZED.setdefault("server", estate.contexts("kme-kme-a"))
    client = FUZZED.setdefault("client", estate.contexts("sae-sae-1"))
    dialling, accepting = ends(client, server)
    try:
        for turn in range(2):
            accepting.receive(flipped(dialling.outgoing(), at, flip, turn == flight))
            dialling.receive(accepting.outgoing())
        if dialling.peer is None:
            return
        dialling.send(b"secret")
        got = accepting.receive(flipped(dialling.outgoing(), at, flip, flight == 2))
    except (PeerFault, NotPermitted):
        return
    assert got in (b"", b"secret")


def flipped(wire, at, flip, now):
    if not now or not wire:
        return wire
    at %= len(wire)
    return wire[:at] + bytes([wire[at] ^ flip]) + wire[at + 1 :]


@given(st.lists(st.integers(0, 400), min_size=1, max_size=6), st.lists(st.integers(1, 300), max_size=8))
def test_a_chunk_is_one_record_only_from_its_first_byte_to_its_last(lengths, cuts):
    records = [b"\x17\x03\x03" + length.to_bytes(2, "big") + bytes(length) for length in lengths]
    stream, ends = b"".join(records), {0}
    for record in records:
        ends.add(max(ends) + len(record))
    watch, at = Records(), 0
    for size in [*cuts, len(stream)]:
        chunk = stream[at : at + size]
        if chunk:
            borders = sorted(end for end in ends if at <= end <= at + len(chunk))
            assert watch.is_one(chunk) == (borders == [at, at + len(chunk)])
        at += len(chunk)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=40_000), min_size=1, max_size=5), st.integers(1, 70_000))
def test_what_was_sent_arrives_however_the_wire_cuts_it(estate, messages, cut):
    dialling, accepting = open_pair(estate)
    for message in messages:
        dialling.send(message)
    wire = dialling.outgoing()
    got = b"".join(accepting.receive(wire[at : at + cut]) for at in range(0, len(wire), cut))
    assert got == b"".join(messages)
