"""Tokens of a real OpenID provider at a real site, over TLS; and forged ones in a crowd."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest
from oidc_estate import AUDIENCE, IdentityProvider
from test_admin_site import Admin, found
from test_site_pair import running

from keystrand.api.oidc import OidcVerifier, Provider
from keystrand.config.load import load_site
from keystrand.core.errors import ConfigError, NotPermitted
from keystrand.crypto import pki
from keystrand.crypto.jose import TokenTerms
from keystrand.net.https import fetch
from keystrand.node.site import SiteNode
from keystrand.observe.audit_verify import rows_of

OIDC = """
[admin.oidc]
issuer = "{issuer}"
audience = "{audience}"
trust = "{trust}"
clients = ["carl", "dora", "u4711"]
[[admin.grants]]
role = "auditor"
groups = ["auditors"]
tenants = ["*"]
saes = ["*"]
[[admin.grants]]
role = "security-officer"
groups = ["officers"]
tenants = ["*"]
saes = ["*"]
"""


async def started(file: Path) -> None:
    node = SiteNode(load_site(file))
    task = asyncio.create_task(node.engine.run())
    try:
        await node.start()
    finally:
        await node._close()
        task.cancel()
        node.store.close()


async def approves_alone(ann: Admin, token: str) -> None:
    """T14: she wishes by her certificate, and approves over it by a token that calls her by another name."""
    status, asked, _ = await ann.call("POST", "/lifecycle/compromise", {"sae": "gateway-bravo", "reason": "T14"})
    assert status == 202
    path = f"/approvals/{asked['proposal_id']}"
    assert (await ann.call("GET", path, Authorization=token))[1]["requester"] == "ann"
    status, said, _ = await ann.call("POST", f"{path}/approve", {"reason": "T14"}, Authorization=token)
    assert (status, said["message"]) == (403, "nobody approves what they proposed")


@pytest.mark.proves("R046", "R057")
async def test_people_with_tokens_are_whom_the_token_names(tmp_path: Path) -> None:
    idp = IdentityProvider(
        tmp_path / "idp", {"carl": (["auditors"], True), "dora": (["gardeners"], True), "u4711": (["officers"], True)}
    )
    pair = found(tmp_path / "pair")
    file = pair.site_files["alpha"]
    file.write_text(file.read_text() + OIDC.format(issuer=idp.issuer, audience=AUDIENCE, trust=idp.trust))
    with pytest.raises(ConfigError, match="cannot be used"):  # L5: no provider, no site, least of all an open one
        await started(file)
    idp.start()
    folder = file.parent / "pki"
    try:
        for name in ("carl", "dora"):
            pki.issue(folder, kind="admin", name=name)
        certificates = {
            name: (folder / f"admin-{name}.pem", folder / f"admin-{name}.key") for name in ("carl", "dora", "ann")
        }
        tokens = {n: await asyncio.to_thread(idp.token, n, *certificates[n]) for n in ("carl", "dora")}
        tokens["u4711"] = await asyncio.to_thread(idp.token, "u4711", *certificates["ann"])  # ann's account there
        async with running(pair) as site:
            carl, dora, ann = (Admin(file, name) for name in ("carl", "dora", "ann"))
            mine, hers = f"Bearer {tokens['carl']}", f"Bearer {tokens['dora']}"
            assert (await carl.call("GET", "/audit/records", Authorization=mine))[0] == 200
            assert (await carl.call("GET", "/audit/records"))[0] == 403  # the certificate alone has no grant
            assert (await dora.call("GET", "/status", Authorization=hers))[0] == 403  # her group has none
            # L14: his token over other certificates, one of them an officer's
            assert (await dora.call("GET", "/status", Authorization=mine))[0] == 401
            assert (await ann.call("GET", "/status", Authorization=mine))[0] == 401
            assert (await ann.call("GET", "/status", Authorization="Bearer x.y.z"))[0] == 401
            assert (await ann.call("GET", "/status", Authorization="Basic YW5uOmFubg=="))[0] == 401
            assert (await ann.call("GET", "/status"))[0] == 200
            await approves_alone(ann, f"Bearer {tokens['u4711']}")
            for one in (carl, dora, ann):
                await one.client.close()
            records = [json.loads(record) for _, record, _ in rows_of(site.nodes["alpha"].store)]
            calls = [(r["actor"], r["by"]) for r in records if r["kind"] == "admin.call"]
            assert calls == [("carl", "token"), ("ann", "certificate"), ("ann", "certificate"), ("u4711", "token")]
            assert len([r for r in records if r["kind"] == "admin.refused"]) == 7
            everything = b"".join(record for _, record, _ in rows_of(site.nodes["alpha"].store))
            assert not [token for token in tokens.values() if token[-40:].encode() in everything]
    finally:
        idp.stop()


async def test_L6_of_a_crowd_of_forged_tokens_none_is_taken_beside_right_ones(tmp_path: Path) -> None:
    idp = IdentityProvider(tmp_path / "idp", {"carl": (["auditors"], True)}, algorithm="ES256")
    certificate, key = pki.issue(idp.folder, kind="admin", name="carl")
    idp.start()
    try:
        from cryptography.hazmat.primitives import hashes

        own = pki.load_certificate(certificate).fingerprint(hashes.SHA256()).hex()
        token = await asyncio.to_thread(idp.token, "carl", certificate, key)
        terms = TokenTerms(issuer=idp.issuer, audience=AUDIENCE)
        judge = OidcVerifier(Provider(terms=terms), lambda url: fetch(url, idp.trust))
        await judge.start()
    finally:
        idp.stop()
    head, said, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(said + "=="))

    def forged(number: int) -> str:
        other = base64.urlsafe_b64encode(json.dumps(claims | {"sub": f"root{number}"}).encode()).rstrip(b"=").decode()
        unknown = {"alg": "ES256", "typ": "at+jwt", "kid": f"k{number}"}
        header = (
            base64.urlsafe_b64encode(json.dumps(unknown).encode()).rstrip(b"=").decode() if number % 7 == 0 else head
        )
        return f"{header}.{other}.{signature}"

    async def outcome(text: str) -> bool:
        await asyncio.sleep(0)
        try:
            return (await judge.verify(text, own)).name == "carl"
        except NotPermitted:
            return False

    crowd = [forged(number) if number % 10 else token for number in range(20_000)]
    taken = await asyncio.gather(*map(outcome, crowd))
    assert [text for text, passed in zip(crowd, taken, strict=True) if passed] == [token] * 2000
