"""Roles, grants and who reaches what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import NotPermitted
from keystrand.core.protection import Strand
from keystrand.core.register import KeyRecord, Scope, Stage
from keystrand.govern.roles import ALL, DUTIES, REACH, ROLES, Grant, Operation, Principal, Reach, Role, check_duties

TENANTS, SAES = ("acme", "beta", "core"), ("a1", "a2", "b1", "c1")


def record(tenant: str, initiator: str, *responders: str) -> KeyRecord:
    return KeyRecord(
        "k",
        initiator,
        responders,
        "bravo",
        "l",
        0,
        0,
        frozenset(Strand),
        256,
        tenant,
        (),
        5.0,
        5.0,
        9.0,
        Stage.EXPIRE,
        9.0,
    )


def principal(*grants: Grant) -> Principal:
    return Principal(name="p", method="certificate", fingerprint="f", grants=grants)


@pytest.mark.proves("R061")
def test_no_role_holds_every_operation_and_every_operation_has_a_holder_and_a_reach() -> None:
    assert all(held < frozenset(Operation) for held in ROLES.values())
    assert frozenset().union(*ROLES.values()) == frozenset(Operation)
    assert set(REACH) == set(Operation)
    assert set(ROLES) == set(Role)


@pytest.mark.proves("R061", "R105")
def test_operators_learn_nothing_of_keys_and_auditors_change_nothing() -> None:
    assert not [op for op in ROLES[Role.OPERATOR] if op.startswith("keys.")]
    changing = ("change", "suspend", "resume", "revoke", "compromise", "destroy", "run", "decide")
    assert not [op for op in ROLES[Role.AUDITOR] if op.partition(".")[2] in changing]
    assert not [op for op in ROLES[Role.VIEWER] if not op.endswith(".read")]
    assert Operation.KEYS_REVOKE in ROLES[Role.SECURITY_OFFICER]  # who may: the same table says it


def test_nobody_without_grants_and_no_grant_without_tenants_reaches_anything() -> None:
    key = record("acme", "a1", "b1")
    for role in Role:
        bare = principal(Grant(role=role))
        for operation in Operation:
            assert not principal().permits(operation)
            assert not bare.reaches_key(operation, key)
            assert not bare.reaches_scope(operation, Scope(tenant="acme", sae="a1"))


@pytest.mark.proves("R061")
@pytest.mark.parametrize("first", sorted(DUTIES))
@pytest.mark.parametrize("second", sorted(DUTIES))
def test_two_duties_in_one_person_are_refused(first: Role, second: Role) -> None:
    grants = (Grant(role=first), Grant(role=second), Grant(role=Role.VIEWER))
    if first is second:
        assert principal(*grants).grants == grants
        return
    with pytest.raises(NotPermitted, match="at once"):
        principal(*grants)
    with pytest.raises(NotPermitted):
        check_duties([first, second])


names = st.frozensets(st.sampled_from((*TENANTS, ALL)), max_size=2)
holders = st.frozensets(st.sampled_from((*SAES, ALL)), max_size=2)
scopes = st.builds(
    Scope,
    tenant=st.none() | st.sampled_from(TENANTS),
    sae=st.none() | st.sampled_from(SAES),
    link=st.none() | st.just("l"),
)
records = st.builds(record, st.sampled_from(TENANTS), st.sampled_from(SAES), st.sampled_from(SAES))


@given(st.sampled_from(Role), names, holders, scopes, records)
def test_I8_a_scope_within_reach_means_no_key_out_of_reach(
    role: Role, tenants: frozenset[str], saes: frozenset[str], scope: Scope, key: KeyRecord
) -> None:
    grant = Grant(role=role, tenants=tenants, saes=saes)
    named = ALL in tenants or scope.tenant in tenants, ALL in saes or scope.sae in saes
    assert grant.reaches_scope(scope) is all(named)
    if grant.reaches_scope(scope) and scope.covers(key, lambda _: []):
        assert grant.reaches_key(key)


@pytest.mark.parametrize(("tenants", "saes"), [({"acme"}, {ALL}), ({ALL}, {"a1"}), (set(), {ALL}), ({ALL}, set())])
def test_what_concerns_a_whole_site_needs_every_tenant_and_every_sae(tenants: set[str], saes: set[str]) -> None:
    whole = Grant(role=Role.SECURITY_OFFICER, tenants=frozenset({ALL}), saes=frozenset({ALL}))
    partial = Grant(role=Role.SECURITY_OFFICER, tenants=frozenset(tenants), saes=frozenset(saes))
    concerned = [op for op in ROLES[Role.SECURITY_OFFICER] if REACH[op] is Reach.WHOLE]
    assert concerned
    assert all(whole.permits(op) and not partial.permits(op) for op in concerned)


@given(names, holders, records)
def test_I8_a_key_is_reached_by_tenant_and_by_one_of_its_holders(
    tenants: frozenset[str], saes: frozenset[str], key: KeyRecord
) -> None:
    expected = bool({key.tenant, ALL} & tenants) and bool({key.initiator, *key.responders, ALL} & saes)
    assert Grant(role=Role.AUDITOR, tenants=tenants, saes=saes).reaches_key(key) is expected


def test_two_grants_do_not_add_up_to_a_third() -> None:
    """Tenant of one grant and operation of another: still refused."""
    both = principal(
        Grant(role=Role.TENANT_ADMINISTRATOR, tenants=frozenset({"acme"}), saes=frozenset({ALL})),
        Grant(role=Role.VIEWER, tenants=frozenset({"beta"}), saes=frozenset({ALL})),
    )
    assert both.reaches_key(Operation.KEYS_SUSPEND, record("acme", "a1", "b1"))
    assert not both.reaches_key(Operation.KEYS_SUSPEND, record("beta", "b1", "a1"))
    assert REACH[Operation.KEYS_SUSPEND] is Reach.OWNER
