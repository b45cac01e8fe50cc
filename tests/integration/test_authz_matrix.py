"""Who may do what, cell by cell: role x reach x route x subject x way of authentication, against a table written here.

Nearly all cells go through the whole ASGI application in this process (tokens are real ones, signed and verified); a part of
them also over TLS with a certificate for each person. The oracle below knows nothing of the code's own tables.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
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
from keystrand.core.states import State
from keystrand.crypto import pki
from keystrand.crypto.jose import TokenTerms
from keystrand.govern.approval import DualControl, Proposal
from keystrand.govern.roles import Grant, Operation, Role
from keystrand.net.http_client import HttpClient
from keystrand.net.http_server import HttpServer
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.administration import MemoryAdministration, MemoryDesk
from keystrand.testing.asgi import AsgiCaller
from keystrand.testing.clock import VirtualClock

# the oracle: v viewer, o operator, s security officer, a auditor, t tenant administrator
TABLE = """
GET  /status                        v o s a t
GET  /links                         v o s - -
GET  /pools                         v o s - -
GET  /peers                         v o s - -
GET  /alarms                        v o s a -
GET  /config                        - o - a -
GET  /saes                          - - s a t
GET  /tenants                       - - s a t
GET  /policy                        - - s a -
POST /policy/trials                 - - s - -
POST /policy/proposals              - - s - -
GET  /keys                          - - s a t
GET  /keys/{key}                    - - s a t
GET  /keys/{key}/use                - - s a t
GET  /keys/{key}/consumers          - - s a t
POST /lifecycle/suspend             - - s - t
POST /lifecycle/resume              - - s - t
POST /lifecycle/revoke              - - s - t
POST /lifecycle/compromise          - - s - -
POST /lifecycle/destroy             - - s - -
GET  /jobs                          - o - a -
POST /jobs/expiry/run               - o - - -
GET  /approvals                     - - s a -
GET  /approvals/{policy}            - - s a -
GET  /approvals/{acme}              - - s a -
POST /approvals/{policy}/approve    - - s - -
POST /approvals/{policy}/reject     - - s - -
POST /approvals/{acme}/approve      - - s - -
POST /approvals/{acme}/reject       - - s - -
GET  /audit/records                 - - - a -
GET  /audit/checkpoints             - - - a -
GET  /audit/proofs/0                - - - a -
GET  /openapi.json                  v o s a t
"""
LETTERS = {"viewer": "v", "operator": "o", "security-officer": "s", "auditor": "a", "tenant-administrator": "t"}
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


POLICY_ID, ACME_ID = key_id(100), key_id(101)


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

    def expected(self, person: Person, way: str) -> int:
        if way not in ("certificate", "token"):
            return 401
        if not person.role or LETTERS[person.role] not in self.who:
            return 403
        whole = person.tenants == ("*",) and person.saes == ("*",)
        if self.line.startswith(("/policy", "/audit")) and not whole:
            return 403  # about all tenants at once
        if "{policy}" in self.line and not whole:
            return 404
        if self.key and not person.reaches(KEYS[self.key][0], KEYS[self.key][1:]):
            return 404
        if self.criteria is not None and not person.reaches(*self.criteria):
            return 403
        if "{acme}" in self.line and not person.reaches("acme", ()):
            return 404
        proposes = self.line == "/policy/proposals" or (
            self.criteria is not None and self.line in ("/lifecycle/compromise", "/lifecycle/destroy")
        )
        return 202 if proposes else 200


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
        elif line == "/keys":
            for criteria in SELECTORS:
                query = "&".join(f"{name}={value}" for name, value in criteria.items())
                yield Ask(method, line, who, f"/keys?{query}", criteria=_named(criteria))
        elif line.startswith("/lifecycle/"):
            for number in KEYS:
                yield Ask(method, line, who, line, {"key_ids": [key_id(number)], "reason": "cell"}, key=number)
            for criteria in SELECTORS:
                yield Ask(method, line, who, line, {**criteria, "reason": "cell"}, criteria=_named(criteria))
        else:
            yield Ask(method, line, who, line.format(policy=POLICY_ID, acme=ACME_ID), _body(method, line))


def _named(criteria: dict[str, str]) -> tuple[str | None, tuple[str, ...]]:
    return criteria.get("tenant"), (criteria["sae"],) if "sae" in criteria else ()


def _body(method: str, line: str) -> dict[str, Any] | None:
    if method == "GET" or line.startswith("/jobs"):
        return None
    if line == "/policy/trials":
        return {"document": "next"}
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
        self.app = admin_app(
            MemoryAdministration(self.desk), door, control, limits=Limits(), sink=self, clock=self.clock
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
        ):
            desk.kept[name] = Proposal(
                proposal_id=name, operation=operation, content=content, requester="zoe", reason="cell", needed=1,
                created_s=now_s, expires_s=now_s + 60,
            )  # fmt: skip
        for extra in set(desk.kept) - {POLICY_ID, ACME_ID}:
            del desk.kept[extra]
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

    async def cell(self, ask: Ask, person: Person, way: str) -> int:
        if way not in ("certificate", "token"):
            self.clock.move_to(self.clock.monotonic_s() + 1.0)  # more strangers in a second are not recorded one by one
        self.reset(ask)
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
        moved = any(r.state.value != BEFORE.get(ask.line.rpartition("/")[2], "active") for r in self.desk.keys.values())
        return f"{cell}: refused, yet a key moved" if moved and expected >= 300 else ""


def test_the_oracle_names_every_route_and_role() -> None:
    from keystrand.api.admin_routes import ROUTES

    def shape(path: str) -> str:
        for name in ("{key}", "{key_id}", "{policy}", "{acme}", "{proposal_id}", "expiry", "{job}", "{number}"):
            path = path.replace(name, "*")
        return path.replace("/proofs/0", "/proofs/*")

    listed = {(ask.method, shape(ask.line)) for ask in asks()}
    assert listed == {(route.method, shape(route.path)) for route in ROUTES} | {("GET", "/openapi.json")}
    assert set(LETTERS) == {role.value for role in Role}


@pytest.mark.proves("R046", "R061", "R105")
async def test_L4_L5_L7_I8_the_whole_matrix() -> None:
    crowd, rows = people(), list(asks())
    estate = Estate(crowd)
    await estate.verifier.start()
    began_s, cells, wrong, allowed = time.monotonic(), 0, [], 0
    for person, way, ask in itertools.product(crowd, WAYS, rows):
        status = await estate.cell(ask, person, way)
        cells += 1
        allowed += status < 300
        if complaint := estate.wrong(ask, person, way, status):
            wrong.append(complaint)
    took_s = time.monotonic() - began_s
    print(f"{cells} cells, {allowed} allowed, {len(wrong)} wrong, {took_s:.1f} s")
    assert wrong == [], wrong[:5]
    assert cells >= 50_000
    assert 1000 < allowed < cells / 2


@pytest.mark.proves("R046")
async def test_a_part_of_the_matrix_over_tls(tmp_path: Path) -> None:
    crowd, rows = people(), list(asks())
    estate = Estate(crowd)
    await estate.verifier.start()
    ca, _ = pki.create_ca(tmp_path, "ca")
    server_files = pki.issue(tmp_path, kind="kme", name="kme", hosts=("127.0.0.1",))
    contexts = TlsContexts(TlsFiles(*server_files, ca), TlsPolicy())
    server = HttpServer(estate.app, "127.0.0.1", 0, contexts=contexts)
    await server.start()
    wrong, cells = [], 0
    try:
        for person in crowd[::8]:
            files = pki.issue(tmp_path, kind="admin", name=person.name)
            fingerprint = pki.load_certificate(files[0]).fingerprint(hashes.SHA256()).hex()
            mine = TlsContexts(TlsFiles(*files, ca), TlsPolicy())
            async with HttpClient("127.0.0.1", server.port, mine, expect=("kme", "kme")) as client:
                for way, ask in itertools.product(("certificate", "token", "forged", "stolen"), rows):
                    estate.clock.move_to(estate.clock.monotonic_s() + 1.0)
                    estate.reset(ask)
                    sent = dict(estate.headers(ask, person, way, fingerprint)[1:])
                    headers = {name.decode(): value.decode() for name, value in sent.items()}
                    raw = json.dumps(ask.body).encode() if ask.body is not None else None
                    reply = await client.request(ask.method, f"/admin/v1{ask.path}", raw, headers=headers)
                    cells += 1
                    if complaint := estate.wrong(ask, person, way, reply.status):
                        wrong.append(complaint)
    finally:
        await server.stop()
    print(f"{cells} cells over TLS, {len(wrong)} wrong")
    assert wrong == [], wrong[:5]
    assert cells > 3000


async def _found_wrong(estate_of: list[Person], rows: list[Ask], ways: tuple[str, ...]) -> int:
    estate = Estate(estate_of)
    await estate.verifier.start()
    found = 0
    for person, way, ask in itertools.product(estate_of, ways, rows):
        found += bool(estate.wrong(ask, person, way, await estate.cell(ask, person, way)))
    return found


@pytest.mark.parametrize("planted", ["role", "tenant", "owner", "fallback", "approver"])
async def test_the_matrix_finds_what_is_planted(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fault each in the code's table, in reach, at the door and in approvals."""
    from keystrand.api import admin_writes
    from keystrand.govern import roles

    crowd, rows = people()[::5], list(asks())
    assert await _found_wrong(crowd[:4], rows, ("certificate",)) == 0
    if planted == "role":
        wider = roles.ROLES[Role.AUDITOR] | {Operation.KEYS_REVOKE}
        monkeypatch.setattr(roles, "ROLES", dict(roles.ROLES) | {Role.AUDITOR: wider})
    elif planted == "tenant":
        monkeypatch.setattr(Grant, "reaches_tenant", lambda self, tenant: bool(self.tenants))
    elif planted == "owner":
        monkeypatch.setattr(Grant, "reaches_scope", lambda self, scope: self.reaches_tenant(scope.tenant or ""))
    elif planted == "fallback":

        async def by_certificate(self: Door, scope: Any) -> Any:
            scope = dict(scope) | {"headers": [h for h in scope["headers"] if h[0] != b"authorization"]}
            return await right(self, scope)

        right = Door.principal
        monkeypatch.setattr(Door, "principal", by_certificate)
    else:
        monkeypatch.setattr(admin_writes, "_may_see", lambda call, proposal: True)
    assert await _found_wrong(crowd, rows, ("certificate", "forged")) > 0
