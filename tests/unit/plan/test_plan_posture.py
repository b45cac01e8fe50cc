"""Post-quantum posture: supported is not negotiated, empty is not unknown, and signatures are a migration of their own."""

from __future__ import annotations

import pytest

from keystrand.plan.estate import Family, Protocol
from keystrand.plan.fact import Answer
from keystrand.plan.posture import Exchange, coverage, exchange, has_fallback, key_exchange, signature

HYBRID, CLASSICAL = "X25519MLKEM768", "X25519"
YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (None, Exchange.UNKNOWN),
        ((), Exchange.NOTHING),
        ((HYBRID,), Exchange.PQC),
        ((HYBRID, CLASSICAL), Exchange.FALLBACK),
        ((CLASSICAL, "secp256r1", "ffdhe2048"), Exchange.CLASSICAL),
        (("prime256v1", "DH-2048", "modp2048", "P-384", "ECDH-256"), Exchange.CLASSICAL),
        (("diffie-hellman-group14-sha256",), Exchange.CLASSICAL),
        (("sntrup761x25519-sha512@openssh.com", "mlkem768x25519-sha256"), Exchange.PQC),
        (("x25519-ke1_mlkem768",), Exchange.PQC),
        (("rot13",), Exchange.UNKNOWN),
    ],
)
def test_what_a_list_of_groups_amounts_to(groups: tuple[str, ...] | None, expected: Exchange) -> None:
    assert exchange(groups) is expected


@pytest.mark.proves("R068")
@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, UNKNOWN),
        ({"negotiated": (HYBRID,)}, YES),
        ({"negotiated": (CLASSICAL,), "supported": (HYBRID, CLASSICAL)}, NO),
        ({"negotiated": (HYBRID, CLASSICAL)}, NO),
        ({"supported": (HYBRID, CLASSICAL)}, UNKNOWN),
        ({"supported": (HYBRID,)}, YES),
        ({"supported": (CLASSICAL,)}, NO),
        ({"supported": (HYBRID,), "configured": (CLASSICAL,)}, NO),
        ({"supported": ()}, Answer.NOT_APPLICABLE),
        ({"pqc": NO}, NO),
        ({"pqc": Answer.NOT_APPLICABLE}, Answer.NOT_APPLICABLE),
    ],
)
def test_what_is_supported_is_not_what_is_negotiated(facts: dict, expected: Answer) -> None:
    assert key_exchange(Protocol(name=Family.TLS, **facts)) is expected


def test_no_protocol_at_all_protects_nothing() -> None:
    assert key_exchange(Protocol(name=Family.NONE, negotiated=(HYBRID,))) is NO


def test_a_classical_way_around_is_told() -> None:
    assert has_fallback(Protocol(name=Family.TLS, negotiated=(HYBRID,), supported=(HYBRID, CLASSICAL)))
    assert not has_fallback(Protocol(name=Family.TLS, negotiated=(HYBRID,), supported=(HYBRID,)))


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("ML-DSA-65", YES),
        ("id-ml-dsa-65", YES),
        ("SLH-DSA-SHA2-128s", YES),
        ("sha256WithRSAEncryption", NO),
        ("ecdsa-with-SHA384", NO),
        ("ssh-ed25519", NO),
        ("EC 256", NO),
        ("rot13", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_signatures(algorithm: str, expected: Answer) -> None:
    assert signature(algorithm) is expected


@pytest.mark.proves("R069", "R068")
def test_coverage_counts_unknown_ends_against_the_share_and_keeps_the_migrations_apart() -> None:
    ends = [
        Protocol(name=Family.TLS, service="api", negotiated=(HYBRID,), signature="RSA"),
        Protocol(name=Family.TLS, service="browser"),
        Protocol(name=Family.TLS, supported=()),
        Protocol(name=Family.IPSEC, service="vpn", negotiated=("modp2048",), signature="ML-DSA-87"),
    ]
    ipsec, tls = coverage(ends)
    assert (tls.family, tls.ends, tls.share(tls.key_exchange), tls.share(tls.signature)) == ("tls", 3, 0.5, 0.0)
    assert (ipsec.share(ipsec.key_exchange), ipsec.share(ipsec.signature)) == (0.0, 1.0)
    assert [group.family for group in coverage(ends, by_service=True)] == ["api", "browser", "unknown", "vpn"]
    (nothing,) = coverage(ends[2:3])
    assert nothing.share(nothing.key_exchange) is None
