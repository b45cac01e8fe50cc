"""A site in memory behind the administration API: keys that only have records, a log that is a list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, TypeVar

from keystrand.api.admin_desk import Desk, Order, Remembered, SiteFacts
from keystrand.core.clock import Clock
from keystrand.core.errors import BadRequest, IllegalTransition, UnknownKey
from keystrand.core.policy import Policy
from keystrand.core.pool import Account
from keystrand.core.register import KeyRecord, Scope, Tally, Use, tallied
from keystrand.core.states import Change, advance, sources
from keystrand.crypto.keyring import TenantState
from keystrand.govern.approval import Proposal
from keystrand.govern.roles import Operation
from keystrand.kme.change import Emergency
from keystrand.kme.jobs import JobStatus
from keystrand.kme.lifecycle import Affected, Page, cursor_of, place_of
from keystrand.kme.ports import AuditValue
from keystrand.observe.alarms import Alarm
from keystrand.observe.audit import GENESIS, canonical, link
from keystrand.observe.gauges import AuditGauge, Gauges, LinkGauge, PeerGauge
from keystrand.relay.maintenance import Check, RelayedStand, WindowStand
from keystrand.wire.relay import Window

T = TypeVar("T")
PAGE_MAX = 1000


class MemoryProposals:
    """Satisfies govern.approval.Proposals."""

    def __init__(self) -> None:
        self.kept: dict[str, Proposal] = {}

    def get_proposal(self, proposal_id: str) -> Proposal | None:
        return self.kept.get(proposal_id)

    def put_proposal(self, proposal: Proposal) -> None:
        self.kept[proposal.proposal_id] = proposal

    def proposals(self) -> Sequence[Proposal]:
        return list(self.kept.values())


@dataclass
class MemoryDesk(MemoryProposals):
    """Satisfies api.admin_desk.Desk. policies: what each document says; others are refused."""

    clock: Clock
    present: Policy
    policies: Mapping[str, Policy] = field(default_factory=dict)
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    consumers: dict[str, list[Use]] = field(default_factory=dict)
    answers: dict[tuple[str, str], Remembered] = field(default_factory=dict)
    rows: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    table: dict[str, JobStatus] = field(default_factory=lambda: {"expiry": JobStatus("expiry", 1.0)})
    kept: dict[str, Proposal] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    planned: dict[str, WindowStand] = field(default_factory=dict)
    sealed: dict[str, TenantState] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    page_max: int = PAGE_MAX

    def site(self) -> SiteFacts:
        return SiteFacts(name="alpha", kme_id="kme-alpha", epoch=1, at_s=self.clock.now_s())

    def gauges(self) -> Gauges:
        ledger = {account.value: 0 for account in Account}
        return Gauges(
            links=(LinkGauge(link="ab", peer="bravo", state="up", qber=0.02, skr_bps=1e4, ledger=ledger),),
            peers=(PeerGauge(peer="bravo", up=True, since_s=970.0, group="X25519MLKEM768", epoch=1, strand_age_s=3.0),),
            audit=AuditGauge(size=len(self.rows), cosigned_size=0),
        )

    def alarms(self) -> Sequence[Alarm]:
        return [Alarm("warning", "cert", "site", "a certificate expires in 3.0 days")]

    def config(self) -> Mapping[str, object]:
        return {"site": {"name": "alpha", "root_key_file": "redacted"}}

    def policy(self) -> Policy:
        return self.present

    def read_policy(self, document: str) -> Policy:
        if document not in self.policies:
            raise BadRequest("not a policy")
        return self.policies[document]

    def set_policy(self, document: str, *, actor: str, emergency: Emergency | None) -> int:
        self.present = self.read_policy(document)
        self.record("policy.loaded", actor=actor, emergency=emergency is not None)
        return 1

    def key(self, key_id: str) -> KeyRecord:
        if key_id not in self.keys:
            raise UnknownKey(f"no key {key_id}")
        return self.keys[key_id]

    def find(self, scope: Scope, *, cursor: str, limit: int) -> Page:
        found = self._within(scope, cursor)[: min(limit, self.page_max)]
        return Page(tuple(found), cursor_of(found[-1]) if len(found) == min(limit, self.page_max) else "")

    def tally(self, scope: Scope) -> Sequence[Tally]:
        return tallied(self._within(scope, ""))

    def _within(self, scope: Scope, cursor: str) -> list[KeyRecord]:
        after = place_of(cursor)
        made = sorted(self.keys.values(), key=lambda record: (record.created_s, record.key_id))
        later = (record for record in made if after is None or (record.created_s, record.key_id) > after)
        return [record for record in later if scope.covers(record, lambda _: [])]

    def uses(self, key_id: str) -> Sequence[Use]:
        return self.consumers.get(key_id, [])

    def try_change(self, change: Change, scope: Scope, *, cursor: str) -> Affected:
        before = dict(self.keys)
        try:
            return self.change(change, scope, actor="trial", reason="trial", cursor=cursor)
        finally:
            self.keys.clear()
            self.keys.update(before)

    def change(self, change: Change, scope: Scope, *, actor: str, reason: str, cursor: str) -> Affected:
        if scope.key_ids and scope != Scope(key_ids=scope.key_ids):
            raise BadRequest("name keys by their ID, or by other criteria, not both")
        if scope.key_ids:
            found = [self.key(key_id) for key_id in scope.key_ids]
        else:
            within = self._within(scope, cursor)
            found = [record for record in within if record.state in sources(change)][: self.page_max]
        states = [advance(record.state, change) for record in found]
        now_s = self.clock.now_s()
        moved = [
            record._replace(state=state, actor=actor, reason=reason, changed_s=now_s)
            for record, state in zip(found, states, strict=True)
        ]
        self.keys.update({record.key_id: record for record in moved})
        more = not scope.key_ids and len(found) == self.page_max
        uses = tuple(use for record in moved for use in self.uses(record.key_id))
        return Affected(tuple(moved), uses, cursor=cursor_of(found[-1]) if more else "")

    def tenant_states(self) -> Sequence[TenantState]:
        return [self.sealed[name] for name in sorted(self.sealed)]

    def check_root(self, key_label: str) -> None:
        if key_label == "present":
            raise BadRequest("this is the root key already")

    def relayed(self) -> Sequence[RelayedStand]:
        return ()

    def barred(self) -> Collection[str]:
        return self.broken

    def bar_site(self, site: str, *, actor: str, reason: str) -> None:
        self.broken.add(site)
        self.record("relay.barred", actor=actor)

    def admit_site(self, site: str, *, actor: str, reason: str) -> None:
        self.broken.discard(site)
        self.record("relay.admitted", actor=actor)

    def windows(self) -> Sequence[WindowStand]:
        return list(self.planned.values())

    def plan_window(self, neighbour: str, from_s: float, until_s: float, *, actor: str, reason: str) -> str:
        if neighbour == "nowhere":
            raise BadRequest("no hop leads there")
        window = Window(f"00000000-0000-4000-8000-{len(self.planned):012}", neighbour, int(from_s), int(until_s), False)
        check = Check(link="a-c", site="alpha", held_bits=5, needed_bits=9 if neighbour else 0)
        self.planned[window.window_id] = WindowStand(
            window=window, stand="planned", under_way=0, checks=(check,), cut=(), actor=actor, reason=reason
        )
        self.record("maintenance.planned", actor=actor)
        return window.window_id

    def begin_window(self, window_id: str, *, actor: str, reason: str, short: bool) -> None:
        if window_id not in self.planned:
            raise UnknownKey("no such window")
        stand = self.planned[window_id]
        if not short and not all(check.is_ready for check in stand.checks):
            raise IllegalTransition("pools do not suffice for the window")
        self.planned[window_id] = replace(stand, stand="draining")
        self.record("maintenance.draining", actor=actor)

    def end_window(self, window_id: str, *, actor: str, reason: str) -> None:
        del self.planned[window_id]
        self.record("maintenance.ended", actor=actor)

    def jobs(self) -> Sequence[JobStatus]:
        return list(self.table.values())

    def run_job(self, name: str) -> JobStatus:
        job = replace(self.table[name], runs=self.table[name].runs + 1, last_run_s=self.clock.now_s())
        self.table[name] = job
        return job

    def audit_size(self) -> int:
        return len(self.rows)

    def audit_rows(self, first: int, limit: int) -> Sequence[tuple[int, bytes, bytes]]:
        return self.rows[first : first + limit]

    def checkpoints(self, first: int) -> Sequence[tuple[int, str]]:
        return [note for note in self.notes if note[0] >= first]

    def record(self, kind: str, **fields: AuditValue) -> int:
        number = len(self.rows)
        self.records.append({"kind": kind, **fields})
        record = canonical({**fields, "n": number, "at": self.clock.now_s(), "site": "alpha", "kind": kind})
        self.rows.append((number, record, link(self.rows[-1][2] if self.rows else GENESIS, sha256(record).digest())))
        return number

    def remembered(self, who: str, key: str) -> Remembered | None:
        return self.answers.get((who, key))

    def remember(self, who: str, key: str, answer: Remembered) -> None:
        self.answers[who, key] = answer


def _carried_out(state: TenantState, operation: Operation) -> TenantState:
    match operation:
        case Operation.TENANTS_SEAL:
            return replace(state, sealed=True, generation=0)
        case Operation.TENANTS_ROTATE:
            return replace(state, generation=state.generation + 1)
        case _:
            return replace(state, sealed=False, generation=max(1, state.generation))


class MemoryAdministration:
    """Satisfies api.admin_desk.Administration: what raises is taken back. fault: raised by every call while it is set."""

    def __init__(self, desk: MemoryDesk) -> None:
        self.desk = desk
        self.fault: Exception | None = None
        self.unreachable: Exception | None = None  # raised where an order would be carried out

    async def act(self, operation: Callable[[Desk], T], /) -> T:
        if self.fault is not None:
            raise self.fault
        desk = self.desk
        before = desk.present, dict(desk.kept), dict(desk.table), dict(desk.answers), len(desk.rows), len(desk.records)
        keys = dict(desk.keys) if len(desk.keys) < PAGE_MAX else desk.keys
        try:
            return operation(desk)
        except Exception:
            desk.present, desk.kept, desk.table, desk.answers = before[:4]
            del desk.rows[before[4] :], desk.records[before[5] :]
            desk.keys = keys
            raise

    async def carry_out(self, order: Order, /) -> None:
        if self.unreachable is not None:
            raise self.unreachable
        self.desk.orders.append(order)
        if order.operation is Operation.TENANTS_ERASE:
            del self.desk.sealed[order.tenant]
        elif order.tenant:
            before = self.desk.sealed.get(order.tenant, TenantState(tenant=order.tenant, sealed=True, generation=0))
            self.desk.sealed[order.tenant] = _carried_out(before, order.operation)
