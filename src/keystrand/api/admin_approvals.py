"""Handlers of the administration API for what one person asks for and others approve: who may see a proposal, who has a word
on it, and what its last approval does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Final

import msgspec

from keystrand.api import admin_forms as forms
from keystrand.api.admin_call import Call, Result
from keystrand.api.admin_desk import Declined, Desk, Order
from keystrand.api.admin_reads import etag_of
from keystrand.api.admin_scopes import CHANGE_OF, scope_of
from keystrand.core.register import Scope
from keystrand.govern.approval import Proposal, Stand, UnknownProposal
from keystrand.govern.roles import Operation as Op
from keystrand.govern.roles import Principal
from keystrand.kme.change import Emergency


class PolicyContent(forms.Form, frozen=True, kw_only=True):
    """What a proposal for a policy says. base: ETag of the policy that it replaces."""

    document: str
    emergency: bool
    base: str


class TenantContent(forms.Form, frozen=True, kw_only=True):
    """What a proposal about a tenant's keys says."""

    tenant: str


class RootContent(forms.Form, frozen=True, kw_only=True):
    """What a proposal for another root key says. key_label: its name in the HSM; "" for a passphrase."""

    key_label: str


class SiteContent(forms.Form, frozen=True, kw_only=True):
    """What a proposal to let a site relay again says."""

    site: str


class WindowContent(forms.Form, frozen=True, kw_only=True):
    """What a proposal to begin maintenance in spite of a shortfall says."""

    window_id: str


@dataclass(frozen=True, slots=True)
class Kind:
    """What can be proposed. reads: the operation that lets one see it; reach: whether a principal reaches what it is about."""

    reads: Op
    reach: Callable[[Principal, Op, Proposal], bool]
    execute: Callable[[Desk, Proposal], Result]


# proposing -----------------------------------------------------------------------------------------------------------


def propose(desk: Desk, call: Call, operation: Op, content: forms.Form, needed: int = 0) -> Result:
    """needed: more approvals than usual."""
    proposal = call.control.propose(
        desk,
        operation,
        forms.encode(content).decode(),
        requester=call.principal.name,
        over=call.principal.over,
        reason=call.body.reason,
        needed=needed,
    )
    _record(desk, "approval.proposed", proposal, call)
    return Result(status=202, form=proposal_facts(proposal))


def _record(desk: Desk, kind: str, proposal: Proposal, call: Call) -> None:
    desk.record(
        kind,
        proposal_id=proposal.proposal_id,
        operation=proposal.operation.value,
        requester=proposal.requester,
        approved_by=list(proposal.approved_by),
        needed=proposal.needed,
        content=sha256(proposal.content.encode()).hexdigest(),
        actor=call.principal.name,
        reason=call.body.reason,
    )


def proposal_facts(proposal: Proposal, moved: int = 0) -> forms.ProposalFacts:
    return forms.ProposalFacts.of(
        proposal,
        operation=proposal.operation.value,
        approved_by=list(proposal.approved_by),
        stand=proposal.stand.value,
        moved=moved,
    )


# seeing and deciding ---------------------------------------------------------------------------------------------------


def approvals(desk: Desk, call: Call) -> Result:
    now_s = call.clock.now_s()
    shown = [
        proposal_facts(replace(proposal, stand=proposal.stand_at(now_s)))
        for proposal in desk.proposals()
        if _may_see(call, proposal)
    ]
    return Result(form=forms.ProposalTable(approvals=shown))


def approval(desk: Desk, call: Call) -> Result:
    return Result(form=proposal_facts(_found(desk, call)))


def _may_see(call: Call, proposal: Proposal) -> bool:
    """Whoever could not have asked for it, or read of such things, has no part in it."""
    kind = KINDS[proposal.operation]
    return kind.reach(call.principal, kind.reads, proposal)


def _found(desk: Desk, call: Call) -> Proposal:
    proposal = call.control.get(desk, call.path["proposal_id"])
    if not _may_see(call, proposal):
        raise UnknownProposal("no such proposal")
    return proposal


def _decidable(desk: Desk, call: Call) -> Proposal:
    """Only who might do the thing itself has a word on it."""
    proposal = _found(desk, call)
    if not KINDS[proposal.operation].reach(call.principal, proposal.operation, proposal):
        raise UnknownProposal("no such proposal")
    return proposal


def reject(desk: Desk, call: Call) -> Result:
    proposal = call.control.reject(desk, _decidable(desk, call).proposal_id, call.principal.name)
    _record(desk, "approval.rejected", proposal, call)
    return Result(form=proposal_facts(proposal))


