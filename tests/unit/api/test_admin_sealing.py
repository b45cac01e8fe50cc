"""Tenants sealed alone, escrow released by its custodians, the root key exchanged: who may, who must agree, what is kept."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from admin_desk_double import EVERY, PEOPLE, Site, site

from keystrand.core.errors import Unavailable
from keystrand.core.secret import Secret
from keystrand.crypto.keyring import TenantState
from keystrand.crypto.shares import EscrowRecord, Share, split
from keystrand.govern.roles import Grant, Operation, Role

WHY = {"reason": "drill"}


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Site:
    for name in ("cu1", "cu2", "cu3"):
        monkeypatch.setitem(PEOPLE, name, (Grant(role=Role.CUSTODIAN, tenants=EVERY),))
    monkeypatch.setitem(PEOPLE, "cubeta", (Grant(role=Role.CUSTODIAN, tenants=frozenset({"beta"})),))
    made = site()
    for tenant in ("acme", "beta", "default"):
        made.desk.sealed[tenant] = TenantState(tenant=tenant, sealed=False, generation=1)
    return made


async def post(desk: Site, who: str, path: str, body: object = WHY) -> tuple[int, Any]:
    reply = await desk.call(who, "POST", path, body)
    return reply.status, json.loads(reply.body)


def orders(desk: Site) -> list[tuple[Operation, str]]:
    return [(order.operation, order.tenant) for order in desk.desk.orders]


@pytest.mark.proves("R061")
async def test_one_person_seals_a_tenant_and_two_open_it_again(desk: Site) -> None:
    status, stand = await post(desk, "ann", "/tenants/acme/seal")
    assert (status, stand) == (200, {"tenant": "acme", "sealed": True, "generation": 0})
    told = await desk.get("ann", "/tenants")
    assert {one["tenant"]: one["sealed"] for one in told["tenants"]} == {"acme": True, "beta": False, "default": False}
    status, asked = await post(desk, "ann", "/tenants/acme/unseal")
    assert (status, asked["operation"], asked["stand"]) == (202, "tenants.unseal", "pending")
    approve = f"/approvals/{asked['proposal_id']}/approve"
    assert (await post(desk, "ann", approve))[0] == 403
    assert (await post(desk, "tess", approve))[0] == 403, "may seal, not open"
    assert orders(desk) == [(Operation.TENANTS_SEAL, "acme")]
    status, done = await post(desk, "bob", approve)
    assert (status, done["stand"]) == (200, "executed")
    assert orders(desk)[-1] == (Operation.TENANTS_UNSEAL, "acme")
    assert desk.desk.orders[-1].actor == "ann (approved by bob)"


async def test_a_tenants_own_administrator_seals_it_and_no_other_and_not_with_some_of_its_saes_only(desk: Site) -> None:
    assert (await post(desk, "tess", "/tenants/acme/seal"))[0] == 200
    foreign, missing = await post(desk, "tess", "/tenants/beta/seal"), await post(desk, "tess", "/tenants/none/seal")
    assert foreign == missing
    assert foreign[0] == 404
    assert (await post(desk, "tom", "/tenants/acme/seal"))[0] == 404, "a grant over one SAE is none over the tenant"
    for who, expected in (("olga", 403), ("aud", 403), ("vic", 403), ("nobody", 403), ("cu1", 403)):
        assert (await post(desk, who, "/tenants/acme/seal"))[0] == expected
    assert orders(desk) == [(Operation.TENANTS_SEAL, "acme")]


async def test_a_fresh_key_needs_one_and_the_end_of_a_tenant_two(desk: Site) -> None:
    assert (await post(desk, "ann", "/tenants/beta/rotate"))[1]["generation"] == 2
    status, asked = await post(desk, "ann", "/tenants/beta/erase")
    assert status == 202
    assert (await post(desk, "acmeoff", f"/approvals/{asked['proposal_id']}/approve"))[0] == 404
    assert "beta" in desk.desk.sealed
    assert (await post(desk, "bob", f"/approvals/{asked['proposal_id']}/approve"))[0] == 200
    assert "beta" not in desk.desk.sealed
    assert (await post(desk, "ann", "/tenants/default/erase"))[0] == 400


async def test_T13_where_the_hsm_is_away_nothing_is_done_and_the_record_says_so(desk: Site) -> None:
    desk.administration.unreachable = Unavailable("the HSM does not answer")
    for _ in range(2):  # not remembered as done either
        reply = await desk.call("ann", "POST", "/tenants/acme/rotate", WHY, once="k1")
        assert reply.status == 503
    assert desk.desk.orders == []
    kinds = [record["kind"] for record in desk.desk.records]
    assert kinds == ["admin.refused", "admin.refused"]
    desk.administration.unreachable = None
    for _ in range(2):
        reply = await desk.call("ann", "POST", "/tenants/acme/rotate", WHY, once="k1")
        assert (reply.status, json.loads(reply.body)["generation"]) == (200, 2), "once, however often it is asked for"
    assert len(desk.desk.orders) == 1


# escrow --------------------------------------------------------------------------------------------------------------

SECRET = bytes(range(34))


def _wish(record: EscrowRecord, tenant: str = "acme") -> dict[str, Any]:
    facts = {
        "escrow_id": b64encode(record.escrow_id).decode(),
        "threshold": record.threshold,
        "digests": [b64encode(digest).decode() for digest in record.digests],
    }
    return {"tenant": tenant, "record": facts, "reason": "the disk is gone"}


def _share(share: Share) -> dict[str, str]:
    return {"share": b64encode(share.encode().reveal()).decode(), "reason": "seen the order"}


@pytest.mark.proves("R061")
async def test_custodians_give_their_shares_in_person_and_the_last_one_brings_the_keys_back(desk: Site) -> None:
    record, shares = split(Secret(SECRET), 2, 3)
    del desk.desk.sealed["beta"]
    for who in ("cu1", "aud", "olga", "tess"):
        assert (await post(desk, who, "/escrow/releases", _wish(record)))[0] == 403
    status, release = await post(desk, "ann", "/escrow/releases", _wish(record))
    assert (status, release["needed"], release["given_by"], release["done"]) == (200, 2, [], False)
    give = f"/escrow/releases/{release['release_id']}/shares"
    for who in ("ann", "aud", "vic"):
        assert (await post(desk, who, give, _share(shares[0])))[0] == 403
    assert (await post(desk, "cubeta", give, _share(shares[0])))[0] == 404
    assert (await post(desk, "cu1", give, _share(shares[0])))[1]["given_by"] == ["cu1"]
    assert (await post(desk, "cu1", give, _share(shares[1])))[0] == 403
    assert (await post(desk, "cu2", give, _share(shares[0])))[0] == 409
    _, strange = split(Secret(SECRET), 2, 2)
    assert (await post(desk, "cu2", give, _share(strange[1])))[0] == 400
    assert desk.desk.orders == []
    status, release = await post(desk, "cu3", give, _share(shares[2]))
    assert (status, release["done"], release["given_by"]) == (200, True, ["cu1", "cu3"])
    (order,) = desk.desk.orders
    assert (order.operation, order.tenant, order.actor) == (Operation.ESCROW_GIVE, "acme", "ann (shares of cu1, cu3)")
    assert order.secret is not None
    assert order.secret.reveal() == SECRET
    told = await desk.get("aud", "/escrow/releases")
    assert [one["done"] for one in told["releases"]] == [True]


async def test_I12_a_share_is_in_no_record_and_in_no_answer(desk: Site) -> None:
    record, shares = split(Secret(SECRET), 2, 2)
    _, release = await post(desk, "ann", "/escrow/releases", _wish(record))
    told = b""
    for who, share in zip(("cu1", "cu2"), shares, strict=True):
        reply = await desk.call(who, "POST", f"/escrow/releases/{release['release_id']}/shares", _share(share))
        told += reply.body
    written = b"".join(row[1] for row in desk.desk.rows) + repr(desk.desk.answers).encode() + told
    written += repr(desk.sink.events).encode() + repr(desk.desk.orders).encode()
    values = [share.value.reveal() for share in shares]
    encoded = [b64encode(value)[8:40] for value in values] + [b64encode(SECRET)[at : at + 12] for at in (0, 4, 8)]
    for raw in (SECRET, *values, *encoded):
        assert raw not in written
    assert SECRET.hex().encode() not in written


# the root key --------------------------------------------------------------------------------------------------------


@pytest.mark.proves("R061")
async def test_the_root_key_is_exchanged_by_two_with_grants_over_the_whole_site(desk: Site) -> None:
    wish = {"key_label": "root-2", "reason": "five years old"}
    for who, expected in (("olga", 403), ("aud", 403), ("acmeoff", 403), ("cu1", 403)):
        assert (await post(desk, who, "/root/rotate", wish))[0] == expected
    assert (await post(desk, "ann", "/root/rotate", wish | {"key_label": "present"}))[0] == 400
    status, asked = await post(desk, "ann", "/root/rotate", wish)
    assert status == 202
    assert json.loads(asked["content"]) == {"key_label": "root-2"}
    assert (await post(desk, "acmeoff", f"/approvals/{asked['proposal_id']}/approve"))[0] == 404
    assert (await post(desk, "bob", f"/approvals/{asked['proposal_id']}/approve"))[0] == 200
    (order,) = desk.desk.orders
    assert (order.operation, order.key_label, order.actor) == (Operation.ROOT_ROTATE, "root-2", "ann (approved by bob)")
