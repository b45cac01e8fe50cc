"""Access tokens of an OpenID provider: JWS in compact form (RFC 7515) with the claims of RFC 9068. No I/O.

The algorithm follows from the key, never from the token; what a header says of keys and where to find them is not looked
at. Signatures are PyJWT's work; every claim is checked here, against our own clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from keystrand.core.errors import BadRequest, NotPermitted

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
RSA_BITS_MIN: Final = 2048
KEYS_MAX: Final = 64
TYPES: Final = frozenset({"at+jwt", "application/at+jwt", "jwt"})
_BY_CURVE: Final = {("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_JWS: Final = jwt.PyJWS(algorithms=list(ALGORITHMS))


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key of the provider and the one algorithm that it may sign with."""

    algorithm: str
    key: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTerms:
    """What a token must say. parties: clients that it may have been issued to (azp, client_id); empty: any of the issuer's.

    leeway_s: how far the provider's clock may be off; lifetime_s_max: longer-lived tokens are refused.
    """

    issuer: str
    audience: str
    parties: frozenset[str] = frozenset()
    algorithms: tuple[str, ...] = ALGORITHMS
    leeway_s: float = 30.0
    lifetime_s_max: float = 3600.0


def read_keys(body: bytes, algorithms: tuple[str, ...] = ALGORITHMS) -> dict[str, TokenKey]:
    """Signing keys of a JWK set (RFC 7517) by their ID; keys for anything else are left out. Raises BadRequest."""
    try:
        listed = json.loads(body)["keys"]
        if not isinstance(listed, list) or len(listed) > KEYS_MAX:
            raise ValueError
        found = [(entry["kid"], key) for entry in listed if (key := _key(entry)) and key.algorithm in algorithms]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadRequest("not a JWK set") from None
    if len({kid for kid, _ in found}) != len(found) or not all(isinstance(kid, str) for kid, _ in found):
        raise BadRequest("the JWK set gives one key ID to several keys")
    return dict(found)


def _key(entry: Mapping[str, Any]) -> TokenKey | None:
    kind = (entry.get("kty"), entry.get("crv"))
    algorithm = "RS256" if kind[0] == "RSA" else _BY_CURVE.get(kind)  # type: ignore[arg-type]
    fits = entry.get("use", "sig") == "sig" and entry.get("alg", algorithm) == algorithm
    if algorithm is None or not fits or "kid" not in entry:
        return None
    try:
        key = jwt.PyJWK({name: value for name, value in entry.items() if name != "d"}, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        return None
    return TokenKey(algorithm, key)


def key_id_of(token: str) -> str:
    """The key that the token claims to be signed with. Raises NotPermitted."""
    header = _part(token, 0)
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= 256:
        raise NotPermitted("the token names no key")
    return kid


def verify(token: str, key: TokenKey, terms: TokenTerms, now_s: float) -> dict[str, Any]:
    """The claims of a token that is genuine, for us, and in time. Raises NotPermitted."""
    header = _part(token, 0)
    if header.get("alg") != key.algorithm or key.algorithm not in terms.algorithms:
        raise NotPermitted("the token is signed with another algorithm than its key is for")
    if "crit" in header or "b64" in header or str(header.get("typ", "")).lower() not in TYPES:
        raise NotPermitted("the token's header is not that of an access token")
    try:
        _JWS.decode(token, key.key, algorithms=[key.algorithm])
    except jwt.PyJWTError:
        raise NotPermitted("the token's signature does not verify") from None
    claims = _part(token, 1)
    _check_parties(claims, terms)
    _check_times(claims, terms, now_s)
    return claims


def _check_parties(claims: Mapping[str, Any], terms: TokenTerms) -> None:
    if claims.get("iss") != terms.issuer:
        raise NotPermitted("the token is of another issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if terms.audience not in audiences or not all(isinstance(one, str) for one in audiences):
        raise NotPermitted("the token is for another audience")
    if "nonce" in claims or "at_hash" in claims:
        raise NotPermitted("this is an ID token, not an access token")
    parties = {claims[name] for name in ("azp", "client_id") if isinstance(claims.get(name), str)}
    if len(audiences) > 1 and not parties:
        raise NotPermitted("the token has several audiences and no authorized party")
    if terms.parties and (not parties or not parties <= terms.parties):
        raise NotPermitted("the token was issued to another client")


def _check_times(claims: Mapping[str, Any], terms: TokenTerms, now_s: float) -> None:
    expires_s, issued_s = _time(claims, "exp"), _time(claims, "iat")
    if expires_s <= now_s - terms.leeway_s:
        raise NotPermitted("the token has expired")
    if max(issued_s, _time(claims, "nbf", issued_s)) > now_s + terms.leeway_s:
        raise NotPermitted("the token is not valid yet")
    if expires_s - issued_s > terms.lifetime_s_max:
        raise NotPermitted(f"the token lives longer than {terms.lifetime_s_max:g} s")


def _time(claims: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise NotPermitted(f"the token's {name} is no time")
    return float(value)


def _part(token: str, place: int) -> dict[str, Any]:
    """Header or claims. Raises NotPermitted for anything that two readers could read differently."""
    pieces = token.split(".")
    if len(pieces) != 3 or not all(pieces):
        raise NotPermitted("not a signed token")
    try:
        raw = jwt.utils.base64url_decode(pieces[place])
        if jwt.utils.base64url_encode(raw).decode() != pieces[place]:
            raise ValueError
        value = json.loads(raw, object_pairs_hook=_members, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise NotPermitted("not a signed token") from None
    if not isinstance(value, dict):
        raise NotPermitted("not a signed token")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a member is given twice")
    return dict(pairs)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
