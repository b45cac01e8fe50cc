"""Handlers of the administration API that change something: keys by selection, jobs, policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from keystrand.api import admin_forms as forms
from keystrand.api.admin_approvals import PolicyContent, propose
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
from keystrand.api.admin_scopes import DANGEROUS, OPERATION, VERBS, scope_of
from keystrand.core.errors import BadRequest
from keystrand.core.states import Change
from keystrand.govern.roles import Operation
from keystrand.kme.lifecycle import Affected

EMERGENCY_APPROVALS: Final = 2


# keys ----------------------------------------------------------------------------------------------------------------


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
            return propose(desk, call, operation, call.body)
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
    wish = PolicyContent(document=call.body.document, emergency=call.body.emergency, base=present)
    return propose(desk, call, Operation.POLICY_CHANGE, wish, EMERGENCY_APPROVALS if call.body.emergency else 0)