def approve(desk: Desk, call: Call) -> Result:
    who = call.principal
    proposal = call.control.approve(desk, _decidable(desk, call).proposal_id, who.name, who.over)
    _record(desk, "approval.granted", proposal, call)
    if proposal.stand is not Stand.EXECUTED:
        return Result(form=proposal_facts(proposal))
    _record(desk, "approval.executed", proposal, call)
    return KINDS[proposal.operation].execute(desk, proposal)


def actor_of(proposal: Proposal) -> str:
    """Who did it, for records: the one who asked, and those who approved."""
    return f"{proposal.requester} (approved by {', '.join(proposal.approved_by)})"[:256]


# what is done ----------------------------------------------------------------------------------------------------------


def _change_policy(desk: Desk, proposal: Proposal) -> Result:
    wish = msgspec.json.decode(proposal.content, type=PolicyContent)
    if wish.base != etag_of(desk.policy()):
        raise Declined(409, "another policy came into force since this was proposed", hint="reject it, propose again")
    emergency = Emergency(actor=actor_of(proposal), reason=proposal.reason) if wish.emergency else None
    changed = desk.set_policy(wish.document, actor=actor_of(proposal), emergency=emergency)
    return Result(form=proposal_facts(proposal, changed))


def _change_keys(desk: Desk, proposal: Proposal) -> Result:
    return _change_page(proposal, 0, _selection(proposal).cursor, desk)


def _change_page(proposal: Proposal, before: int, cursor: str, desk: Desk) -> Result:
    """One page of keys; the others follow, each in a transaction of its own."""
    done = desk.change(
        CHANGE_OF[proposal.operation],
        scope_of(_selection(proposal)),
        actor=actor_of(proposal),
        reason=proposal.reason,
        cursor=cursor,
    )
    moved = before + len(done.records)
    then = partial(_change_page, proposal, moved, done.cursor) if done.cursor else None
    return Result(form=proposal_facts(proposal, moved), then=then)


def _order(proposal: Proposal, *, tenant: str = "", key_label: str = "") -> Result:
    order = Order(
        operation=proposal.operation,
        actor=actor_of(proposal),
        reason=proposal.reason,
        tenant=tenant,
        key_label=key_label,
    )
    return Result(form=proposal_facts(proposal), order=order)


def _order_tenant(desk: Desk, proposal: Proposal) -> Result:
    return _order(proposal, tenant=msgspec.json.decode(proposal.content, type=TenantContent).tenant)


def _order_root(desk: Desk, proposal: Proposal) -> Result:
    return _order(proposal, key_label=msgspec.json.decode(proposal.content, type=RootContent).key_label)


def _force_window(desk: Desk, proposal: Proposal) -> Result:
    window_id = msgspec.json.decode(proposal.content, type=WindowContent).window_id
    desk.begin_window(window_id, actor=actor_of(proposal), reason=proposal.reason, short=True)
    return Result(form=proposal_facts(proposal))


def _admit_site(desk: Desk, proposal: Proposal) -> Result:
    site = msgspec.json.decode(proposal.content, type=SiteContent).site
    desk.admit_site(site, actor=actor_of(proposal), reason=proposal.reason)
    return Result(form=proposal_facts(proposal))


# the kinds -------------------------------------------------------------------------------------------------------------


def _selection(proposal: Proposal) -> forms.Selection:
    return msgspec.json.decode(proposal.content, type=forms.Selection)


def _reaches_all(principal: Principal, operation: Op, proposal: Proposal) -> bool:
    return principal.permits(operation)


def _reaches_keys(principal: Principal, operation: Op, proposal: Proposal) -> bool:
    return principal.reaches_scope(operation, scope_of(_selection(proposal)))


def _reaches_tenant(principal: Principal, operation: Op, proposal: Proposal) -> bool:
    tenant = msgspec.json.decode(proposal.content, type=TenantContent).tenant
    return principal.reaches_scope(operation, Scope(tenant=tenant))


KINDS: Final[Mapping[Op, Kind]] = {
    Op.POLICY_CHANGE: Kind(Op.POLICY_READ, _reaches_all, _change_policy),
    Op.KEYS_COMPROMISE: Kind(Op.KEYS_READ, _reaches_keys, _change_keys),
    Op.KEYS_DESTROY: Kind(Op.KEYS_READ, _reaches_keys, _change_keys),
    Op.TENANTS_UNSEAL: Kind(Op.TENANTS_READ, _reaches_tenant, _order_tenant),
    Op.TENANTS_ERASE: Kind(Op.TENANTS_READ, _reaches_tenant, _order_tenant),
    Op.NETWORK_ADMIT: Kind(Op.NETWORK_READ, _reaches_all, _admit_site),
    Op.MAINTENANCE_FORCE: Kind(Op.NETWORK_READ, _reaches_all, _force_window),
    Op.ROOT_ROTATE: Kind(Op.POLICY_READ, _reaches_all, _order_root),
}
