"""Handlers of the administration API for what seals a site: the keys of its tenants, escrowed ones, the root key.

Sealing stops a tenant and one person may do it; what opens or ends something for good needs others, by approval or as
custodians of shares. Orders wait for an HSM beside the engine, so they are carried out after the transaction that let them.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from functools import partial

from keystrand.api import admin_forms as forms
from keystrand.api.admin_approvals import RootContent, TenantContent, propose
from keystrand.api.admin_call import Call, Result
from keystrand.api.admin_desk import Declined, Desk, Order
from keystrand.core.errors import BadRequest
from keystrand.core.policy import DEFAULT_TENANT, Policy
from keystrand.core.register import Scope
from keystrand.core.secret import Secret
from keystrand.crypto.keyring import TenantState
from keystrand.crypto.shares import EscrowRecord, Share
from keystrand.govern.release import Release
from keystrand.govern.roles import Operation as Op

# tenants -------------------------------------------------------------------------------------------------------------


def tenants(desk: Desk, call: Call) -> Result:
    policy, stands = desk.policy(), {state.tenant: state for state in desk.tenant_states()}
    members = [sae.tenant for sae in policy.saes.values()]
    shown = [
        _facts(policy, name, members.count(name), stands.get(name))
        for name in sorted({*policy.tenants, *members, *stands})
        if call.principal.reaches_tenant(Op.TENANTS_READ, name)
    ]
    return Result(form=forms.Tenants(tenants=shown))


def _facts(policy: Policy, name: str, members: int, stand: TenantState | None) -> forms.TenantFacts:
    terms = policy.tenants.get(name)
    return forms.TenantFacts(
        tenant=name,
        saes=members,
        quota_bps=terms.quota.bps if terms else 0.0,
        quota_keys_per_s=terms.quota.keys_per_s if terms else 0.0,
        floor_bps=terms.floor_bps if terms else 0.0,
        sealed=stand.sealed if stand else False,
        generation=stand.generation if stand else 0,
    )


def seal(desk: Desk, call: Call) -> Result:
    return _now(desk, call, Op.TENANTS_SEAL)


def rotate(desk: Desk, call: Call) -> Result:
    return _now(desk, call, Op.TENANTS_ROTATE)


def unseal(desk: Desk, call: Call) -> Result:
    tenant = _reached(desk, call, Op.TENANTS_UNSEAL)
    return propose(desk, call, Op.TENANTS_UNSEAL, TenantContent(tenant=tenant))


def erase(desk: Desk, call: Call) -> Result:
    tenant = _reached(desk, call, Op.TENANTS_ERASE)
    if tenant == DEFAULT_TENANT:
        raise BadRequest("the default tenant cannot be erased", hint="erase the whole store, and its passphrase")
    return propose(desk, call, Op.TENANTS_ERASE, TenantContent(tenant=tenant))


def _now(desk: Desk, call: Call, operation: Op) -> Result:
    tenant = _reached(desk, call, operation)
    order = Order(operation=operation, tenant=tenant, actor=call.principal.name, reason=call.body.reason)
    return Result(form=_stand(tenant, desk).form, order=order, then=partial(_stand, tenant))


def _reached(desk: Desk, call: Call, operation: Op) -> str:
    """The tenant of the path. One and the same answer for what has no key here and what is out of reach."""
    tenant: str = call.path["tenant"]
    known = {state.tenant for state in desk.tenant_states()}
    if tenant not in known or not call.principal.reaches_scope(operation, Scope(tenant=tenant)):
        raise Declined(404, "no such tenant", hint="a tenant has a key of its own once [tenants] names it")
    return tenant


def _stand(tenant: str, desk: Desk) -> Result:
    state = next((state for state in desk.tenant_states() if state.tenant == tenant), None)
    if state is None:
        raise Declined(404, "no such tenant")
    return Result(form=forms.TenantStand.of(state))


# escrow --------------------------------------------------------------------------------------------------------------


def begin_release(desk: Desk, call: Call) -> Result:
    """The tenant may be gone: to bring it back is what escrow is for. It must be one that the policy knows."""
    body = call.body
    known = {state.tenant for state in desk.tenant_states()} | set(desk.policy().tenants)
    if body.tenant not in known or not call.principal.reaches_scope(call.operation, Scope(tenant=body.tenant)):
        raise Declined(404, "no such tenant")
    record = EscrowRecord(
        escrow_id=_base64(body.record.escrow_id),
        threshold=body.record.threshold,
        digests=tuple(map(_base64, body.record.digests)),
    )
    release = call.releases.begin(body.tenant, record, requester=call.principal.name, reason=body.reason)
    desk.record(
        "escrow.asked",
        release_id=release.release_id,
        escrow_id=record.escrow_id.hex(),
        tenant=release.tenant,
        needed=record.threshold,
        actor=release.requester,
        reason=release.reason,
    )
    return Result(form=_release_facts(release))


def releases(desk: Desk, call: Call) -> Result:
    shown = [
        _release_facts(release)
        for release in call.releases.all()
        if call.principal.reaches_tenant(Op.ESCROW_READ, release.tenant)
    ]
    return Result(form=forms.ReleaseTable(releases=shown))


def give_share(desk: Desk, call: Call) -> Result:
    """One custodian's share; the last one that is needed puts the tenant's keys back."""
    release = call.releases.get(call.path["release_id"])
    if not call.principal.reaches_tenant(Op.ESCROW_GIVE, release.tenant):
        raise Declined(404, "no such release")
    share = Share.decode(Secret(_base64(call.body.share)))
    secret = call.releases.give(release.release_id, call.principal.name, share, call.principal.over)
    release = call.releases.get(release.release_id)
    desk.record(
        "escrow.given",
        release_id=release.release_id,
        escrow_id=release.record.escrow_id.hex(),
        tenant=release.tenant,
        share=share.index,
        actor=call.principal.name,
        reason=call.body.reason,
    )
    if secret is None:
        return Result(form=_release_facts(release))
    order = Order(
        operation=Op.ESCROW_GIVE,
        tenant=release.tenant,
        actor=f"{release.requester} (shares of {', '.join(release.given_by)})"[:256],
        reason=release.reason,
        escrow_id=release.record.escrow_id.hex(),
        secret=secret,
    )
    return Result(form=_release_facts(release), order=order)


def _release_facts(release: Release) -> forms.ReleaseFacts:
    return forms.ReleaseFacts.of(
        release,
        escrow_id=release.record.escrow_id.hex(),
        needed=release.record.threshold,
        given_by=list(release.given_by),
        done=release.is_done,
    )


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (NotBase64, ValueError):
        raise BadRequest("not base64") from None


# the root key --------------------------------------------------------------------------------------------------------


def rotate_root(desk: Desk, call: Call) -> Result:
    desk.check_root(call.body.key_label)
    return propose(desk, call, Op.ROOT_ROTATE, RootContent(key_label=call.body.key_label))
