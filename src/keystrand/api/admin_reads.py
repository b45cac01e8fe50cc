"""Handlers of the administration API that change nothing."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from keystrand.api import admin_forms as forms
from keystrand.api.admin_call import Call, Result
from keystrand.api.admin_desk import Declined, Desk
from keystrand.core.errors import BadRequest, NotPermitted, UnknownKey
from keystrand.core.policy import Policy
from keystrand.core.policy_change import changed_pairs, changes
from keystrand.core.register import KeyRecord, Scope, Use
from keystrand.core.states import State
from keystrand.govern.roles import Operation
from keystrand.kme.jobs import JobStatus
from keystrand.observe.audit import GENESIS

DIGESTS_MAX = 20_000
DIFFERENCES_MAX = 1000
UNKNOWN = "no such key"
_CRITERIA = ("tenant", "sae", "peer", "link", "source", "relay", "since_s", "until_s")


def status(desk: Desk, call: Call) -> Result:
    site, gauges = desk.site(), desk.gauges()
    return Result(
        form=forms.SiteStatus(
            site=site.name,
            kme_id=site.kme_id,
            at_s=site.at_s,
            epoch=site.epoch,
            policy=desk.policy().version,
            links_up=sum(link.state == "up" for link in gauges.links),
            links=len(gauges.links),
            peers_up=sum(peer.up for peer in gauges.peers),
            peers=len(gauges.peers),
            alarms=len(desk.alarms()),
            audit_records=desk.audit_size(),
            audit_cosigned=gauges.audit.cosigned_size,
        )
    )


def links(desk: Desk, call: Call) -> Result:
    return Result(form=forms.Links(links=[forms.LinkFacts.of(link) for link in desk.gauges().links]))


def pools(desk: Desk, call: Call) -> Result:
    told = [forms.PoolFacts.of(link, ledger=link.plain()["ledger"]) for link in desk.gauges().links]
    return Result(form=forms.Pools(pools=told))


def peers(desk: Desk, call: Call) -> Result:
    return Result(form=forms.Peers(peers=[forms.PeerFacts.of(peer) for peer in desk.gauges().peers]))


def alarms(desk: Desk, call: Call) -> Result:
    return Result(form=forms.Alarms(alarms=[forms.AlarmFacts.of(alarm) for alarm in desk.alarms()]))


def config(desk: Desk, call: Call) -> Result:
    return Result(form=forms.ConfigView(config=dict(desk.config())))


# who may hold keys ---------------------------------------------------------------------------------------------------


def saes(desk: Desk, call: Call) -> Result:
    policy, after = desk.policy(), call.query.get("cursor", "")
    seen = [
        name
        for name in sorted(policy.site_of)
        if name > after and call.principal.reaches_tenant(Operation.SAES_READ, policy.saes[name].tenant)
    ]
    limit = call.query.get("limit", 100)
    shown = [
        forms.SaeFacts(
            sae=name, site=policy.site_of[name], tenant=policy.saes[name].tenant, tags=dict(policy.saes[name].tags)
        )
        for name in seen[:limit]
    ]
    return Result(form=forms.Saes(saes=shown, cursor=seen[limit - 1] if len(seen) > limit else ""))


def policy(desk: Desk, call: Call) -> Result:
    present, now_s = desk.policy(), call.clock.now_s()
    pairs = sorted(present.rules)
    after = call.query.get("cursor", "")
    seen = [pair for pair in pairs if " ".join(pair) > after.replace("/", " ", 1)] if after else pairs
    limit = call.query.get("limit", 100)
    rules = [_rule(present, pair, now_s) for pair in seen[:limit]]
    form = forms.PolicyFacts.of(
        present,
        rules=rules,
        refused=len(present.refused),
        windows=[str(window) for window in present.windows],
        may_change_now=present.may_change_at(now_s),
        cursor="/".join(seen[limit - 1]) if len(seen) > limit else "",
    )
    return Result(form=form, etag=etag_of(present))


def etag_of(policy: Policy) -> str:
    return f'"{policy.serial}-{policy.digest[:32]}"'


def _rule(policy: Policy, pair: tuple[str, str], now_s: float) -> forms.RuleFacts:
    rule = policy.rules[pair]
    return forms.RuleFacts.of(
        rule,
        require=rule.require_at(now_s).label,
        waived=rule.waiver is not None and now_s < rule.waiver.expires_s,
        fails_open=rule.fallback is not None,
    )


def try_policy(desk: Desk, call: Call) -> Result:
    present, wanted = desk.policy(), desk.read_policy(call.body.document)
    found = changes(present, wanted)
    shown = [forms.Difference.of(change) for change in found[:DIFFERENCES_MAX]]
    return Result(
        form=forms.PolicyTrial(
            version=wanted.version,
            digest=wanted.digest,
            pairs_changed=len(changed_pairs(present, wanted)),
            differences=shown,
            truncated=len(found) > DIFFERENCES_MAX,
        )
    )


# keys ----------------------------------------------------------------------------------------------------------------


def _asked_for(call: Call) -> Scope:
    """The criteria of a query. Raises NotPermitted where they may mean keys that are out of reach."""
    query = call.query
    criteria: dict[str, Any] = {name: query.get(name) for name in _CRITERIA}
    scope = Scope(
        states=frozenset({State(query["state"])}) if "state" in query else frozenset(),
        tags=(query["tag"],) if "tag" in query else (),
        **criteria,
    )
    check_reach(call, Operation.KEYS_READ, scope)
    return scope


def tally(desk: Desk, call: Call) -> Result:
    groups = [
        forms.TallyFacts(**group._asdict() | {"strands": sorted(strand.value for strand in group.strands)})
        for group in desk.tally(_asked_for(call))
    ]
    return Result(form=forms.KeyTally(groups=groups))


def find(desk: Desk, call: Call) -> Result:
    query, scope = call.query, _asked_for(call)
    page = desk.find(scope, cursor=query.get("cursor", ""), limit=query.get("limit", 100))
    return Result(form=forms.KeyPage(keys=[key_facts(record) for record in page.records], cursor=page.cursor))


def check_reach(call: Call, operation: Operation, scope: Scope) -> None:
    """Raises NotPermitted where the criteria may mean keys that are out of reach."""
    if not call.principal.reaches_scope(operation, scope):
        raise NotPermitted(
            "your grant does not reach all of these keys", hint="name a tenant, and an SAE, that it reaches"
        )


def reached(desk: Desk, call: Call, operation: Operation, key_id: str) -> KeyRecord:
    """The key. Raises one and the same error for what is not there and what is out of reach."""
    try:
        record = desk.key(key_id)
    except UnknownKey:
        raise UnknownKey(UNKNOWN) from None
    if not call.principal.reaches_key(operation, record):
        raise UnknownKey(UNKNOWN)
    return record


def get(desk: Desk, call: Call) -> Result:
    return Result(form=key_facts(reached(desk, call, Operation.KEYS_READ, call.path["key_id"])))


def use(desk: Desk, call: Call) -> Result:
    record = reached(desk, call, Operation.KEYS_READ, call.path["key_id"])
    return Result(form=forms.UseFacts.of(record, state=record.state.value))


def consumers(desk: Desk, call: Call) -> Result:
    record = reached(desk, call, Operation.KEYS_READ, call.path["key_id"])
    return Result(form=forms.Consumers(consumers=consumer_facts(desk.uses(record.key_id))))


def consumer_facts(uses: Iterable[Use]) -> list[forms.ConsumerFacts]:
    return [forms.ConsumerFacts.of(use) for use in uses]


def key_facts(record: KeyRecord) -> forms.KeyFacts:
    return forms.KeyFacts.of(
        record,
        state=record.state.value,
        responders=list(record.responders),
        strands=sorted(strand.value for strand in record.strands),
        tags=list(record.tags),
        destruction_record=record.destroyed_n,
    )


# jobs and the log ----------------------------------------------------------------------------------------------------


def jobs(desk: Desk, call: Call) -> Result:
    return Result(form=forms.JobTable(jobs=[job_facts(job) for job in desk.jobs()]))


def job_facts(job: JobStatus) -> forms.JobFacts:
    return forms.JobFacts.of(job)


def records(desk: Desk, call: Call) -> Result:
    first, limit = _first(call), call.query.get("limit", 100)
    rows, size = desk.audit_rows(first, limit), desk.audit_size()
    shown = [forms.AuditRecord(number=n, record=_text(record), head=head.hex()) for n, record, head in rows]
    after = rows[-1][0] + 1 if rows else size
    return Result(form=forms.AuditPage(records=shown, size=size, cursor=str(after) if after < size else ""))


def _first(call: Call) -> int:
    """From a number on, or from where the page before ended."""
    cursor = call.query.get("cursor")
    if cursor is None:
        return int(call.query.get("first", 0))
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 15) or "first" in call.query:
        raise BadRequest("cursor is not a cursor of this list, or first stands beside it")
    return int(cursor)


def _text(record: bytes) -> str:
    try:
        return record.decode()
    except UnicodeDecodeError:
        return "base64:" + b64encode(record).decode()  # somebody touched the log: show it as it is


def checkpoints(desk: Desk, call: Call) -> Result:
    limit = call.query.get("limit", 100)
    kept = desk.checkpoints(_first(call))
    shown = [forms.CheckpointFacts(size=size, note=note) for size, note in kept[:limit]]
    more = len(kept) > limit
    return Result(form=forms.Checkpoints(checkpoints=shown, cursor=str(kept[limit][0]) if more else ""))


def proof(desk: Desk, call: Call) -> Result:
    """The record, what its chain was before it, and the digests up to the next checkpoint."""
    number: int = call.path["number"]
    size, note = next(iter(desk.checkpoints(number + 1)), (0, ""))
    if not size:
        raise Declined(404, "no checkpoint covers this record yet", hint="a checkpoint is signed every few seconds")
    if size - number > DIGESTS_MAX:
        raise Declined(409, f"the checkpoint after this record is {size - number} records later: export the log")
    rows = desk.audit_rows(max(0, number - 1), size - max(0, number - 1))
    own, later = rows[1 if number else 0], rows[2 if number else 1 :]
    return Result(
        form=forms.AuditProof(
            number=number,
            record=_text(own[1]),
            before=(rows[0][2] if number else GENESIS).hex(),
            digests=[sha256(record).hexdigest() for _, record, _ in later],
            size=size,
            note=note,
        )
    )


def find_job(desk: Desk, name: str) -> Any:
    return next((job for job in desk.jobs() if job.name == name), None)
