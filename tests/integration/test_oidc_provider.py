"""Tokens of a real, certified OpenID provider: taken, bound to their certificate, refused after rotation and in other hands."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from oidc_estate import AUDIENCE, IdentityProvider

from keystrand.api.oidc import REFETCH_S, OidcVerifier, Provider
from keystrand.core.errors import ConfigError, NotPermitted, Unavailable
from keystrand.crypto import pki
from keystrand.crypto.jose import TokenTerms
from keystrand.net.https import fetch

CLIENTS = {"ann": (["officers"], True), "loose": (["auditors"], False)}


class Ahead:
    """The system's clock, moved ahead."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def now_s(self) -> float:
        import time

        return time.time() + self.by_s

    def monotonic_s(self) -> float:
        import time

        return time.monotonic() + self.by_s


@pytest.fixture
def idp(tmp_path: Path) -> Iterator[IdentityProvider]:
    provider = IdentityProvider(tmp_path / "idp", dict(CLIENTS))
    for name in ("ann", "eve"):
        pki.issue(provider.folder, kind="admin", name=name)
    try:
        yield provider
    finally:
        provider.stop()


def fingerprint(idp: IdentityProvider, name: str) -> str:
    from cryptography.hazmat.primitives import hashes

    return pki.load_certificate(idp.folder / f"admin-{name}.pem").fingerprint(hashes.SHA256()).hex()


def files(idp: IdentityProvider, name: str) -> tuple[Path, Path]:
    return idp.folder / f"admin-{name}.pem", idp.folder / f"admin-{name}.key"


def verifier(idp: IdentityProvider, *, clock: Ahead | None = None, bound: bool = True, **terms: object) -> OidcVerifier:
    wanted = TokenTerms(issuer=idp.issuer, audience=AUDIENCE, **terms)  # type: ignore[arg-type]
    return OidcVerifier(
        Provider(terms=wanted, bound=bound), lambda url: fetch(url, idp.trust, timeout_s=3), clock or Ahead()
    )


@pytest.mark.proves("R046")
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_tokens_of_each_algorithm_are_taken_over_their_own_certificate_only(
    idp: IdentityProvider, algorithm: str
) -> None:
    idp.algorithm = algorithm
    idp.start()
    judge = verifier(idp, parties=frozenset({"ann"}))
    await judge.start()
    token = await asyncio.to_thread(idp.token, "ann", *files(idp, "ann"))
    claims = await judge.verify(token, fingerprint(idp, "ann"))
    assert (claims.name, claims.groups) == ("ann", frozenset({"officers"}))
    with pytest.raises(NotPermitted, match="bound"):  # L14: another certificate, just as valid
        await judge.verify(token, fingerprint(idp, "eve"))
    for place in (0, 1, 2):
        parts = token.split(".")
        raw = bytearray(base64.urlsafe_b64decode(parts[place] + "=="))
        raw[len(raw) // 2] ^= 1
        parts[place] = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        with pytest.raises(NotPermitted):
            await judge.verify(".".join(parts), fingerprint(idp, "ann"))


async def test_L14_a_token_without_a_certificate_stays_with_the_first_one(idp: IdentityProvider) -> None:
    idp.start()
    judge, strict = verifier(idp, bound=False), verifier(idp)
    await judge.start()
    await strict.start()
    token = await asyncio.to_thread(idp.token, "loose", *files(idp, "ann"))
    with pytest.raises(NotPermitted, match="bound"):
        await strict.verify(token, fingerprint(idp, "ann"))
    assert (await judge.verify(token, fingerprint(idp, "ann"))).groups == {"auditors"}
    with pytest.raises(NotPermitted, match="first"):
        await judge.verify(token, fingerprint(idp, "eve"))
    assert (await judge.verify(token, fingerprint(idp, "ann"))).name == "loose"


async def test_what_is_not_for_us_or_not_in_time_is_refused(idp: IdentityProvider) -> None:
    idp.start()
    token = await asyncio.to_thread(idp.token, "ann", *files(idp, "ann"))
    own, clock = fingerprint(idp, "ann"), Ahead()
    for terms in ({"parties": frozenset({"other"})}, {"lifetime_s_max": 60.0}, {"algorithms": ("ES256", "RS256")}):
        judge = verifier(idp, clock=clock, **terms)
        await judge.start()
        if "algorithms" in terms:
            await judge.verify(token, own)
        else:
            with pytest.raises(NotPermitted):
                await judge.verify(token, own)
    judge = verifier(idp, clock=clock)
    await judge.start()
    for by_s, good in ((-29.0, True), (-40.0, False), (600.0, True), (640.0, False)):
        clock.by_s = by_s
        if good:
            await judge.verify(token, own)
        else:
            with pytest.raises(NotPermitted, match=r"expired|not valid yet"):
                await judge.verify(token, own)


async def test_keys_rotate_and_a_provider_that_is_gone_lets_nobody_in_for_long(idp: IdentityProvider) -> None:
    idp.start()
    clock, own = Ahead(), fingerprint(idp, "ann")
    judge = verifier(idp, clock=clock)
    await judge.start()
    old = await asyncio.to_thread(idp.token, "ann", *files(idp, "ann"))
    await judge.verify(old, own)
    idp.stop()
    idp.kid, idp.algorithm = "second", "ES256"
    idp.start()
    new = await asyncio.to_thread(idp.token, "ann", *files(idp, "ann"))
    with pytest.raises(NotPermitted, match="does not have"):
        await judge.verify(new, own)  # asked a moment ago: not again yet
    clock.by_s += REFETCH_S + 1
    assert (await judge.verify(new, own)).name == "ann"
    with pytest.raises(NotPermitted, match="does not have"):
        await judge.verify(old, own)
    idp.stop()
    clock.by_s = 500.0
    await judge.verify(new, own)
    clock.by_s = 5000.0
    with pytest.raises(Unavailable, match="cannot be asked"):
        await judge.verify(new, own)


async def test_L5_a_provider_that_cannot_be_asked_keeps_the_door_shut(idp: IdentityProvider, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        await verifier(idp).start()  # nobody listens
    idp.start()
    pki.create_ca(tmp_path / "other", "other")
    wanted = Provider(terms=TokenTerms(issuer=idp.issuer, audience=AUDIENCE))
    stranger = OidcVerifier(wanted, lambda url: fetch(url, tmp_path / "other" / "ca.pem", timeout_s=3), Ahead())
    with pytest.raises(ConfigError, match="certificate verify failed"):
        await stranger.start()
    other = Provider(terms=TokenTerms(issuer=idp.issuer + "/realm", audience=AUDIENCE))
    with pytest.raises(ConfigError):
        await OidcVerifier(other, lambda url: fetch(url, idp.trust, timeout_s=3), Ahead()).start()


async def test_L9_keys_are_fetched_from_the_issuer_itself_only(idp: IdentityProvider) -> None:
    asked = []

    async def lying(url: str) -> bytes:
        asked.append(url)
        return json.dumps({"issuer": idp.issuer, "jwks_uri": "https://169.254.169.254/latest"}).encode()

    wanted = Provider(terms=TokenTerms(issuer=idp.issuer, audience=AUDIENCE))
    with pytest.raises(ConfigError, match="another place"):
        await OidcVerifier(wanted, lying, Ahead()).start()
    assert len(asked) == 1
