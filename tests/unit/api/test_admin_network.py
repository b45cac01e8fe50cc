"""Planned maintenance over the administration API: who may, what is refused, what takes two."""

from __future__ import annotations

import json
from typing import Any

import pytest
from admin_desk_double import Site, site

WHY = {"reason": "a new battery"}
WISH = {"from_s": 1e9, "until_s": 2e9, **WHY}


async def post(desk: Site, who: str, path: str, body: object = WHY) -> tuple[int, Any]:
    reply = await desk.call(who, "POST", path, body)
    return reply.status, json.loads(reply.body)


@pytest.mark.proves("R102", "R061")
async def test_an_operator_plans_begins_and_ends_where_pools_suffice() -> None:
    desk = site()
    status, window = await post(desk, "olga", "/maintenance", WISH)
    assert (status, window["stand"], window["ready"]) == (200, "planned", True)
    place = f"/maintenance/{window['window_id']}"
    assert (await post(desk, "vic", f"{place}/begin"))[0] == 403
    assert (await post(desk, "olga", f"{place}/begin"))[1]["stand"] == "draining"
    assert [one["stand"] for one in (await desk.get("vic", "/network"))["windows"]] == ["draining"]
    assert (await post(desk, "olga", f"{place}/end"))[1]["stand"] == "ended"
    assert (await post(desk, "olga", f"{place}/end"))[0] == 404


@pytest.mark.proves("R102", "R061")
async def test_a_shortfall_is_refused_and_two_others_may_accept_it() -> None:
    desk = site()
    _, window = await post(desk, "olga", "/maintenance", WISH | {"neighbour": "b"})
    assert not window["ready"]
    assert window["checks"][0]["short_bits"] == 4
    place = f"/maintenance/{window['window_id']}"
    status, told = await post(desk, "olga", f"{place}/begin")
    assert (status, told["message"]) == (409, "pools do not suffice for the window")
    assert (await post(desk, "olga", f"{place}/force"))[0] == 403
    status, asked = await post(desk, "ann", f"{place}/force")
    assert (status, asked["operation"]) == (202, "maintenance.force")
    approve = f"/approvals/{asked['proposal_id']}/approve"
    assert (await post(desk, "ann", approve))[0] == 403
    assert (await post(desk, "bob", approve))[1]["stand"] == "executed"
    assert [one["stand"] for one in (await desk.get("vic", "/network"))["windows"]] == ["draining"]


@pytest.mark.proves("R061")
async def test_one_bars_a_site_and_two_admit_it_again() -> None:
    desk = site()
    assert (await post(desk, "olga", "/network/x/bar"))[0] == 403
    assert (await post(desk, "ann", "/network/x/bar"))[1]["barred"] == ["x"]
    status, asked = await post(desk, "ann", "/network/x/admit")
    assert status == 202
    assert (await desk.get("vic", "/network"))["barred"] == ["x"]
    assert (await post(desk, "bob", f"/approvals/{asked['proposal_id']}/approve"))[1]["stand"] == "executed"
    assert (await desk.get("vic", "/network"))["barred"] == []
    assert (await post(desk, "ann", "/network/x/admit"))[0] == 404


async def test_what_leads_nowhere_is_refused() -> None:
    desk = site()
    assert (await post(desk, "olga", "/maintenance", WISH | {"neighbour": "nowhere"}))[0] == 400
    assert (await post(desk, "olga", "/maintenance", WISH | {"neighbour": "-x"}))[0] == 400
    unknown = "/maintenance/00000000-0000-4000-8000-000000000099"
    assert (await post(desk, "olga", f"{unknown}/begin"))[0] == 404
    assert (await post(desk, "ann", f"{unknown}/force"))[0] == 404
