"""Every route of the administration API, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from keystrand.api import admin_approvals as approvals
from keystrand.api import admin_forms as forms
from keystrand.api import admin_network as network
from keystrand.api import admin_network_forms as shapes
from keystrand.api import admin_reads as reads
from keystrand.api import admin_scopes as scopes
from keystrand.api import admin_tenants as sealing
from keystrand.api import admin_writes as writes
from keystrand.api.admin_call import (
    CURSOR,
    FIRST,
    JOB,
    KEY_ID,
    LIMIT,
    LINK,
    NUMBER,
    PEER,
    PROPOSAL_ID,
    RELAY,
    RELEASE_ID,
    SAE,
    SINCE_S,
    SITE,
    SOURCE,
    STATE,
    TAG,
    TENANT,
    UNTIL_S,
    WINDOW_ID,
    Handler,
    Param,
    Route,
)
from keystrand.govern.roles import Operation as Op

_PAGE: Final = (CURSOR, LIMIT)
_FILTER: Final = (STATE, TAG, TENANT, SAE, PEER, LINK, SOURCE, RELAY, SINCE_S, UNTIL_S)

Answers = Mapping[int, type[forms.Form]]
PROPOSED: Final[Answers] = {202: forms.ProposalFacts}


def _get(
    path: str,
    operation: Op,
    handle: Handler,
    answer: type[forms.Form],
    summary: str,
    *,
    params: tuple[Param, ...] = (),
    query: tuple[Param, ...] = (),
) -> Route:
    return Route("GET", path, operation, handle, summary, {200: answer}, params=params, query=query)


def _post(
    path: str,
    operation: Op,
    handle: Handler,
    answers: Answers,
    summary: str,
    *,
    params: tuple[Param, ...] = (),
    body: type[forms.Form] | None = forms.Decision,
    changes: bool = True,
    guarded: bool = False,
) -> Route:
    return Route(
        "POST", path, operation, handle, summary, answers, params=params, body=body, changes=changes, guarded=guarded
    )


def _life(verb: str, summary: str) -> Route:
    change = scopes.VERBS[verb]
    answers: Answers = {200: forms.AffectedKeys, **(PROPOSED if change in scopes.DANGEROUS else {})}
    operation, handle = scopes.OPERATION[change], writes.changing(change)
    return _post(f"/lifecycle/{verb}", operation, handle, answers, summary, body=forms.Selection)


def _decide(verb: str, handle: Handler, summary: str) -> Route:
    path, answers = f"/approvals/{{proposal_id}}/{verb}", {200: forms.ProposalFacts}
    return _post(path, Op.APPROVALS_DECIDE, handle, answers, summary, params=(PROPOSAL_ID,))


def _of_tenant(verb: str, operation: Op, handle: Handler, summary: str, *, alone: bool) -> Route:
    answers: Answers = {200: forms.TenantStand} if alone else PROPOSED
    return _post(f"/tenants/{{tenant}}/{verb}", operation, handle, answers, summary, params=(TENANT,))


def _window(verb: str, operation: Op, handle: Handler, answer: type[forms.Form] | None, summary: str) -> Route:
    """answer: of what one may do alone; None: others must approve."""
    answers: Answers = {200: answer} if answer else PROPOSED
    return _post(f"/maintenance/{{window_id}}/{verb}", operation, handle, answers, summary, params=(WINDOW_ID,))


ROUTES: Final = (
    _get("/status", Op.STATUS_READ, reads.status, forms.SiteStatus, "The site at a glance"),
    _get("/links", Op.LINKS_READ, reads.links, forms.Links, "QKD links and what they deliver"),
    _get("/pools", Op.POOLS_READ, reads.pools, forms.Pools, "Pools and their ledgers, in bits"),
    _get("/peers", Op.PEERS_READ, reads.peers, forms.Peers, "KMEs of other sites"),
    _get("/alarms", Op.ALARMS_READ, reads.alarms, forms.Alarms, "What wants a person's attention"),
    _get("/config", Op.CONFIG_READ, reads.config, forms.ConfigView, "The configuration in use, redacted"),
    _get("/saes", Op.SAES_READ, reads.saes, forms.Saes, "Applications, of the tenants within reach", query=_PAGE),
    _get("/tenants", Op.TENANTS_READ, sealing.tenants, forms.Tenants, "Tenants within reach"),
    _of_tenant("seal", Op.TENANTS_SEAL, sealing.seal, "Its keys leave memory, restarts included", alone=True),
    _of_tenant("unseal", Op.TENANTS_UNSEAL, sealing.unseal, "Propose to use its keys again", alone=False),
    _of_tenant("rotate", Op.TENANTS_ROTATE, sealing.rotate, "Seal new rows under a fresh key", alone=True),
    _of_tenant("erase", Op.TENANTS_ERASE, sealing.erase, "Propose to make it unreadable for good", alone=False),
    _get("/escrow/releases", Op.ESCROW_READ, sealing.releases, forms.ReleaseTable, "Keys asked back from custodians"),
    _post(
        "/escrow/releases",
        Op.ESCROW_ASK,
        sealing.begin_release,
        {200: forms.ReleaseFacts},
        "Ask the custodians of an escrow for the keys of a tenant",
        body=forms.ReleaseWish,
    ),
    _post(
        "/escrow/releases/{release_id}/shares",
        Op.ESCROW_GIVE,
        sealing.give_share,
        {200: forms.ReleaseFacts},
        "Give one's share; the last one that is needed puts the keys back",
        params=(RELEASE_ID,),
        body=forms.ShareForm,
    ),
    _post(
        "/root/rotate",
        Op.ROOT_ROTATE,
        sealing.rotate_root,
        PROPOSED,
        "Propose another root key; it comes into use with the last approval",
        body=forms.RootWish,
    ),
    _get("/policy", Op.POLICY_READ, reads.policy, forms.PolicyFacts, "The policy in force; has an ETag", query=_PAGE),
    _post(
        "/policy/trials",
        Op.POLICY_TRY,
        reads.try_policy,
        {200: forms.PolicyTrial},
        "What a policy would change, and for whom; changes nothing",
        body=forms.PolicyDraft,
        changes=False,
    ),
    _post(
        "/policy/proposals",
        Op.POLICY_CHANGE,
        writes.propose_policy,
        PROPOSED,
        "Propose a policy; it comes into force with the last approval",
        body=forms.PolicyWish,
        guarded=True,
    ),
    _get("/keys", Op.KEYS_READ, reads.find, forms.KeyPage, "Keys by criteria, oldest first", query=_FILTER + _PAGE),
    _get("/tally", Op.KEYS_READ, reads.tally, forms.KeyTally, "Keys by criteria, counted by link", query=_FILTER),
    _get("/keys/{key_id}", Op.KEYS_READ, reads.get, forms.KeyFacts, "What is known of one key", params=(KEY_ID,)),
    _get("/keys/{key_id}/use", Op.KEYS_READ, reads.use, forms.UseFacts, "How much a key was used", params=(KEY_ID,)),
    _get(
        "/keys/{key_id}/consumers", Op.KEYS_READ, reads.consumers, forms.Consumers, "Who uses a key", params=(KEY_ID,)
    ),
    _post(
        "/lifecycle/trials",
        Op.KEYS_READ,
        writes.try_change,
        {200: forms.AffectedKeys},
        "Which keys, pairs and consumers a change would concern; changes nothing",
        body=forms.LifeTrial,
        changes=False,
    ),
    _life("suspend", "Nobody fetches these keys until they are resumed"),
    _life("resume", "Take a suspension back"),
    _life("revoke", "Deactivate keys: nothing new is protected with them"),
    _life("compromise", "Declare keys known to others; by criteria only with approval"),
    _life("destroy", "End keys that are deactivated or compromised; by criteria only with approval"),
    _get(
        "/network", Op.NETWORK_READ, network.network, shapes.NetworkFacts, "Relayed links, and windows of maintenance"
    ),
    _post(
        "/network/{site}/bar",
        Op.NETWORK_BAR,
        network.bar,
        {200: shapes.NetworkFacts},
        "Let no block go over a site that is broken into, or to it",
        params=(SITE,),
    ),
    _post(
        "/network/{site}/admit",
        Op.NETWORK_ADMIT,
        network.admit,
        PROPOSED,
        "Propose to let it relay again",
        params=(SITE,),
    ),
    _post(
        "/maintenance",
        Op.MAINTENANCE_PLAN,
        network.plan,
        {200: shapes.WindowFacts},
        "Plan maintenance of the site or of a hop: pools fill for it",
        body=shapes.WindowWish,
    ),
    _window(
        "begin", Op.MAINTENANCE_PLAN, network.begin, shapes.WindowFacts, "Drain; refused where pools do not suffice"
    ),
    _window("force", Op.MAINTENANCE_FORCE, network.force, None, "Propose to drain although pools do not suffice"),
    _window("end", Op.MAINTENANCE_PLAN, network.end, shapes.WindowFacts, "Back into use"),
    _get("/jobs", Op.JOBS_READ, reads.jobs, forms.JobTable, "What the service does by itself"),
    _post(
        "/jobs/{job}/run",
        Op.JOBS_RUN,
        writes.run_job,
        {200: forms.JobFacts},
        "Run one job now",
        params=(JOB,),
        body=None,
    ),
    _get("/approvals", Op.APPROVALS_READ, approvals.approvals, forms.ProposalTable, "Proposals and where they stand"),
    _get(
        "/approvals/{proposal_id}",
        Op.APPROVALS_READ,
        approvals.approval,
        forms.ProposalFacts,
        "One proposal",
        params=(PROPOSAL_ID,),
    ),
    _decide("approve", approvals.approve, "Approve what somebody else proposed; the last approval executes it"),
    _decide("reject", approvals.reject, "End a proposal, or take the own one back"),
    _get("/audit/records", Op.AUDIT_READ, reads.records, forms.AuditPage, "Records of the log", query=(FIRST, *_PAGE)),
    _get(
        "/audit/checkpoints",
        Op.AUDIT_READ,
        reads.checkpoints,
        forms.Checkpoints,
        "Signed checkpoints, of at least `first` records",
        query=(FIRST, *_PAGE),
    ),
    _get(
        "/audit/proofs/{number}",
        Op.AUDIT_PROVE,
        reads.proof,
        forms.AuditProof,
        "That one record is under a signed checkpoint",
        params=(NUMBER,),
    ),
)
