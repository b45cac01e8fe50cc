"""What stands behind the administration API: one desk per call, inside one transaction of the site's store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from keystrand.core.errors import BadRequest
from keystrand.core.policy import Policy
from keystrand.core.register import KeyRecord, Scope, Tally, Use
from keystrand.core.secret import Secret
from keystrand.core.states import Change
from keystrand.crypto.keyring import TenantState
from keystrand.govern.approval import Proposals
from keystrand.govern.roles import Operation
from keystrand.kme.change import Emergency
from keystrand.kme.jobs import JobStatus
from keystrand.kme.lifecycle import Affected, Page
from keystrand.kme.ports import AuditValue
from keystrand.observe.alarms import Alarm
from keystrand.observe.gauges import Gauges
from keystrand.relay.maintenance import RelayedStand, WindowStand

T = TypeVar("T")


class Declined(BadRequest):
    """A refusal with a status of its own."""

    def __init__(self, status: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """The answer to a mutation, kept for repetitions. digest: SHA-256 of what was asked, hex."""

    digest: str
    status: int
    body: bytes
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    name: str
    kme_id: str
    epoch: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is done beside the engine, as it may wait for an HSM. operation: which of those that change what seals a site."""

    operation: Operation
    actor: str
    reason: str
    tenant: str = ""
    key_label: str = ""
    escrow_id: str = ""
    secret: Secret | None = field(default=None, repr=False, compare=False)


class Desk(Proposals, Protocol):
    """Everything an administrator may see and do, before anybody asks whether they may. Errors are those of core.errors."""

    def site(self) -> SiteFacts: ...
    def gauges(self) -> Gauges: ...
    def alarms(self) -> Sequence[Alarm]: ...
    def config(self) -> Mapping[str, object]: ...  # redacted

    def policy(self) -> Policy: ...
    def read_policy(self, document: str) -> Policy: ...  # raises BadRequest with each fault
    def set_policy(self, document: str, *, actor: str, emergency: Emergency | None) -> int: ...  # pairs that change

    def key(self, key_id: str) -> KeyRecord: ...  # raises UnknownKey
    def find(self, scope: Scope, *, cursor: str, limit: int) -> Page: ...
    def tally(self, scope: Scope) -> Sequence[Tally]: ...
    def uses(self, key_id: str) -> Sequence[Use]: ...
    def try_change(self, change: Change, scope: Scope, *, cursor: str) -> Affected: ...  # changes nothing
    def change(self, change: Change, scope: Scope, *, actor: str, reason: str, cursor: str) -> Affected: ...

    def tenant_states(self) -> Sequence[TenantState]: ...  # of those with a key of their own
    def check_root(self, key_label: str) -> None: ...  # raises BadRequest where the root key cannot be rotated so

    def relayed(self) -> Sequence[RelayedStand]: ...  # links that begin here
    def barred(self) -> Collection[str]: ...  # sites over which nothing goes
    def bar_site(self, site: str, *, actor: str, reason: str) -> None: ...  # raises UnknownKey
    def admit_site(self, site: str, *, actor: str, reason: str) -> None: ...
    def windows(self) -> Sequence[WindowStand]: ...
    def plan_window(self, neighbour: str, from_s: float, until_s: float, *, actor: str, reason: str) -> str: ...
    def begin_window(self, window_id: str, *, actor: str, reason: str, short: bool) -> None: ...  # IllegalTransition
    def end_window(self, window_id: str, *, actor: str, reason: str) -> None: ...

    def jobs(self) -> Sequence[JobStatus]: ...
    def run_job(self, name: str) -> JobStatus: ...  # raises KeyError

    def audit_size(self) -> int: ...
    def audit_rows(self, first: int, limit: int) -> Sequence[tuple[int, bytes, bytes]]: ...
    def checkpoints(self, first: int) -> Sequence[tuple[int, str]]: ...
    def record(self, kind: str, **fields: AuditValue) -> int: ...

    def remembered(self, who: str, key: str) -> Remembered | None: ...
    def remember(self, who: str, key: str, answer: Remembered) -> None: ...


class Administration(Protocol):
    async def act(self, operation: Callable[[Desk], T], /) -> T:
        """Run it in one transaction; what it did is durable when this returns. What it raises has changed nothing."""
        ...

    async def carry_out(self, order: Order, /) -> None:
        """Do it, recorded first. Raises Unavailable where the HSM does not answer; then nothing was changed."""
        ...
