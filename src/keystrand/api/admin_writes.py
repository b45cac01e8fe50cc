"""Handlers of the administration API that change something: keys by selection, jobs, policy, and what needs approval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import UNSET

from keystrand.api import admin_forms as forms
from keystrand.api.admin_call import Call, Result
from keystrand.api.admin_desk import Declined, Desk
from keystrand.api.admin_reads import (
    check_reach,
    consumer_facts,
    etag_of,
    find_job,
    job_facts,
    reached,
)
from keystrand.core.errors import BadRequest
from keystrand.core.register import Scope
from keystrand.core.states import Change, State
from keystrand.govern.approval import Proposal, Stand, UnknownProposal
from keystrand.govern.roles import Operation
from keystrand.kme.change import Emergency
from keystrand.kme.lifecycle import Affected

OPERATION: Final = {
    Change.SUSPEND: Operation.KEYS_SUSPEND,
    Change.RESUME: Operation.KEYS_RESUME,
    Change.DEACTIVATE: Operation.KEYS_REVOKE,
    Change.COMPROMISE: Operation.KEYS_COMPROMISE,
    Change.DESTROY: Operation.KEYS_DESTROY,
}
VERBS: Final = {
    "suspend": Change.SUSPEND,
    "resume": Change.RESUME,
    "revoke": Change.DEACTIVATE,
    "compromise": Change.COMPROMISE,
    "destroy": Change.DESTROY,
}
CHANGE_OF: Final = {operation: change for change, operation in OPERATION.items()}
# by criteria, these cannot be taken back and may concern every key of a site: nobody does them alone
DANGEROUS: Final = frozenset({Change.COMPROMISE, Change.DESTROY})
EMERGENCY_APPROVALS: Final = 2


class Wish(forms.Form, frozen=True, kw_only=True):
    """Content of a proposal for a policy. base: ETag of the policy that it replaces."""

    document: str
    emergency: bool
    base: str


# keys ----------------------------------------------------------------------------------------------------------------


def scope_of(selection: forms.Criteria) -> Scope:
    fields = {
        name: value
        for name in ("tenant", "sae", "peer", "link", "source", "since_s", "until_s", "key_ids", "tags")
        if (value := getattr(selection, name)) is not UNSET
    }
    states = frozenset() if selection.states is UNSET else frozenset(State(name) for name in selection.states)
    return Scope(states=states, **fields)


def changing(change: Change) -> Callable[[Desk, Call], Result]:
    """The handler of one change of state."""
    return partial(_change, change)


def _change(change: Change, desk: Desk, call: Call) -> Result:
    scope, operation = scope_of(call.body), OPERATION[change]
    if scope.is_empty:
        raise BadRequest("say which keys: a selection without any criterion means all of them")
    if scope.key_ids:
        for key_id in scope.key_ids:
            reached(desk, call, operation, key_id)
    else:
        check_reach(call, operation, scope)
        if change in DANGEROUS:
            return _propose(desk, call, operation, _encoded(call.body), call.body.reason)
    done = desk.change(change, scope, actor=call.principal.name, reason=call.body.reason, cursor=call.body.cursor)
    return Result(form=affected_facts(done))


def try_change(desk: Desk, call: Call) -> Result:
    """What a change would do; whoever may see these keys may ask."""
    scope, change = scope_of(call.body), VERBS[call.body.change]
    if scope.is_empty:
        raise BadRequest("say which keys: a selection without any criterion means all of them")
    for key_id in scope.key_ids:
        reached(desk, call, Operation.KEYS_READ, key_id)
    if not scope.key_ids:
        check_reach(call, Operation.KEYS_READ, scope)
    return Result(form=affected_facts(desk.try_change(change, scope, cursor=call.body.cursor)))


def affected_facts(done: Affected) -> forms.AffectedKeys:
    pairs = Counter(pair for record in done.records for pair in record.pairs)
    return forms.AffectedKeys(
        key_ids=list(done.key_ids),
        pairs=[forms.PairFacts(initiator=a, responder=b, keys=keys) for (a, b), keys in sorted(pairs.items())],
        consumers=consumer_facts(done.uses),
        given_up=done.given_up,
        quarantined=[forms.BlockFacts(link=link, sequence=number) for link, number in done.quarantined],
        cursor=done.cursor,
    )


def run_job(desk: Desk, call: Call) -> Result:
    name = call.path["job"]
    if find_job(desk, name) is None:
        raise Declined(404, "no such job")
    return Result(form=job_facts(desk.run_job(name)))


# policy --------------------------------------------------------------------------------------------------------------


def propose_policy(desk: Desk, call: Call) -> Result:
    present = etag_of(desk.policy())
    if call.if_match != present:
        raise Declined(412, "another policy is in force than the one that you read", hint="read it again")
    desk.read_policy(call.body.document)
    content = _encoded(Wish(document=call.body.document, emergency=call.body.emergency, base=present))
    needed = EMERGENCY_APPROVALS if call.body.emergency else 0
    return _propose(desk, call, Operation.POLICY_CHANGE, content, call.body.reason, needed)


def _encoded(form: forms.Form) -> str:
    return forms.encode(form).decode()


# approvals -----------------------------------------------------------------------------------------------------------


def _propose(desk: Desk, call: Call, operation: Operation, content: str, reason: str, needed: int = 0) -> Result:
    proposal = call.control.propose(
        desk, operation, content, requester=call.principal.name, reason=reason, needed=needed
    )
    _record(desk, "approval.proposed", proposal, call.principal.name, reason)
    return Result(status=202, form=proposal_facts(proposal))


def _record(desk: Desk, kind: str, proposal: Proposal, actor: str, reason: str) -> None:
    desk.record(
        kind,
        proposal_id=proposal.proposal_id,
        operation=proposal.operation.value,
        requester=proposal.requester,
        approved_by=list(proposal.approved_by),
        needed=proposal.needed,
        content=sha256(proposal.content.encode()).hexdigest(),
        actor=actor,
        reason=reason,
    )


def proposal_facts(proposal: Proposal, moved: int = 0) -> forms.ProposalFacts:
    return forms.ProposalFacts(
        proposal_id=proposal.proposal_id,
        operation=proposal.operation.value,
        content=proposal.content,
        requester=proposal.requester,
        reason=proposal.reason,
        needed=proposal.needed,
        approved_by=list(proposal.approved_by),
        stand=proposal.stand.value,
        closed_by=proposal.closed_by,
        created_s=proposal.created_s,
        expires_s=proposal.expires_s,
        moved=moved,
    )


def _selection(proposal: Proposal) -> forms.Selection:
    return msgspec.json.decode(proposal.content, type=forms.Selection)


def _may_see(call: Call, proposal: Proposal) -> bool:
    """Whoever could not have asked for it, or read of such keys, has no part in it."""
    if proposal.operation is Operation.POLICY_CHANGE:
        return call.principal.permits(Operation.POLICY_READ)
    scope = scope_of(_selection(proposal))
    return call.principal.reaches_scope(Operation.KEYS_READ, scope)


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


def _found(desk: Desk, call: Call) -> Proposal:
    proposal = call.control.get(desk, call.path["proposal_id"])
    if not _may_see(call, proposal):
        raise UnknownProposal("no such proposal")
    return proposal


def _decidable(desk: Desk, call: Call) -> Proposal:
    """Only who might do the thing itself has a word on it."""
    proposal = _found(desk, call)
    if proposal.operation is Operation.POLICY_CHANGE:
        allowed = call.principal.permits(proposal.operation)
    else:
        allowed = call.principal.reaches_scope(proposal.operation, scope_of(_selection(proposal)))
    if not allowed:
        raise UnknownProposal("no such proposal")
    return proposal


def reject(desk: Desk, call: Call) -> Result:
    proposal = call.control.reject(desk, _decidable(desk, call).proposal_id, call.principal.name)
    _record(desk, "approval.rejected", proposal, call.principal.name, call.body.reason)
    return Result(form=proposal_facts(proposal))


def approve(desk: Desk, call: Call) -> Result:
    proposal = call.control.approve(desk, _decidable(desk, call).proposal_id, call.principal.name)
    _record(desk, "approval.granted", proposal, call.principal.name, call.body.reason)
    if proposal.stand is not Stand.EXECUTED:
        return Result(form=proposal_facts(proposal))
    _record(desk, "approval.executed", proposal, call.principal.name, call.body.reason)
    return _execute(desk, proposal)


def _execute(desk: Desk, proposal: Proposal) -> Result:
    if proposal.operation is not Operation.POLICY_CHANGE:
        return _execute_page(proposal, 0, _selection(proposal).cursor, desk)
    wish = msgspec.json.decode(proposal.content, type=Wish)
    if wish.base != etag_of(desk.policy()):
        raise Declined(409, "another policy came into force since this was proposed", hint="reject it, propose again")
    emergency = Emergency(actor=actor_of(proposal), reason=proposal.reason) if wish.emergency else None
    changed = desk.set_policy(wish.document, actor=actor_of(proposal), emergency=emergency)
    return Result(form=proposal_facts(proposal, changed))


def _execute_page(proposal: Proposal, before: int, cursor: str, desk: Desk) -> Result:
    """One page of keys; the others follow, each in a transaction of its own."""
    done = desk.change(
        CHANGE_OF[proposal.operation],
        scope_of(_selection(proposal)),
        actor=actor_of(proposal),
        reason=proposal.reason,
        cursor=cursor,
    )
    moved = before + len(done.records)
    then = partial(_execute_page, proposal, moved, done.cursor) if done.cursor else None
    return Result(form=proposal_facts(proposal, moved), then=then)


def actor_of(proposal: Proposal) -> str:
    """Who did it, for records: the one who asked, and those who approved."""
    return f"{proposal.requester} (approved by {', '.join(proposal.approved_by)})"[:256]
