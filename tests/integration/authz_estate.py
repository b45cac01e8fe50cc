"""Who may do what, cell by cell: role x reach x route x subject x way of authentication, against a table written here.

The oracle knows nothing of the code's own tables. `python tests/integration/authz_estate.py` (make authz) asks the whole matrix
over mutual TLS, on connections that are kept, with a certificate for each person.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from keystrand.api.admin import admin_app
from keystrand.api.admin_auth import Door, Roll
from keystrand.api.oidc import OidcVerifier, Provider
from keystrand.core.clock import SystemEntropy
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy, Rule, Sae
from keystrand.core.protection import Strand
from keystrand.core.register import KeyRecord, Stage
from keystrand.core.secret import Secret
from keystrand.core.states import State
from keystrand.crypto import pki
from keystrand.crypto.jose import TokenTerms
from keystrand.crypto.keyring import TenantState
from keystrand.crypto.shares import split
from keystrand.govern.approval import DualControl, Proposal
from keystrand.govern.release import Releases
from keystrand.govern.roles import Grant, Operation, Role
from keystrand.net.http_client import HttpClient
from keystrand.net.http_server import HttpServer
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.relay.maintenance import WindowStand
from keystrand.testing.administration import MemoryAdministration, MemoryDesk
from keystrand.testing.asgi import AsgiCaller
from keystrand.testing.clock import VirtualClock
from keystrand.wire.relay import Window

# the oracle: v viewer, o operator, s security officer, a auditor, t tenant administrator, c custodian
TABLE = """
GET  /status                        v o s a t c
GET  /links                         v o s - - -
GET  /pools                         v o s - - -
GET  /peers                         v o s - - -
GET  /alarms                        v o s a - -
GET  /config                        - o - a - -
GET  /saes                          - - s a t -
GET  /tenants                       - - s a t -
POST /tenants/{tenant}/seal         - - s - t -
POST /tenants/{tenant}/unseal       - - s - - -
POST /tenants/{tenant}/rotate       - - s - - -
POST /tenants/{tenant}/erase        - - s - - -
GET  /escrow/releases               - - s a - c
POST /escrow/releases               - - s - - -
POST /escrow/releases/{rel}/shares  - - - - - c
POST /root/rotate                   - - s - - -
GET  /policy                        - - s a - -
POST /policy/trials                 - - s - - -
POST /policy/proposals              - - s - - -
GET  /keys                          - - s a t -
GET  /tally                         - - s a t -
GET  /keys/{key}                    - - s a t -
GET  /keys/{key}/use                - - s a t -
GET  /keys/{key}/consumers          - - s a t -
POST /lifecycle/trials              - - s a t -
POST /lifecycle/suspend             - - s - t -
POST /lifecycle/resume              - - s - t -
POST /lifecycle/revoke              - - s - t -
POST /lifecycle/compromise          - - s - - -
POST /lifecycle/destroy             - - s - - -
GET  /network                       v o s - - -
POST /network/{site}/bar            - - s - - -
POST /network/{site}/admit          - - s - - -
POST /maintenance                   - o - - - -
POST /maintenance/{window}/begin    - o - - - -
POST /maintenance/{window}/end      - o - - - -
POST /maintenance/{window}/force    - - s - - -
GET  /jobs                          - o - a - -
POST /jobs/expiry/run               - o - - - -
GET  /approvals                     - - s a - -
GET  /approvals/{policy}            - - s a - -
GET  /approvals/{acme}              - - s a - -
GET  /approvals/{unseal}            - - s a - -
GET  /approvals/{root}              - - s a - -
POST /approvals/{policy}/approve    - - s - - -
POST /approvals/{policy}/reject     - - s - - -
POST /approvals/{acme}/approve      - - s - - -
POST /approvals/{acme}/reject       - - s - - -
POST /approvals/{unseal}/approve    - - s - - -
POST /approvals/{root}/approve      - - s - - -
GET  /audit/records                 - - - a - -
GET  /audit/checkpoints             - - - a - -
GET  /audit/proofs/0                - - - a - -
GET  /openapi.json                  v o s a t c
"""
LETTERS = {
    "viewer": "v", "operator": "o", "security-officer": "s", "auditor": "a", "tenant-administrator": "t", "custodian": "c",
}  # fmt: skip
KEYS = {  # number -> tenant, initiator, responder
    1: ("acme", "a1", "a2"),
    2: ("acme", "a2", "a3"),
    3: ("beta", "b1", "b2"),
    4: ("acme", "a1", "b1"),
}
SELECTORS: tuple[dict[str, str], ...] = (
    {"link": "ab"}, {"tenant": "acme"}, {"tenant": "beta"}, {"sae": "a1"}, {"tenant": "acme", "sae": "a1"},
    {"tenant": "beta", "sae": "b1"}, {"tenant": "acme", "sae": "b1"},
)  # fmt: skip
PROPOSES = ("/policy/proposals", "/tenants/{tenant}/unseal", "/tenants/{tenant}/erase", "/root/rotate")
PROPOSES += ("/maintenance/{window}/force", "/network/{site}/admit")
BEFORE = {
    "suspend": "active",
    "resume": "suspended",
    "revoke": "active",
    "compromise": "active",
    "destroy": "deactivated",
}
WAYS = ("certificate", "token", "forged", "stolen", "nobody's key", "as sae", "none")
REACHES: tuple[tuple[str, ...], ...] = ((), ("acme",), ("beta",), ("*",))
HOLDERS: tuple[tuple[str, ...], ...] = ((), ("a1",), ("b1",), ("*",))


def key_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


POLICY_ID, ACME_ID, UNSEAL_ID, ROOT_ID, RELEASE, WINDOW = (key_id(number) for number in range(100, 106))
SECRET_RECORD, SHARES = split(Secret(bytes(34)), 2, 3)


@dataclass(frozen=True)
class Person:
    name: str
    role: str  # "" for somebody without a grant
    tenants: tuple[str, ...] = ()
    saes: tuple[str, ...] = ()

    def reaches(self, tenant: str | None, holders: tuple[str, ...]) -> bool:
        """The oracle of reach, for a key (its tenant, its holders) and for criteria (what they name)."""
        in_tenant = self.tenants == ("*",) or (tenant is not None and tenant in self.tenants)
        return in_tenant and (self.saes == ("*",) or any(holder in self.saes for holder in holders))


@dataclass(frozen=True)
class Ask:
    """One row of the table with one subject."""

    method: str
    line: str
    who: str
    path: str
    body: dict[str, Any] | None = None
    key: int = 0
    criteria: tuple[str | None, tuple[str, ...]] | None = None
    tenant: str = ""

    def expected(self, person: Person, way: str) -> int:
        if way not in ("certificate", "token"):
            return 401
        if not person.role or LETTERS[person.role] not in self.who:
            return 403
        whole = person.tenants == ("*",) and person.saes == ("*",)
        if self.line.startswith(("/policy", "/audit", "/root")) and not whole:
            return 403  # about all tenants at once
        if ("{policy}" in self.line or "{root}" in self.line) and not whole:
            return 404
        if self.tenant and not person.reaches(self.tenant, ()):
            return 404  # the whole tenant, so no grant over some of its SAEs
        if "{rel}" in self.line and person.tenants not in (("acme",), ("*",)):
            return 404
        if self.key and not person.reaches(KEYS[self.key][0], KEYS[self.key][1:]):
            return 404
        if self.criteria is not None and not person.reaches(*self.criteria):
            return 403
        if ("{acme}" in self.line or "{unseal}" in self.line) and not person.reaches("acme", ()):
            return 404
        by_criteria = self.criteria is not None and self.line in ("/lifecycle/compromise", "/lifecycle/destroy")
        return 202 if by_criteria or self.line in PROPOSES else 200


def people() -> list[Person]:
    found = [Person("nobody", "")]
    for role, tenants, saes in itertools.product(LETTERS, REACHES, HOLDERS):
        found.append(Person(f"p{len(found)}", role, tenants, saes))
    return found


def asks() -> Iterator[Ask]:
    for text in TABLE.strip().splitlines():
        method, line, *letters = text.split()
        who = "".join(letters)
        if "{key}" in line:
            for number in KEYS:
                yield Ask(method, line, who, line.format(key=key_id(number)), key=number)
        elif line in ("/keys", "/tally"):
            for criteria in SELECTORS:
                query = "&".join(f"{name}={value}" for name, value in criteria.items())
                yield Ask(method, line, who, f"{line}?{query}", criteria=_named(criteria))
        elif line.startswith("/lifecycle/"):
            why = {"change": "suspend"} if line.endswith("/trials") else {"reason": "cell"}
            for number in KEYS:
                yield Ask(method, line, who, line, {"key_ids": [key_id(number)], **why}, key=number)
            for criteria in SELECTORS:
                yield Ask(method, line, who, line, {**criteria, **why}, criteria=_named(criteria))
        elif "{tenant}" in line:
            for tenant in ("acme", "beta"):
                yield Ask(method, line, who, line.format(tenant=tenant), {"reason": "cell"}, tenant=tenant)
        elif (method, line) == ("POST", "/escrow/releases"):
            for tenant in ("acme", "beta"):
                yield Ask(
                    method, line, who, line, {"tenant": tenant, "record": RECORD, "reason": "cell"}, tenant=tenant
                )
        else:
            named = {"policy": POLICY_ID, "acme": ACME_ID, "unseal": UNSEAL_ID, "root": ROOT_ID, "rel": RELEASE}
            named |= {"window": WINDOW, "site": "x9"}
            yield Ask(method, line, who, line.format(**named), _body(method, line))


def _named(criteria: dict[str, str]) -> tuple[str | None, tuple[str, ...]]:
    return criteria.get("tenant"), (criteria["sae"],) if "sae" in criteria else ()


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()


RECORD = {
    "escrow_id": _base64(SECRET_RECORD.escrow_id),
    "threshold": SECRET_RECORD.threshold,
    "digests": [_base64(digest) for digest in SECRET_RECORD.digests],
}
SHARE = _base64(SHARES[0].encode().reveal())


def _body(method: str, line: str) -> dict[str, Any] | None:
    if method == "GET" or line.startswith("/jobs"):
        return None
    if line == "/policy/trials":
        return {"document": "next"}
    if line == "/maintenance":
        return {"from_s": 1e9, "until_s": 2e9, "reason": "cell"}
    if line.endswith("/shares"):
        return {"share": SHARE, "reason": "cell"}
    return {"reason": "cell", "document": "next"} if line == "/policy/proposals" else {"reason": "cell"}


SIGNER, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


class Estate:
    """The application, its people, and a provider that signs tokens for them."""

    def __init__(self, crowd: list[Person]) -> None:
        self.clock = VirtualClock()
        sites = dict.fromkeys(("a1", "a2", "a3", "b1", "b2"), "alpha")
        saes = {name: Sae(tenant="acme" if name[0] == "a" else "beta") for name in sites}
        rule = Rule(initiator="a1", responder="a2")
        policies = [Policy.of((rule,), sites, saes=saes, serial=serial) for serial in (1, 2)]
        self.policy = policies[0]
        self.desk = MemoryDesk(clock=self.clock, present=self.policy, policies={"next": policies[1]})
        self.etag = f'"1-{self.policy.digest[:32]}"'
        grants = {
            p.name: (Grant(role=Role(p.role), tenants=frozenset(p.tenants), saes=frozenset(p.saes)),)
            for p in crowd
            if p.role
        }
        terms = TokenTerms(issuer="https://idp", audience="us", parties=frozenset({"cli"}))
        self.verifier = OidcVerifier(Provider(terms=terms), self._fetch, self.clock)
        door = Door(roll=Roll(by_name=grants, by_group=grants), verifier=self.verifier)
        control = DualControl(clock=self.clock, entropy=SystemEntropy(), needed=1)
        self.releases = Releases(self.clock, SystemEntropy(), 60.0)
        self.app = admin_app(
            MemoryAdministration(self.desk),
            door,
            control,
            limits=Limits(),
            sink=self,
            clock=self.clock,
            releases=self.releases,
        )
        self.number = 0
        self.tokens: dict[tuple[str, str, bool], str] = {}

    def emit(self, event: object, /) -> None:
        pass

    async def _fetch(self, url: str) -> bytes:
        if url.endswith("openid-configuration"):
            return json.dumps({"issuer": "https://idp", "jwks_uri": "https://idp/keys"}).encode()
        key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(SIGNER.public_key()))
        return json.dumps({"keys": [{**key, "kid": "k1"}]}).encode()

    def token(self, name: str, fingerprint: str, *, forged: bool = False) -> str:
        hour = f"{fingerprint} {self.clock.now_s() // 1800}"
        known = self.tokens.get((name, hour, forged))
        if known is None:
            bound = jwt.utils.base64url_encode(bytes.fromhex(fingerprint)).decode()
            now_s = self.clock.now_s()
            claims = {
                "iss": "https://idp", "aud": "us", "azp": "cli", "sub": name, "groups": [name], "iat": now_s,
                "exp": now_s + 3600, "cnf": {"x5t#S256": bound},
            }  # fmt: skip
            headers = {"kid": "k1", "typ": "at+jwt"}
            known = jwt.encode(claims, OTHER if forged else SIGNER, algorithm="ES256", headers=headers)
            self.tokens[name, hour, forged] = known
        return known

    def reset(self, ask: Ask) -> None:
        """Each cell begins in the same state of things."""
        desk = self.desk
        state = State(BEFORE.get(ask.line.rpartition("/")[2], "active"))
        strands = frozenset({Strand.QKD})
        desk.keys = {
            key_id(n): KeyRecord(
                key_id(n), one, (other,), "bravo", "ab", 0, 0, strands, 256, tenant, (), 1e3, 1e3, 9e9, Stage.EXPIRE, 9e9
            )._replace(state=state)
            for n, (tenant, one, other) in KEYS.items()
        }  # fmt: skip
        desk.present, now_s = self.policy, self.clock.now_s()
        wish = json.dumps({"document": "next", "emergency": False, "base": self.etag})
        scope = json.dumps({"reason": "cell", "tenant": "acme"})
        for name, operation, content in (
            (POLICY_ID, Operation.POLICY_CHANGE, wish),
            (ACME_ID, Operation.KEYS_COMPROMISE, scope),
            (UNSEAL_ID, Operation.TENANTS_UNSEAL, '{"tenant": "acme"}'),
            (ROOT_ID, Operation.ROOT_ROTATE, '{"key_label": "next"}'),
        ):
            desk.kept[name] = Proposal(
                proposal_id=name, operation=operation, content=content, requester="zoe", reason="cell", needed=1,
                created_s=now_s, expires_s=now_s + 60,
            )  # fmt: skip
        for extra in set(desk.kept) - {POLICY_ID, ACME_ID, UNSEAL_ID, ROOT_ID}:
            del desk.kept[extra]
        desk.sealed = {name: TenantState(tenant=name, sealed=False, generation=1) for name in ("acme", "beta")}
        desk.orders, desk.broken = [], {"x9"}
        window = Window(WINDOW, "", 0, 1, draining=False)
        desk.planned = {
            WINDOW: WindowStand(
                window=window, stand="planned", under_way=0, checks=(), cut=(), actor="zoe", reason="cell"
            )
        }
        self.releases._open.clear()
        release = self.releases.begin("acme", SECRET_RECORD, requester="zoe", reason="cell")
        self.releases._open = {RELEASE: replace(release, release_id=RELEASE)}
        self.releases._shares = {RELEASE: []}
        desk.rows, desk.records, desk.answers = [(0, b"{}", bytes(32))], [], {}
        desk.notes = [(1, "note")]

    def headers(self, ask: Ask, person: Person, way: str, fingerprint: str) -> list[tuple[bytes, bytes]]:
        self.number += 1
        sent = [(b"content-type", b"application/json"), (b"idempotency-key", b"c%d" % self.number)]
        if ask.line == "/policy/proposals":
            sent.append((b"if-match", self.etag.encode()))
        if way in ("token", "forged", "stolen"):
            holder = "ff" * 32 if way == "stolen" else fingerprint
            sent.append(
                (b"authorization", b"Bearer " + self.token(person.name, holder, forged=way == "forged").encode())
            )
        elif way == "nobody's key":
            sent.append((b"authorization", b"Basic cm9vdDpyb290"))
        return sent

    def ready(self, ask: Ask, way: str) -> None:
        if way not in ("certificate", "token"):
            self.clock.move_to(self.clock.monotonic_s() + 1.0)  # more strangers in a second are not recorded one by one
        self.reset(ask)

    async def cell(self, ask: Ask, person: Person, way: str) -> int:
        self.ready(ask, way)
        fingerprint = person.name.encode().hex().rjust(64, "0")
        kind = {"as sae": "sae", "none": None}.get(way, "admin")
        # who comes by token has a certificate without any grant of its own, to be sure that the token alone decides;
        # a bad token comes over the right person's certificate, which must not help
        name = "carrier" if way == "token" else person.name
        caller = AsgiCaller(self.app, name, kind, tuple(self.headers(ask, person, way, fingerprint)), fingerprint)
        raw = json.dumps(ask.body).encode() if ask.body is not None else None
        return (await caller.request(ask.method, f"/admin/v1{ask.path}", raw)).status

    def wrong(self, ask: Ask, person: Person, way: str, status: int) -> str:
        """What is wrong with the answer, or with its record; empty when both are right."""
        expected = ask.expected(person, way)
        cell = f"{ask.method} {ask.path} {ask.body} by {person} with {way}"
        if status != expected:
            return f"{cell}: {status}, not {expected}"
        refused = [r for r in self.desk.records if r["kind"] == "admin.refused"]
        done = [r for r in self.desk.records if r["kind"] == "admin.call"]
        right = (0, 1) if expected < 300 else (1, 0)
        if (len(refused), len(done)) != right or (refused + done)[0]["status"] != status:
            return f"{cell}: recorded as {self.desk.records}"
        if expected >= 300 and self.desk.orders:
            return f"{cell}: refused, yet carried out"
        moved = any(r.state.value != BEFORE.get(ask.line.rpartition("/")[2], "active") for r in self.desk.keys.values())
        return f"{cell}: refused, yet a key moved" if moved and expected >= 300 else ""


# over TLS ------------------------------------------------------------------------------------------------------------

OVER_TLS = tuple(way for way in WAYS if way != "none")  # without a certificate there is no connection to ask over


@dataclass
class Tally:
    """What a run over a socket saw."""

    cells: int = 0
    allowed: int = 0
    connections: int = 0
    wrong: list[str] = field(default_factory=list)


class Wire:
    """The application behind its own server on loopback, and a certificate for everybody, of one curve key."""

    def __init__(self, folder: Path, crowd: list[Person]) -> None:
        self.folder, self.crowd, self.estate, self.tally = folder, crowd, Estate(crowd), Tally()
        self.ca, _ = pki.create_ca(folder, "ca")
        files = pki.issue(folder, kind="kme", name="kme", hosts=("127.0.0.1",))
        contexts = TlsContexts(TlsFiles(*files, self.ca), TlsPolicy())
        self.server = HttpServer(self.estate.app, "127.0.0.1", 0, contexts=contexts)

    async def run(self, rows: list[Ask], ways: tuple[str, ...] = OVER_TLS) -> Tally:
        await self.estate.verifier.start()
        await self.server.start()
        try:
            for person in self.crowd:
                await self._ask_all(person, rows, [way for way in ways if way != "as sae"], "admin")
                if "as sae" in ways:
                    await self._ask_all(person, rows, ["as sae"], "sae")
        finally:
            await self.server.stop()
        return self.tally

    async def _ask_all(self, person: Person, rows: list[Ask], ways: list[str], kind: pki.Kind) -> None:
        """All cells of one person, over one connection that is kept."""
        files = pki.issue(self.folder, kind=kind, name=person.name)
        fingerprint = pki.load_certificate(files[0]).fingerprint(hashes.SHA256()).hex()
        contexts = TlsContexts(TlsFiles(*files, self.ca), TlsPolicy())
        self.tally.connections += 1
        async with HttpClient("127.0.0.1", self.server.port, contexts, expect=("kme", "kme")) as client:
            for way, ask in itertools.product(ways, rows):
                self.estate.ready(ask, way)
                sent = dict(self.estate.headers(ask, person, way, fingerprint)[1:])
                headers = {name.decode(): value.decode() for name, value in sent.items()}
                raw = json.dumps(ask.body).encode() if ask.body is not None else None
                reply = await client.request(ask.method, f"/admin/v1{ask.path}", raw, headers=headers)
                self.tally.cells += 1
                self.tally.allowed += reply.status < 300
                if complaint := self.estate.wrong(ask, person, way, reply.status):
                    self.tally.wrong.append(complaint)


def main() -> int:
    """The whole matrix; prints what was seen, as JSON."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = asyncio.run(Wire(Path(folder), people()).run(list(asks())))
    took_s = time.monotonic() - began_s
    facts = {
        "cells": tally.cells,
        "allowed": tally.allowed,
        "wrong": len(tally.wrong),
        "connections": tally.connections,
        "took_s": round(took_s, 1),
    }
    print(json.dumps(facts))
    for complaint in tally.wrong[:10]:
        print(complaint, file=sys.stderr)
    return 1 if tally.wrong or tally.cells < 50_000 else 0


if __name__ == "__main__":
    sys.exit(main())
