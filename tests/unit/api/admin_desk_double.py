"""A desk with a few keys of two tenants, and people with each role, for the tests of the administration API."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from keystrand.api.admin import admin_app
from keystrand.api.admin_auth import Door, Roll, TokenVerifier
from keystrand.api.exchange import App
from keystrand.core.clock import SystemEntropy
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy, Rule, Sae
from keystrand.core.protection import Strand
from keystrand.core.register import KeyRecord, Stage, Use
from keystrand.govern.approval import DualControl
from keystrand.govern.roles import ALL, Grant, Role
from keystrand.testing.administration import MemoryAdministration, MemoryDesk
from keystrand.testing.asgi import AsgiCaller, Reply
from keystrand.testing.clock import VirtualClock
from keystrand.testing.sinks import Ears

EVERY = frozenset({ALL})
PEOPLE: dict[str, tuple[Grant, ...]] = {
    "vic": (Grant(role=Role.VIEWER),),
    "olga": (Grant(role=Role.OPERATOR),),
    "ann": (Grant(role=Role.SECURITY_OFFICER, tenants=EVERY, saes=EVERY),),
    "bob": (Grant(role=Role.SECURITY_OFFICER, tenants=EVERY, saes=EVERY),),
    "cat": (Grant(role=Role.SECURITY_OFFICER, tenants=EVERY, saes=EVERY),),
    "acmeoff": (Grant(role=Role.SECURITY_OFFICER, tenants=frozenset({"acme"}), saes=EVERY),),
    "aud": (Grant(role=Role.AUDITOR, tenants=EVERY, saes=EVERY),),
    "tess": (Grant(role=Role.TENANT_ADMINISTRATOR, tenants=frozenset({"acme"}), saes=EVERY),),
    "tom": (Grant(role=Role.TENANT_ADMINISTRATOR, tenants=frozenset({"acme"}), saes=frozenset({"a1"})),),
    "nobody": (),
}
SAES = {"a1": "acme", "a2": "acme", "b1": "beta", "b2": "beta"}


def policy(serial: int = 1, quota_bps: float = 0.0) -> Policy:
    burst = 1000 if quota_bps else 0
    rules = (
        Rule(initiator="a1", responder="a2", quota_bps=quota_bps, quota_burst_bits=burst),
        Rule(initiator="b1", responder="b2"),
    )
    sites = dict.fromkeys(SAES, "alpha")
    return Policy.of(rules, sites, saes={name: Sae(tenant=t) for name, t in SAES.items()}, serial=serial)


def key_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def record(number: int, tenant: str, initiator: str, responder: str) -> KeyRecord:
    made_s = 1000.0 + number
    return KeyRecord(
        key_id(number), initiator, (responder,), "bravo", "ab", 0, 0, frozenset({Strand.QKD, Strand.PQC}), 256, tenant,
        ("asset=db",), made_s, made_s, made_s + 1e9, Stage.EXPIRE, made_s + 1e9,
    )  # fmt: skip


@dataclass
class Site:
    """The application over a desk in memory, and how to call it."""

    desk: MemoryDesk
    administration: MemoryAdministration
    app: App
    clock: VirtualClock
    sink: Ears
    numbers: Any = field(default_factory=lambda: count(1))

    async def call(
        self,
        who: str,
        method: str,
        path: str,
        body: object = None,
        *,
        kind: str | None = "admin",
        once: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Reply:
        key = once if once is not None else f"n{next(self.numbers)}"
        sent = [(b"content-type", b"application/json"), *headers]
        if key:
            sent.append((b"idempotency-key", key.encode()))
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        return await AsgiCaller(self.app, who, kind, tuple(sent), fingerprint=f"fp-{who}").request(
            method, f"/admin/v1{path}", raw
        )

    async def get(self, who: str, path: str) -> Any:
        reply = await self.call(who, "GET", path)
        assert reply.status == 200, reply
        return json.loads(reply.body)


def site(
    *, verifier: TokenVerifier | None = None, groups: dict[str, tuple[Grant, ...]] | None = None, needed: int = 1
) -> Site:
    clock = VirtualClock()
    policies = {"second": policy(2, 100.0), "third": policy(3), "same": policy(1)}
    desk = MemoryDesk(clock=clock, present=policy(), policies=policies)
    for number in range(6):
        made = record(number, "acme", "a1", "a2") if number % 2 else record(number, "beta", "b1", "b2")
        desk.keys[made.key_id] = made
    desk.keys[key_id(9)] = record(9, "acme", "a2", "a2x")
    desk.consumers[key_id(1)] = [Use(key_id(1), "a1", "tunnel-1", 5.0)]
    administration = MemoryAdministration(desk)
    roll = Roll(by_name=PEOPLE, by_group=groups or {})
    control = DualControl(clock=clock, entropy=SystemEntropy(), needed=needed, ttl_s=3600.0)
    sink = Ears()
    door = Door(roll=roll, verifier=verifier)
    app = admin_app(administration, door, control, limits=Limits(), sink=sink, clock=clock)
    return Site(desk, administration, app, clock, sink)
