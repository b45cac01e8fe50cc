"""The whole authorisation matrix through the application in this process, a sample of it over TLS, and planted faults found."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from authz_estate import LETTERS, WAYS, Ask, Estate, Person, Wire, asks, people

from keystrand.api.admin_auth import Door
from keystrand.govern.roles import Grant, Operation, Role

NAMED = (
    "{key}",
    "{key_id}",
    "{policy}",
    "{acme}",
    "{unseal}",
    "{root}",
    "{proposal_id}",
    "expiry",
    "{job}",
    "{number}",
)
NAMED += ("{tenant}", "{rel}", "{release_id}", "{window}", "{window_id}", "{site}")


def test_the_oracle_names_every_route_and_role() -> None:
    from keystrand.api.admin_routes import ROUTES

    def shape(path: str) -> str:
        for name in NAMED:
            path = path.replace(name, "*")
        return path.replace("/proofs/0", "/proofs/*")

    listed = {(ask.method, shape(ask.line)) for ask in asks()}
    assert listed == {(route.method, shape(route.path)) for route in ROUTES} | {("GET", "/openapi.json")}
    assert set(LETTERS) == {role.value for role in Role}


@pytest.mark.proves("R029", "R046", "R061", "R105")
async def test_L4_L5_L7_I8_the_whole_matrix() -> None:
    crowd, rows = people(), list(asks())
    estate = Estate(crowd)
    await estate.verifier.start()
    began_s, cells, wrong, allowed = time.monotonic(), 0, [], 0
    for person, way, ask in itertools.product(crowd, WAYS, rows):
        status = await estate.cell(ask, person, way)
        cells += 1
        allowed += status < 300
        if complaint := estate.wrong(ask, person, way, status):
            wrong.append(complaint)
    took_s = time.monotonic() - began_s
    print(f"{cells} cells, {allowed} allowed, {len(wrong)} wrong, {took_s:.1f} s")
    assert wrong == [], wrong[:5]
    assert cells >= 50_000
    assert 1000 < allowed < cells / 2


@pytest.mark.proves("R046")
async def test_a_sample_of_the_matrix_over_tls(tmp_path: Path) -> None:
    """The whole of it: make authz."""
    tally = await Wire(tmp_path, people()[::12]).run(list(asks()))
    assert tally.wrong == [], tally.wrong[:5]
    assert tally.cells > 5000
    assert tally.allowed > 100


async def _found_wrong(estate_of: list[Person], rows: list[Ask], ways: tuple[str, ...]) -> int:
    estate = Estate(estate_of)
    await estate.verifier.start()
    found = 0
    for person, way, ask in itertools.product(estate_of, ways, rows):
        found += bool(estate.wrong(ask, person, way, await estate.cell(ask, person, way)))
    return found


@pytest.mark.parametrize("planted", ["role", "tenant", "owner", "fallback", "approver", "seal", "custodian"])
async def test_the_matrix_finds_what_is_planted(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fault each in the code's table, in reach, at the door and in approvals."""
    from keystrand.api import admin_approvals, admin_tenants
    from keystrand.govern import roles

    crowd, rows = people()[::5], list(asks())
    assert await _found_wrong(crowd[:4], rows, ("certificate",)) == 0
    if planted == "role":
        wider = roles.ROLES[Role.AUDITOR] | {Operation.KEYS_REVOKE}
        monkeypatch.setattr(roles, "ROLES", dict(roles.ROLES) | {Role.AUDITOR: wider})
    elif planted == "tenant":
        monkeypatch.setattr(Grant, "reaches_tenant", lambda self, tenant: bool(self.tenants))
    elif planted == "owner":
        monkeypatch.setattr(Grant, "reaches_scope", lambda self, scope: self.reaches_tenant(scope.tenant or ""))
    elif planted == "fallback":

        async def by_certificate(self: Door, scope: Any) -> Any:
            scope = dict(scope) | {"headers": [h for h in scope["headers"] if h[0] != b"authorization"]}
            return await right(self, scope)

        right = Door.principal
        monkeypatch.setattr(Door, "principal", by_certificate)
    elif planted == "seal":
        monkeypatch.setattr(admin_tenants, "_reached", lambda desk, call, operation: call.path["tenant"])
    elif planted == "custodian":
        wider = roles.ROLES[Role.CUSTODIAN] | {Operation.ESCROW_ASK}
        monkeypatch.setattr(roles, "ROLES", dict(roles.ROLES) | {Role.CUSTODIAN: wider})
    else:
        monkeypatch.setattr(admin_approvals, "_may_see", lambda call, proposal: True)
    assert await _found_wrong(crowd, rows, ("certificate", "forged")) > 0
