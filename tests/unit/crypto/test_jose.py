"""Forged, mixed and stale tokens against the verifier: none is taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, NotPermitted
from keystrand.crypto.jose import TokenTerms, key_id_of, read_keys, verify

NOW_S = 1_800_000_000.0
TERMS = TokenTerms(issuer="https://idp", audience="us", parties=frozenset({"cli"}))
CLAIMS: dict[str, Any] = {
    "iss": "https://idp",
    "aud": "us",
    "exp": NOW_S + 60,
    "iat": NOW_S - 5,
    "sub": "ann",
    "azp": "cli",
}
PRIVATE = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
MAKERS = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}
JWKS = {
    "keys": [
        {**json.loads(MAKERS[name].to_jwk(key.public_key())), "kid": name, "alg": name, "use": "sig"}
        for name, key in PRIVATE.items()
    ]
}
KEYS = read_keys(json.dumps(JWKS).encode())


def token(name: str = "ES256", header: dict[str, Any] | None = None, **claims: Any) -> str:
    said = {k: v for k, v in (CLAIMS | claims).items() if v is not None}
    return jwt.encode(said, PRIVATE[name], algorithm=name, headers={"kid": name, "typ": "at+jwt"} | (header or {}))


def judge(text: str, terms: TokenTerms = TERMS, now_s: float = NOW_S) -> dict[str, Any]:
    return verify(text, KEYS[key_id_of(text)], terms, now_s)


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def assembled(header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes, signature: bytes) -> str:
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    return ".".join(_b64(part) for part in (*parts, signature))


@pytest.mark.proves("R046")
@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_a_right_token_is_taken(name: str) -> None:
    assert judge(token(name))["sub"] == "ann"


@pytest.mark.proves("R046")
@pytest.mark.parametrize("name", sorted(PRIVATE))
@pytest.mark.parametrize("claimed", ["none", "None", "NONE", "", "HS256", "RS256", "ES256", "EdDSA", "PS256", "RS1"])
def test_the_algorithm_follows_from_the_key_and_never_from_the_token(name: str, claimed: str) -> None:
    """`none`, HS256 keyed with the public key, and every other mix."""
    if claimed == name:
        return
    signed = ".".join(_b64(json.dumps(p).encode()) for p in ({"alg": claimed, "kid": name, "typ": "at+jwt"}, CLAIMS))
    public = PRIVATE[name].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for signature in (b"", b"\0", hmac.digest(pem, signed.encode(), hashlib.sha256)):
        with pytest.raises(NotPermitted):
            judge(f"{signed}.{_b64(signature)}")


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_where_a_header_says_that_keys_are_is_not_looked_at(name: str) -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    planted = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(own.public_key()))
    value: Any = {"jku": "https://evil/keys", "x5u": "https://evil/c", "jwk": planted, "x5c": ["MII"]}[name]
    forged = jwt.encode(CLAIMS, own, algorithm="ES256", headers={"kid": "ES256", "typ": "at+jwt", name: value})
    with pytest.raises(NotPermitted, match="signature"):
        judge(forged)
    assert judge(token(header={name: value}))["sub"] == "ann"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://idp/"}, {"iss": "https://IDP"}, {"iss": None},
        {"aud": "them"}, {"aud": None}, {"aud": []}, {"aud": ["us", 1]}, {"aud": "us "}, {"aud": ["us", "them"], "azp": None},
        {"azp": "other"}, {"azp": None}, {"client_id": "other"},
        {"exp": NOW_S - 31}, {"exp": None}, {"exp": "1900000000"}, {"exp": True}, {"exp": -1}, {"exp": 1e300},
        {"iat": None}, {"iat": NOW_S + 31}, {"nbf": NOW_S + 31}, {"nbf": "x"}, {"exp": NOW_S + 3600},
        {"nonce": "n"}, {"at_hash": "h"},
    ],
)  # fmt: skip
def test_what_a_token_says_must_fit(claims: dict[str, Any]) -> None:
    with pytest.raises(NotPermitted):
        judge(token(**claims))


@pytest.mark.parametrize(
    "header", [{"typ": "dpop+jwt"}, {"typ": "logout+jwt"}, {"typ": None}, {"crit": ["exp"]}, {"b64": False}]
)
def test_what_a_header_says_must_fit(header: dict[str, Any]) -> None:
    with pytest.raises((NotPermitted, jwt.InvalidTokenError, TypeError)):
        judge(token(header=header))


def test_several_audiences_need_a_party_even_where_every_party_is_welcome() -> None:
    anybody = TokenTerms(issuer="https://idp", audience="us")
    assert judge(token(aud=["us", "them"]), anybody)
    with pytest.raises(NotPermitted, match="several audiences"):
        judge(token(aud=["us", "them"], azp=None), anybody)


def test_clocks_may_differ_a_little() -> None:
    assert judge(token(exp=NOW_S - 29))
    with pytest.raises(NotPermitted, match="expired"):
        judge(token(exp=NOW_S - 30))
    assert judge(token(iat=NOW_S + 29, nbf=NOW_S + 29))


def test_two_readings_of_one_token_are_refused() -> None:
    head = b'{"alg":"ES256","kid":"ES256","typ":"at+jwt"}'
    said = json.dumps(CLAIMS).encode()
    key = PRIVATE["ES256"]
    for header, claims in (
        (head, said[:-1] + b',"sub":"root"}'),
        (b'{"alg":"none",' + head[1:], said),
        (head, b"[]"),
        (head, said.replace(b'"iat"', b'"x":NaN,"iat"')),
    ):
        signing = f"{_b64(header)}.{_b64(claims)}".encode()
        signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(signing, key)
        with pytest.raises(NotPermitted):
            judge(assembled(header, claims, signature))
    whole = token()
    for odd in (
        whole + "=",
        whole + ".",
        "." + whole,
        whole.replace(".", "..", 1),
        "",
        "a.b",
        "a.b.c",
        whole.split(".")[0],
    ):
        with pytest.raises(NotPermitted):
            judge(odd)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(PRIVATE)), st.integers(0), st.integers(1, 255))
def test_any_changed_byte_is_refused(name: str, place: int, flip: int) -> None:
    parts = [bytearray(base64.urlsafe_b64decode(part + "==")) for part in token(name).split(".")]
    index = place % sum(map(len, parts))
    for part in parts:
        if index < len(part):
            part[index] ^= flip
            break
        index -= len(part)
    with pytest.raises((NotPermitted, KeyError)):
        judge(".".join(_b64(bytes(part)) for part in parts))


def test_only_keys_that_may_sign_are_read() -> None:
    small = rsa.generate_private_key(65537, 1024)
    entries = [
        {**json.loads(MAKERS["RS256"].to_jwk(small.public_key())), "kid": "small"},
        {**JWKS["keys"][0], "kid": "enc", "use": "enc"},
        {**JWKS["keys"][1], "kid": "other", "alg": "ES384"},
        {"kty": "oct", "kid": "shared", "k": "AAAA", "alg": "HS256"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "point"},
        {name: value for name, value in JWKS["keys"][2].items() if name != "kid"},
    ]
    assert read_keys(json.dumps({"keys": entries}).encode()) == {}
    assert set(KEYS) == {"RS256", "ES256", "EdDSA"}
    assert set(read_keys(json.dumps(JWKS).encode(), ("EdDSA",))) == {"EdDSA"}
    for bad in (b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[1]}', json.dumps({"keys": JWKS["keys"] * 2}).encode()):
        with pytest.raises(BadRequest):
            read_keys(bad)
