"""Dual control: an operation that one person asks for and others must approve before it happens, once, in time.

A proposal holds what is to be done, word for word; what was approved is what is done. Nobody approves what they proposed,
nobody approves twice, one rejection ends it, and so does its time. A person is known by two names: whom a token or a
certificate speaks for, and whom the certificate of the connection names; with either in common, two are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

from keystrand.core.clock import Clock, Entropy, new_uuid
from keystrand.core.errors import BadRequest, IllegalTransition, NotPermitted, UnknownKey
from keystrand.core.identity import marks
from keystrand.govern.roles import Operation

PENDING_MAX: Final = 100
REASON_MAX: Final = 256


class Stand(StrEnum):
    """Where a proposal stands."""

    PENDING = "pending"
    EXECUTED = "executed"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """content: what is to be done, in the form that the edge gave it. needed: approvals beside the requester's word.

    requested_over, approved_over: whom the certificates of their connections name, in the order of approved_by.
    """

    proposal_id: str
    operation: Operation
    content: str
    requester: str
    reason: str
    needed: int
    created_s: float
    expires_s: float
    approved_by: tuple[str, ...] = ()
    requested_over: str = ""
    approved_over: tuple[str, ...] = ()
    stand: Stand = Stand.PENDING
    closed_by: str = ""

    @property
    def is_approved(self) -> bool:
        return len(self.approved_by) >= self.needed

    def stand_at(self, now_s: float) -> Stand:
        """What it is now: time ends it without anybody's doing."""
        return Stand.EXPIRED if self.stand is Stand.PENDING and now_s >= self.expires_s else self.stand


class Proposals(Protocol):
    """Where proposals are kept, in the transaction of the caller; one who is gone may be forgotten by then."""

    def get_proposal(self, proposal_id: str) -> Proposal | None: ...
    def put_proposal(self, proposal: Proposal) -> None: ...
    def proposals(self) -> Sequence[Proposal]: ...  # all that are kept, oldest first


class UnknownProposal(UnknownKey):
    """No such proposal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DualControl:
    """The rules. needed: approvals beside the requester's; ttl_s: how long a proposal waits."""

    clock: Clock
    entropy: Entropy
    needed: int = 1
    ttl_s: float = 86_400.0

    def __post_init__(self) -> None:
        if self.needed < 1 or self.ttl_s <= 0:
            raise ValueError("dual control needs at least one approval and some time")

    def propose(
        self,
        kept: Proposals,
        operation: Operation,
        content: str,
        *,
        requester: str,
        reason: str,
        over: str = "",
        needed: int = 0,
    ) -> Proposal:
        """over: whom the requester's certificate names; needed: more approvals than usual. Raises BadRequest."""
        _check_reason(reason)
        now_s = self.clock.now_s()
        waiting = [p for p in kept.proposals() if p.stand_at(now_s) is Stand.PENDING]
        if len(waiting) >= PENDING_MAX:
            raise BadRequest(f"{len(waiting)} proposals wait already", hint="decide some of them first")
        proposal = Proposal(
            proposal_id=new_uuid(self.entropy),
            operation=operation,
            content=content,
            requester=requester,
            requested_over=over,
            reason=reason,
            needed=max(self.needed, needed),
            created_s=now_s,
            expires_s=now_s + self.ttl_s,
        )
        kept.put_proposal(proposal)
        return proposal

    def get(self, kept: Proposals, proposal_id: str) -> Proposal:
        """As it stands now. Raises UnknownProposal."""
        proposal = kept.get_proposal(proposal_id)
        if proposal is None:
            raise UnknownProposal("no such proposal")
        return replace(proposal, stand=proposal.stand_at(self.clock.now_s()))

    def approve(self, kept: Proposals, proposal_id: str, approver: str, over: str = "") -> Proposal:
        """One more approval; where it was the last one, the proposal is executed: do it now, in the same transaction.

        Raises NotPermitted for the requester, IllegalTransition for a second approval and a proposal that is closed.
        """
        proposal = self._open(kept, proposal_id)
        person = marks(approver, over)
        if person & marks(proposal.requester, proposal.requested_over):
            raise NotPermitted("nobody approves what they proposed")
        if person & marks(*proposal.approved_by, *proposal.approved_over):
            raise IllegalTransition("you have approved this already")
        proposal = replace(
            proposal,
            approved_by=(*proposal.approved_by, approver),
            approved_over=(*proposal.approved_over, over),
        )
        if proposal.is_approved:
            proposal = replace(proposal, stand=Stand.EXECUTED, closed_by=approver)
        kept.put_proposal(proposal)
        return proposal

    def reject(self, kept: Proposals, proposal_id: str, by: str) -> Proposal:
        """The end of it; the requester takes it back the same way. Raises IllegalTransition for one that is closed."""
        proposal = replace(self._open(kept, proposal_id), stand=Stand.REJECTED, closed_by=by)
        kept.put_proposal(proposal)
        return proposal

    def _open(self, kept: Proposals, proposal_id: str) -> Proposal:
        proposal = self.get(kept, proposal_id)
        if proposal.stand is not Stand.PENDING:
            raise IllegalTransition(f"the proposal is {proposal.stand.value}")
        return proposal


def _check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > REASON_MAX:
        raise BadRequest(f"reason shall be 1 to {REASON_MAX} characters")
