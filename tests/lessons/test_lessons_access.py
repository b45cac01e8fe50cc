"""Lessons of others about access: forged tokens in parallel, every operation for every caller, equal answers in equal time."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from keystrand.api.admin_routes import ROUTES
from keystrand.api.oidc import OidcVerifier, Provider
from keystrand.core.errors import KeystrandError, NotPermitted
from keystrand.crypto.jose import TokenTerms
from keystrand.testing.crash.world import CrashWorld
from keystrand.testing.world.saes import PAIRS, SITE_OF

ISSUER = "https://idp.example"
RIGHT, WRONG = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
FORGED = 4000
CERTIFICATE = "ab" * 32


def thumbprint() -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(CERTIFICATE)).rstrip(b"=").decode()


def token(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    now_s = time.time()
    claims = {"iss": ISSUER, "aud": "keystrand", "sub": name, "iat": now_s - 1, "exp": now_s + 60, "azp": name}
    claims["cnf"] = {"x5t#S256": thumbprint()}
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "k", "typ": "at+jwt"})


async def provider_says(url: str) -> bytes:
    await asyncio.sleep(0)
    if url.endswith("/openid-configuration"):
        return json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}).encode()
    key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(RIGHT.public_key()))
    return json.dumps({"keys": [{**key, "kid": "k", "alg": "ES256", "use": "sig"}]}).encode()


async def judge() -> OidcVerifier:
    verifier = OidcVerifier(Provider(terms=TokenTerms(issuer=ISSUER, audience="keystrand")), provider_says)
    await verifier.start()
    return verifier


@pytest.mark.proves("R046")
async def test_l06_concurrent_forged_tokens_are_all_refused_among_good_ones() -> None:
    verifier = await judge()
    good, forged = token(RIGHT, "ann"), token(WRONG, "ann")
    head, claims, seal = good.split(".")
    bent = [f"{head}.{claims}.{seal[:-8]}{number:08x}" for number in range(50)]
    mixed = f"{head}.{token(WRONG, 'eve').split('.')[1]}.{seal}"

    async def attempt(text: str) -> bool:
        try:
            return (await verifier.verify(text, CERTIFICATE)).name == "ann"
        except NotPermitted:
            return False

    texts = [(forged, mixed, bent[number % 50], good)[number % 4] for number in range(FORGED)]
    results = await asyncio.gather(*(attempt(text) for text in texts))
    assert [result for text, result in zip(texts, results, strict=True) if text is not good].count(True) == 0
    assert all(result for text, result in zip(texts, results, strict=True) if text is good)


@pytest.mark.proves("R046")
async def test_l06_forged_tokens_from_many_threads_are_all_refused() -> None:
    verifier = await judge()
    good, forged = token(RIGHT, "ann"), token(WRONG, "ann")

    def one(number: int) -> bool:
        try:
            asyncio.run(verifier.verify(good if number % 5 == 0 else forged, CERTIFICATE))
        except NotPermitted:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(one, range(600)))
    assert results == [number % 5 == 0 for number in range(600)]


# every operation, for every caller, about every key -------------------------------------------------------------------


@pytest.fixture
def world() -> Any:
    world = CrashWorld(2)
    world.live(80.0)
    yield world
    world.end()


def attempts(world: CrashWorld) -> list[tuple[str, str, str]]:
    """(caller, other, key ID): every SAE for every SAE and every key that waits."""
    waiting = [k for k, t in world.saes.drawn.items() if (k, t.responder) not in world.judge.delivered]  # type: ignore[attr-defined]
    saes = sorted({*SITE_OF, "nobody"})
    return [(a, b, key_id) for a in saes for b in saes for key_id in waiting[-6:]]


@pytest.mark.proves("R046")
def test_l04_l18_t14_a_key_leaves_for_its_responder_only_whoever_asks_in_whatever_name(world: CrashWorld) -> None:
    cells = allowed = 0
    random.Random(1).shuffle(order := attempts(world))
    for caller, other, key_id in order:
        ticket = world.saes.drawn[key_id]  # type: ignore[attr-defined]
        for site in ("alpha", "bravo"):
            cells += 1
            right = (site, caller, other) == (SITE_OF[ticket.responder], ticket.responder, ticket.initiator)
            if right:
                allowed += 1
                continue  # the one who may; taking it would hide what others can do
            (result,) = world.sites[site].run(
                lambda kme, a=caller, b=other, k=key_id: kme.get_key_with_ids(a, b, (k,))  # type: ignore[misc]
            )
            assert isinstance(result, KeystrandError), f"{caller} for {other} at {site} got {key_id}"
    assert allowed
    assert cells > 100


@pytest.mark.proves("R046")
def test_l04_l07_keys_are_drawn_and_looked_at_only_where_a_rule_joins_the_two(world: CrashWorld) -> None:
    for caller in sorted({*SITE_OF, "nobody"}):
        for other in sorted({*SITE_OF, "nobody"}):
            for site in ("alpha", "bravo"):
                sitting = world.sites[site]
                draws = (caller, other) in PAIRS and SITE_OF[caller] == site
                looks = SITE_OF.get(caller) == site and ((caller, other) in PAIRS or (other, caller) in PAIRS)
                drawn, seen = sitting.run(
                    lambda kme, a=caller, b=other, s=site: kme.get_key(_ticket(world, s, a, b), a, b),  # type: ignore[misc]
                    lambda kme, a=caller, b=other: kme.status(a, b),  # type: ignore[misc]
                )
                assert draws or isinstance(drawn, KeystrandError), (caller, other, site)
                assert looks != isinstance(seen, NotPermitted | KeystrandError), (caller, other, site)


def _ticket(world: CrashWorld, site: str, caller: str, other: str) -> object:
    from keystrand.testing.world.saes import Ticket

    return Ticket(site, world.sites[site].incarnation, caller, other)


@pytest.mark.proves("R046")
def test_l17_t5_the_answer_and_its_time_do_not_tell_a_foreign_key_from_one_that_is_not_there(world: CrashWorld) -> None:
    """Equal words, and about equal processor times (the fastest tenth of a few thousand askings)."""
    drawn = world.saes.drawn  # type: ignore[attr-defined]
    for _ in range(4):
        world.saes._draw("vpn-alpha", "vpn-bravo")
    world.schedule.run_until(world.clock.monotonic_s() + 0.2)
    unfetched = [key_id for key_id, t in drawn.items() if (key_id, t.responder) not in world.judge.delivered]
    foreign = [key_id for key_id in unfetched if drawn[key_id].initiator == "vpn-alpha"][-3:]
    assert foreign
    assert all(world.sites["bravo"].store.copies(key_id) for key_id in foreign)
    caller, other = "files-bravo", "files-alpha"
    absent = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(len(foreign))]
    kme = world.sites["bravo"].kme
    assert kme is not None
    times_s: dict[str, list[float]] = {"foreign": [], "absent": []}
    words: dict[str, set[str]] = {"foreign": set(), "absent": set()}
    with world.sites["bravo"].store.transaction():
        for number in range(3000):
            for kind, key_ids in (("foreign", foreign), ("absent", absent)):
                begun_s = time.thread_time()
                with pytest.raises(KeystrandError) as refusal:
                    kme.get_key_with_ids(caller, other, (key_ids[number % len(key_ids)],))
                times_s[kind].append(time.thread_time() - begun_s)
                words[kind].add(f"{type(refusal.value).__name__}: {refusal.value}")
    one, two = (statistics.quantiles(times_s[kind], n=10)[0] for kind in ("foreign", "absent"))
    assert words["foreign"] == words["absent"]
    assert len(words["foreign"]) == 1
    assert abs(one - two) < 0.3 * max(one, two), f"{one:.2e} s for a foreign key, {two:.2e} s for one that is not there"


def test_l11_no_route_makes_an_audit_sink() -> None:
    """Where the log is copied to is in the configuration file, which no request can write."""
    near = [
        route for route in ROUTES if any(word in route.path for word in ("audit", "sink", "config", "file", "listen"))
    ]
    assert len(near) > 1
    assert {route.method for route in near} == {"GET"}
