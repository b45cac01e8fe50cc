"""The administration of a running site: one desk per call, in one transaction of its engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from keystrand.api.admin import REMEMBERED_S, admin_app
from keystrand.api.admin_auth import Door, Roll
from keystrand.api.admin_desk import Desk, Order, Remembered, SiteFacts
from keystrand.api.oidc import OidcVerifier, Provider
from keystrand.config.admin import Admin, AdminOidc
from keystrand.config.document import read_document
from keystrand.config.schema import SiteConfig
from keystrand.core.clock import Clock, SystemEntropy
from keystrand.core.errors import BadRequest, ConfigError, KeystrandError, NotPermitted
from keystrand.core.events import Sink
from keystrand.core.policy import Policy
from keystrand.core.protection import Protection
from keystrand.core.register import KeyRecord, Scope, Tally, Use
from keystrand.core.states import Change
from keystrand.crypto.jose import TokenTerms
from keystrand.crypto.keyring import TenantState
from keystrand.govern.approval import DualControl, Proposal
from keystrand.govern.roles import Operation
from keystrand.kme.change import Emergency
from keystrand.kme.jobs import JobStatus
from keystrand.kme.lifecycle import Affected, Page
from keystrand.kme.ports import AuditValue
from keystrand.kme.service import Kme
from keystrand.net.http_server import HttpServer
from keystrand.net.https import fetch
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.beside import Beside
from keystrand.node.engine import Engine
from keystrand.node.maintenance import Upkeep
from keystrand.node.roots import check_rotation
from keystrand.node.tenants import Tenants, require_one_process
from keystrand.observe.alarms import Alarm
from keystrand.observe.feed import Feed
from keystrand.observe.gauges import Gauges
from keystrand.relay.maintenance import RelayedStand, WindowStand
from keystrand.store.sql import SqlStore

T = TypeVar("T")
PROPOSALS_KEPT_S: Final = 30 * 86_400.0
_SECRET_PLACES: Final = re.compile(r"(key|pin|passphrase|secret|password)(_file|s)?$|^file$")
_LOGIN: Final = re.compile(r"://[^/@]*@")


def policy_in_force(config: SiteConfig, store: SqlStore, now_s: float) -> Policy:
    """That of the file, or a later one that came into force while the site ran.

    Raises ConfigError for another policy than the one that was in force under the same number: in a record or a report that
    number would then mean two.
    """
    policy = _latest(config, store, now_s)
    serial, _, digest = (store.papers.get("policy", "number") or "0").partition(" ")
    if int(serial) == policy.serial and digest != policy.digest:
        raise ConfigError(
            f"the policy has changed, and still has the number {serial} of the one that was in force",
            hint=f"raise policy_serial in [site] to {policy.serial + 1}, or take the change back",
        )
    return policy


def keep_number(store: SqlStore, policy: Policy, now_s: float) -> None:
    """Which policy is in force, for the next start; in a transaction."""
    store.papers.put("policy", "number", now_s, f"{policy.serial} {policy.digest}")


def _latest(config: SiteConfig, store: SqlStore, now_s: float) -> Policy:
    stated, kept = config.rules(), store.papers.get("policy", "present")
    if kept is None:
        return stated
    try:
        later = read_document(config, kept, now_s)
    except BadRequest:
        return stated  # a waiver in it has ended, say: the file is what the operator can see and mend
    return later if later.serial > stated.serial else stated


@dataclass(slots=True)
class PolicyPaper:
    """Takes up a policy that came into force at another replica of the site; to be looked at once a second."""

    config: SiteConfig
    store: SqlStore
    _seen: str | None = field(default=None, init=False)

    def follow(self, kme: Kme) -> Policy | None:
        """The policy, where it is a later one than the service has. In a transaction."""
        kept = self.store.papers.get("policy", "present")
        if kept is None or kept == self._seen:
            return None
        self._seen = kept
        try:
            policy = read_document(self.config, kept, kme.site.clock.now_s())
        except BadRequest:
            return None
        if policy.serial <= kme.site.policy.serial:
            return None
        try:
            kme.set_policy(policy, actor="replica")
        except NotPermitted:  # it was let in outside of the windows there
            emergency = Emergency(actor="replica", reason="in force at another replica already")
            kme.set_policy(policy, actor="replica", emergency=emergency)
        return policy


@dataclass(frozen=True, slots=True)
class Place:
    """What a desk needs beside the KME. gauges: reads the site, inside the engine. beside: jobs that run beside it."""

    config: SiteConfig
    store: SqlStore
    clock: Clock
    feed: Feed
    gauges: Callable[[Kme], Gauges]
    beside: tuple[Beside, ...] = ()
    upkeep: Upkeep | None = None


@dataclass(slots=True)
class EngineDesk:
    """Satisfies api.admin_desk.Desk, within one transaction. replaced: the policy that came into force."""

    kme: Kme
    place: Place
    replaced: Policy | None = field(default=None, init=False)

    def site(self) -> SiteFacts:
        site, now_s = self.kme.site, self.place.clock.now_s()
        return SiteFacts(name=site.name, kme_id=site.kme_id, epoch=site.store.epoch(), at_s=now_s)

    def gauges(self) -> Gauges:
        return self.place.gauges(self.kme)

    def alarms(self) -> Sequence[Alarm]:
        told = self.place.feed.snapshot(2**62)["alarms"]
        return [Alarm(**{field.name: alarm[field.name] for field in fields(Alarm)}) for alarm in told]

    def config(self) -> Mapping[str, object]:
        return redacted(self.place.config)

    # policy

    def policy(self) -> Policy:
        return self.kme.site.policy

    def read_policy(self, document: str) -> Policy:
        return read_document(self.place.config, document, self.place.clock.now_s())

    def set_policy(self, document: str, *, actor: str, emergency: Emergency | None) -> int:
        policy = self.read_policy(document)
        if policy.serial <= self.policy().serial:
            raise BadRequest(f"policy_serial shall be above {self.policy().serial}")
        self.place.store.papers.put("policy", "present", self.place.clock.now_s(), document)
        changed = self.kme.set_policy(policy, actor=actor, emergency=emergency)
        keep_number(self.place.store, policy, self.place.clock.now_s())
        self.replaced = policy
        return changed

    # keys and jobs

    def key(self, key_id: str) -> KeyRecord:
        return self.kme.lifecycle.get(key_id)

    def find(self, scope: Scope, *, cursor: str, limit: int) -> Page:
        return self.kme.lifecycle.find(scope, cursor=cursor, limit=limit)

    def tally(self, scope: Scope) -> Sequence[Tally]:
        return self.kme.lifecycle.tally(scope)

    def uses(self, key_id: str) -> Sequence[Use]:
        return self.kme.site.store.register.uses(key_id)

    def try_change(self, change: Change, scope: Scope, *, cursor: str) -> Affected:
        return self.kme.lifecycle.trial(change, scope, cursor=cursor)

    def change(self, change: Change, scope: Scope, *, actor: str, reason: str, cursor: str) -> Affected:
        upkeep, relay = self.place.upkeep, scope.relay
        if change is Change.COMPROMISE and relay and upkeep is not None and relay not in upkeep.barred():
            upkeep.bar(self.kme.site, relay, actor=actor, reason=reason)  # else the next blocks would go over it
        return self.kme.lifecycle.change(change, scope, actor=actor, reason=reason, cursor=cursor)

    # what seals the site

    def tenant_states(self) -> Sequence[TenantState]:
        sealer = self.place.store.sealer
        return sealer.tenants.states() if sealer.has_keyring else ()

    def check_root(self, key_label: str) -> None:
        require_one_process(self.place.config)
        try:
            check_rotation(self.place.config, key_label)
        except ConfigError as error:
            raise BadRequest(str(error), hint=error.hint) from None

    # the network

    def relayed(self) -> Sequence[RelayedStand]:
        return self.place.upkeep.relayed() if self.place.upkeep else ()

    def barred(self) -> Collection[str]:
        return self.place.upkeep.barred() if self.place.upkeep else ()

    def bar_site(self, site: str, *, actor: str, reason: str) -> None:
        self._upkeep().bar(self.kme.site, site, actor=actor, reason=reason)

    def admit_site(self, site: str, *, actor: str, reason: str) -> None:
        self._upkeep().admit(self.kme.site, site, actor=actor, reason=reason)

    def windows(self) -> Sequence[WindowStand]:
        return self.place.upkeep.stands() if self.place.upkeep else ()

    def plan_window(self, neighbour: str, from_s: float, until_s: float, *, actor: str, reason: str) -> str:
        upkeep = self._upkeep()
        return upkeep.plan(
            self.kme.site, neighbour=neighbour, from_s=from_s, until_s=until_s, actor=actor, reason=reason
        )

    def begin_window(self, window_id: str, *, actor: str, reason: str, short: bool) -> None:
        self._upkeep().begin(self.kme.site, window_id, actor=actor, reason=reason, short=short)

    def end_window(self, window_id: str, *, actor: str, reason: str) -> None:
        self._upkeep().end(self.kme.site, window_id, actor=actor, reason=reason)

    def _upkeep(self) -> Upkeep:
        if self.place.upkeep is None:
            raise BadRequest("this site is in no network", hint="[relay] in its file names one")
        return self.place.upkeep

    def jobs(self) -> Sequence[JobStatus]:
        return (*self.kme.jobs.status(), *(job.status for job in self.place.beside))

    def run_job(self, name: str) -> JobStatus:
        for job in self.place.beside:
            if job.status.name == name:
                job.wake()  # it waits for others, so nobody waits for it here
                return job.status
        return self.kme.jobs.run(name)

    # the log

    def audit_size(self) -> int:
        return self.place.store.audit_head()[0]

    def audit_rows(self, first: int, limit: int) -> Sequence[tuple[int, bytes, bytes]]:
        return self.place.store.audit_rows(first, limit)

    def checkpoints(self, first: int) -> Sequence[tuple[int, str]]:
        return self.place.store.checkpoints(first)

    def record(self, kind: str, **fields: AuditValue) -> int:
        return self.kme.site.record(kind, **fields)

    # papers

    def get_proposal(self, proposal_id: str) -> Proposal | None:
        kept = self.place.store.papers.get("proposal", proposal_id)
        return None if kept is None else msgspec.json.decode(kept, type=Proposal)

    def put_proposal(self, proposal: Proposal) -> None:
        papers = self.place.store.papers
        papers.put("proposal", proposal.proposal_id, proposal.created_s, msgspec.json.encode(proposal).decode())
        papers.drop_before("proposal", self.place.clock.now_s() - PROPOSALS_KEPT_S)

    def proposals(self) -> Sequence[Proposal]:
        return [msgspec.json.decode(kept, type=Proposal) for kept in self.place.store.papers.all("proposal")]

    def remembered(self, who: str, key: str) -> Remembered | None:
        kept = self.place.store.papers.get("answer", f"{who} {key}")
        return None if kept is None else msgspec.json.decode(kept, type=Remembered)

    def remember(self, who: str, key: str, answer: Remembered) -> None:
        papers = self.place.store.papers
        papers.put("answer", f"{who} {key}", answer.at_s, msgspec.json.encode(answer).decode())
        papers.drop_before("answer", self.place.clock.now_s() - REMEMBERED_S)


@dataclass(frozen=True, slots=True)
class EngineAdministration:
    """Satisfies api.admin_desk.Administration. adopt: hears of a policy once it is durable."""

    engine: Engine
    place: Place
    adopt: Callable[[Policy], None]

    async def act(self, operation: Callable[[Desk], T], /) -> T:
        value, policy = await self.engine.call(partial(self._within, operation))
        if policy is not None:
            self.adopt(policy)
        return value

    async def carry_out(self, order: Order, /) -> None:
        orders = Tenants(self.place.config, self.engine, self.place.store.sealer)
        who = {"actor": order.actor, "reason": order.reason}
        match order.operation:
            case Operation.TENANTS_SEAL:
                await orders.seal(order.tenant, **who)
            case Operation.TENANTS_UNSEAL:
                await orders.unseal(order.tenant, **who)
            case Operation.TENANTS_ROTATE:
                await orders.rotate(order.tenant, **who)
            case Operation.TENANTS_ERASE:
                await orders.erase(order.tenant, **who)
            case Operation.ROOT_ROTATE:
                await orders.rotate_root(order.key_label, **who)
            case Operation.ESCROW_GIVE:
                assert order.secret is not None
                await orders.restore(order.tenant, order.secret, escrow_id=order.escrow_id, **who)
            case _:
                raise KeystrandError(f"{order.operation} is no order")

    def _within(self, operation: Callable[[Desk], T], kme: Kme) -> tuple[T, Policy | None]:
        desk = EngineDesk(kme, self.place)
        try:
            return operation(desk), desk.replaced
        except KeystrandError:
            raise
        except Exception as error:  # a fault of ours in one call must not end the engine, which serves everybody
            raise KeystrandError(f"administration failed: {type(error).__name__}") from error


def redacted(config: SiteConfig) -> dict[str, object]:
    """The configuration as plain values, without the places of secrets; the policy has a route of its own."""
    plain: dict[str, Any] = msgspec.to_builtins(config, enc_hook=str)
    for name in ("policy", "saes", "tenants", "tagging", "change_windows"):
        plain.pop(name, None)
    return {name: _without_secrets(name, value) for name, value in plain.items()}


def _without_secrets(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {str(inner): _without_secrets(str(inner), below) for inner, below in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(name, below) for below in value]
    if isinstance(value, Protection):
        return value.label
    if isinstance(value, str) and name != "audit_key" and _SECRET_PLACES.search(name):
        return "redacted" if name != "root_key" else value
    return _LOGIN.sub("://redacted@", value) if isinstance(value, str) else value


def roll_of(admin: Admin | None) -> Roll:
    """Who may do what, as the file says."""
    return Roll(by_name={}, by_group={}) if admin is None else Roll(by_name=admin.by_name(), by_group=admin.by_group())


async def serve_admin(
    place: Place, engine: Engine, sink: Sink, adopt: Callable[[Policy], None], roll: Roll
) -> list[HttpServer]:
    """The listener, where the file asks for it. Raises ConfigError, also where the identity provider cannot be used."""
    config, admin = place.config, place.config.admin
    if admin is None:
        return []
    verifier = None
    if admin.oidc is not None:
        verifier = _verifier(admin.oidc, place.clock)
        await verifier.start()
    door = Door(roll=roll, verifier=verifier)
    control = DualControl(
        clock=place.clock, entropy=SystemEntropy(), needed=admin.approvals, ttl_s=admin.approval_ttl_s
    )
    administration = EngineAdministration(engine, place, adopt)
    app = admin_app(administration, door, control, limits=config.limits, sink=sink, clock=place.clock)
    contexts = _contexts(config, admin, sink)
    server = HttpServer(app, admin.listen.host, admin.listen.port, contexts=contexts, limits=config.limits)
    await server.start()
    return [server]


def _contexts(config: SiteConfig, admin: Admin, sink: Sink) -> TlsContexts:
    tls = config.tls
    trust, revoked = (tls.trust, tls.revoked) if admin.trust is None else (admin.trust, admin.revoked)
    files = TlsFiles(tls.certificate, tls.private_key, trust, revoked)
    policy = TlsPolicy(minimum="1.3", require_pqc_group=tls.require_pqc_group)
    return TlsContexts(files, policy, rule="san-uri", sink=sink)


def _verifier(section: AdminOidc, clock: Clock) -> OidcVerifier:
    terms = TokenTerms(
        issuer=section.issuer,
        audience=section.audience,
        parties=frozenset(section.clients),
        leeway_s=section.leeway_s,
        lifetime_s_max=section.lifetime_s,
    )
    provider = Provider(
        terms=terms, name_claim=section.name_claim, groups_claim=section.groups_claim, bound=section.bound
    )
    return OidcVerifier(provider, lambda url: fetch(url, section.trust), clock)
