"""The administration of real sites: certificates over TLS, a real engine and store, a policy that outlives a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from test_site_pair import ENC, Running, running, settled

from keystrand.config.load import load_site
from keystrand.crypto import pki
from keystrand.lab.pair import Pair, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.observe.audit_verify import rows_of
from keystrand.testing.patience import until
from keystrand.wire import etsi014 as wire

ADMIN = """
[admin]
listen = "127.0.0.1:{port}"
[[admin.grants]]
role = "security-officer"
names = ["ann", "bob"]
tenants = ["*"]
saes = ["*"]
[[admin.grants]]
role = "auditor"
names = ["aud"]
tenants = ["*"]
saes = ["*"]
[[admin.grants]]
role = "operator"
names = ["olga"]
"""


def found(folder: Path) -> Pair:
    pair = found_pair(folder)
    base = free_base_port(2)
    for port, file in enumerate(pair.site_files.values(), base):
        file.write_text(file.read_text() + ADMIN.format(port=port))
        for name in ("ann", "bob", "aud", "olga", "eve"):
            pki.issue(file.parent / "pki", kind="admin", name=name)
    return pair


class Admin:
    """One administrator at one site."""

    def __init__(self, file: Path, name: str, kind: str = "admin") -> None:
        config = load_site(file)
        assert config.admin is not None
        folder = file.parent / "pki"
        files = TlsFiles(
            folder / f"{kind}-{name}.pem", folder / f"{kind}-{name}.key", config.tls.trust, config.tls.revoked
        )
        listen = config.admin.listen
        contexts = TlsContexts(files, TlsPolicy())
        self.client = HttpClient(listen.host, listen.port, contexts, expect=("kme", config.site.kme_id))
        self.count = 0

    async def call(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        self.count += 1
        sent = {"Idempotency-Key": f"k{self.count}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        raw = json.dumps(body).encode() if body is not None else None
        answer = await self.client.request(method, f"/admin/v1{path}", raw, headers=sent)
        assert answer.headers["cache-control"] == "no-store"
        return answer.status, json.loads(answer.body), dict(answer.headers)


@asynccontextmanager
async def admins(pair: Pair, *names: str) -> AsyncIterator[list[Admin]]:
    found = [Admin(pair.site_files["alpha"], name) for name in names]
    try:
        yield found
    finally:
        for one in found:
            await one.client.close()


async def drawn(site: Running, number: int = 4) -> list[str]:
    await site.feeder.feed(131_072, blocks=2)
    await settled(site)
    body = json.dumps({"number": number, "size": 256}).encode()
    answer = await site.clients["alpha"].request("POST", ENC, body)
    assert answer.status == 200, answer.body
    return [key.key_id for key in wire.parse_container(answer.body)]


@pytest.mark.proves("R042", "R046", "R057", "R061", "R105")
async def test_keys_of_a_real_site_are_found_suspended_and_compromised_by_two(tmp_path: Path) -> None:
    pair = found(tmp_path / "pair")
    async with running(pair) as site, admins(pair, "ann", "bob", "aud", "olga", "eve") as (ann, bob, aud, olga, eve):
        keys = await drawn(site)
        status, page, _ = await aud.call("GET", "/keys?sae=gateway-bravo")
        assert (status, sorted(k["key_id"] for k in page["keys"])) == (200, sorted(keys))
        for who, expected in ((olga, 403), (eve, 403)):
            assert (await who.call("GET", "/keys"))[0] == expected
        assert (await olga.call("GET", "/status"))[1]["links_up"] >= 0
        assert (await aud.call("POST", "/lifecycle/revoke", {"key_ids": keys[:1], "reason": "x"}))[0] == 403
        status, done, _ = await ann.call("POST", "/lifecycle/suspend", {"key_ids": keys[:2], "reason": "drill"})
        assert (status, done["key_ids"]) == (200, keys[:2])
        path = f"/api/v1/keys/gateway-alpha/dec_keys?key_ID={keys[0]}"
        far = site.nodes["bravo"].engine.kme.lifecycle
        await until(lambda: far.get(keys[0]).state.value == "suspended")  # the other end hears of it
        assert (await site.clients["bravo"].request("GET", path)).status == 400
        status, asked, _ = await ann.call("POST", "/lifecycle/compromise", {"sae": "gateway-bravo", "reason": "lost"})
        assert (status, asked["stand"]) == (202, "pending")
        decide = f"/approvals/{asked['proposal_id']}/approve"
        assert (await ann.call("POST", decide, {"reason": "me too"}))[0] == 403
        status, executed, _ = await bob.call("POST", decide, {"reason": "seen"})
        assert (status, executed["stand"], executed["moved"]) == (200, "executed", len(keys))
        status, facts, _ = await aud.call("GET", f"/keys/{keys[3]}")
        assert (facts["state"], facts["actor"]) == ("compromised", "ann (approved by bob)")
        records = [json.loads(record) for _, record, _ in rows_of(site.nodes["alpha"].store)]
        kinds = [r["kind"] for r in records]
        assert {"admin.call", "admin.refused", "approval.proposed", "approval.executed"} <= set(kinds)
        assert {r["actor"] for r in records if r["kind"] == "admin.refused"} == {"olga", "eve", "aud", "ann"}
        assert site.nodes["alpha"].engine.kme.check_ledger() == []


async def test_other_certificates_get_nothing_from_it(tmp_path: Path) -> None:
    pair = found(tmp_path / "pair")
    file = pair.site_files["alpha"]
    async with running(pair):
        for kind, name in (("sae", "gateway-alpha"), ("kme", "kme-alpha"), ("module", "alpha-bravo-alpha")):
            stranger = Admin(file, name, kind)
            status, said, _ = await stranger.call("GET", "/status")
            assert (status, said["message"]) == (401, "not authenticated")
            await stranger.client.close()


@pytest.mark.proves("R047", "R066")
async def test_a_policy_comes_into_force_with_its_approval_and_outlives_a_restart(tmp_path: Path) -> None:
    pair = found(tmp_path / "pair")
    sites = 'policy_serial = 2\n[saes."gateway-alpha"]\nsite = "alpha"\n[saes."gateway-bravo"]\nsite = "bravo"\n'
    rule = '[[policy]]\nfrom = "gateway-bravo"\nto = "gateway-alpha"\non_exhaustion = "closed"\n'
    async with running(pair) as site, admins(pair, "ann", "bob") as (ann, bob):
        await drawn(site)
        status, trial, _ = await ann.call("POST", "/policy/trials", {"document": sites + rule})
        assert (status, trial["pairs_changed"]) == (200, 1)
        for wrong in (
            "x",
            "policy_serial = 2",
            sites + rule.replace("closed", "ajar"),
            sites.replace('alpha"]', 'x"]'),
        ):
            assert (await ann.call("POST", "/policy/trials", {"document": wrong}))[0] == 400
        _, present, headers = await ann.call("GET", "/policy")
        assert present["serial"] == 1
        wish = {"document": sites + rule, "reason": "alpha draws no more"}
        status, asked, _ = await ann.call("POST", "/policy/proposals", wish, If_Match=headers["etag"])
        assert status == 202
        status, _, _ = await bob.call("POST", f"/approvals/{asked['proposal_id']}/approve", {"reason": "yes"})
        assert status == 200
        assert (await site.clients["alpha"].request("GET", ENC)).status == 401
    async with running(pair) as site, admins(pair, "ann") as (ann,):
        assert (await ann.call("GET", "/policy"))[1]["serial"] == 2
        assert (await site.clients["alpha"].request("GET", ENC)).status == 401
        assert (await ann.call("GET", f"/approvals/{asked['proposal_id']}"))[1]["stand"] == "executed"


@pytest.mark.proves("R096", "R057")
async def test_I12_the_api_shows_everything_but_keys(tmp_path: Path) -> None:
    """Canaries: every secret of the site's folder, and the material of a key that was drawn."""
    pair = found(tmp_path / "pair")
    async with running(pair) as site, admins(pair, "ann", "aud", "olga") as people:
        await site.feeder.feed(131_072)
        await settled(site)
        answer = await site.clients["alpha"].request("POST", ENC, b'{"size": 256}')
        (key,) = wire.parse_container(answer.body)
        await site.nodes["alpha"].notary.checkpoint()
        folder = pair.site_files["alpha"].parent
        secrets = [
            key.material.reveal(),
            (folder / "passphrase").read_bytes().strip(),
            (folder / "audit.key").read_bytes(),
        ]
        secrets += [b"PRIVATE KEY", b"audit.key"]
        forms = [
            form for raw in secrets for form in (raw, raw.hex().encode(), __import__("base64").b64encode(raw)[:40])
        ]
        seen = 0
        gets = ("/status", "/links", "/pools", "/peers", "/alarms", "/config", "/saes", "/tenants", "/policy", "/keys", "/jobs",
                "/approvals", "/audit/records?limit=1000", "/audit/checkpoints", "/audit/proofs/0", "/openapi.json",
                f"/keys/{key.key_id}", f"/keys/{key.key_id}/use", f"/keys/{key.key_id}/consumers")  # fmt: skip
        for person in people:
            for path in gets:
                status, told, _ = await person.call("GET", path)
                seen += status == 200
                body = json.dumps(told).encode()
                assert not [form for form in forms if form in body], path
                assert status in (200, 403), (path, told)
        assert seen > len(gets)


async def test_a_policy_of_another_replica_is_taken_up(tmp_path: Path) -> None:
    """What one replica writes into the store that all share, the others follow within seconds."""
    pair = found(tmp_path / "pair")
    async with running(pair) as site:
        await drawn(site)
        node = site.nodes["alpha"]
        sites = '[saes."gateway-alpha"]\nsite = "alpha"\n[saes."gateway-bravo"]\nsite = "bravo"\n'
        for serial, text in ((3, "policy_serial = 3\n" + sites), (3, "nonsense"), (3, "policy_serial = 1\n" + sites)):
            await node.engine.call(lambda kme, text=text: node.store.papers.put("policy", "present", 1.0, text))
            await until(lambda serial=serial: node.engine.kme.site.policy.serial == serial)  # type: ignore[misc]
            await asyncio.sleep(1.2)
            assert node.engine.kme.site.policy.serial == serial == node.policy.serial
        assert (await site.clients["alpha"].request("GET", ENC)).status == 401
