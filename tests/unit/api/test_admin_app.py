"""The administration API over a desk in memory."""

from __future__ import annotations

import json

import pytest
from admin_desk_double import PEOPLE, key_id, site

from keystrand.api.admin_call import PREFIX
from keystrand.api.admin_routes import ROUTES
from keystrand.api.openapi import document
from keystrand.core.errors import StoreUnavailable
from keystrand.core.states import State
from keystrand.govern.roles import Operation
from keystrand.observe.audit import GENESIS, extend, link

KEYS = [key_id(number) for number in range(6)]
ACME = KEYS[1::2]


@pytest.mark.proves("R046")
@pytest.mark.parametrize(
    ("kind", "name"), [(None, "ann"), ("sae", "ann"), ("kme", "ann"), ("module", "ann"), ("admin", "")]
)
async def test_strangers_learn_nothing_and_are_recorded(kind: str | None, name: str) -> None:
    desk = site()
    bodies = set()
    for path in ("/status", "/keys", "/nothing", "/openapi.json", "/lifecycle/suspend"):
        reply = await desk.call(name, "GET", path, kind=kind)
        assert reply.status == 401
        bodies.add(reply.body)
    assert len(bodies) == 1
    assert [r["kind"] for r in desk.desk.records] == ["admin.refused"] * 5
    assert {r["status"] for r in desk.desk.records} == {401}


@pytest.mark.proves("R046", "R057")
async def test_every_call_is_recorded_with_who_and_what_denied_ones_too() -> None:
    desk = site()
    await desk.get("aud", "/audit/records")
    assert (await desk.call("olga", "GET", f"/keys/{KEYS[0]}")).status == 403
    done, denied = desk.desk.records
    assert (done["kind"], done["actor"], done["operation"], done["certificate"]) == (
        "admin.call",
        "aud",
        "audit.read",
        "fp-aud",
    )
    assert (denied["kind"], denied["actor"], denied["operation"], denied["status"]) == (
        "admin.refused",
        "olga",
        "keys.read",
        403,
    )
    assert KEYS[0] in denied["target"]


async def test_strangers_cannot_fill_the_log() -> None:
    desk = site()
    for _ in range(200):
        assert (await desk.call("eve", "GET", "/status", kind="sae")).status == 401
    assert (len(desk.desk.records), len(desk.sink.events)) == (20, 200)
    assert (await desk.call("mallory", "GET", "/status", kind="sae")).status == 401
    assert desk.desk.records[-1]["actor"] == "sae:mallory"
    desk.clock.move_to(desk.clock.monotonic_s() + 5)
    for _ in range(200):
        await desk.call("eve", "GET", "/status", kind="sae")
    assert len(desk.desk.records) == 26
    for _ in range(100):  # administrators are recorded always
        assert (await desk.call("vic", "GET", "/keys")).status == 403
    assert len(desk.desk.records) == 126


async def test_what_cannot_be_recorded_is_not_answered() -> None:
    desk = site()
    desk.administration.fault = StoreUnavailable("the disk is full", retry_after_s=2)
    for path, who in (("/status", "vic"), ("/keys", "olga"), ("/keys", "nobody")):
        reply = await desk.call(who, "GET", path)
        assert (reply.status, reply.headers["retry-after"]) == (503, "2")
    assert not desk.desk.records


@pytest.mark.proves("R054")
async def test_I8_keys_are_found_within_reach_only() -> None:
    desk = site()
    assert [k["key_id"] for k in (await desk.get("aud", "/keys"))["keys"]] == [*KEYS, key_id(9)]
    assert (await desk.call("tess", "GET", "/keys")).status == 403
    assert (await desk.call("tess", "GET", "/keys?tenant=beta")).status == 403
    assert [k["key_id"] for k in (await desk.get("tess", "/keys?tenant=acme"))["keys"]] == [*ACME, key_id(9)]
    assert (await desk.call("tom", "GET", "/keys?tenant=acme")).status == 403
    assert [k["key_id"] for k in (await desk.get("tom", "/keys?tenant=acme&sae=a1"))["keys"]] == ACME


async def test_T5_a_foreign_key_and_no_key_look_the_same() -> None:
    desk = site()
    replies = []
    for number in (0, 77):
        reply = await desk.call("tess", "GET", f"/keys/{key_id(number)}")
        replies.append((reply.status, reply.body, sorted(reply.headers.items())))
        body = {"key_ids": [key_id(1), key_id(number)], "reason": "x"}
        reply = await desk.call("tess", "POST", "/lifecycle/suspend", body)
        replies.append((reply.status, reply.body, sorted(reply.headers.items())))
    assert replies[0] == replies[2]
    assert replies[1] == replies[3]
    assert replies[0][0] == replies[1][0] == 404
    assert desk.desk.keys[key_id(1)].state is State.ACTIVE  # all or none


@pytest.mark.proves("R042", "R105")
async def test_a_key_is_suspended_resumed_revoked_compromised_and_destroyed() -> None:
    desk = site()
    for verb, state in (
        ("suspend", "suspended"),
        ("resume", "active"),
        ("revoke", "deactivated"),
        ("compromise", "compromised"),
        ("destroy", "destroyed"),
    ):
        reply = await desk.call("ann", "POST", f"/lifecycle/{verb}", {"key_ids": [KEYS[1]], "reason": "drill"})
        assert reply.status == 200, reply
        facts = await desk.get("ann", f"/keys/{KEYS[1]}")
        assert (facts["state"], facts["actor"], facts["reason"]) == (state, "ann", "drill")
    reply = await desk.call("ann", "POST", "/lifecycle/resume", {"key_ids": [KEYS[1]], "reason": "drill"})
    assert reply.status == 409
    assert json.loads(reply.body)["message"]


async def test_consumers_and_use_of_a_key() -> None:
    desk = site()
    told = await desk.get("tess", f"/keys/{KEYS[1]}/consumers")
    assert told["consumers"] == [{"key_id": KEYS[1], "sae": "a1", "consumer": "tunnel-1", "last_s": 5.0}]
    assert (await desk.get("tess", f"/keys/{KEYS[1]}/use"))["uses"] == 0
    reply = await desk.call("ann", "POST", "/lifecycle/suspend", {"tenant": "acme", "reason": "leak"})
    assert json.loads(reply.body)["consumers"] == told["consumers"]


@pytest.mark.proves("R061")
async def test_by_criteria_nobody_compromises_or_destroys_alone() -> None:
    desk = site()
    wish = {"tenant": "acme", "reason": "relay lost"}
    reply = await desk.call("ann", "POST", "/lifecycle/compromise", wish)
    assert reply.status == 202
    asked = json.loads(reply.body)["proposal_id"]
    assert all(record.state is State.ACTIVE for record in desk.desk.keys.values())
    verdict = {"reason": "agreed"}
    assert (await desk.call("ann", "POST", f"/approvals/{asked}/approve", verdict)).status == 403
    assert (await desk.call("aud", "POST", f"/approvals/{asked}/approve", verdict)).status == 403
    assert (await desk.call("tess", "POST", f"/approvals/{asked}/approve", verdict)).status == 403
    reply = await desk.call("bob", "POST", f"/approvals/{asked}/approve", verdict)
    facts = json.loads(reply.body)
    assert (reply.status, facts["stand"], facts["moved"], facts["approved_by"]) == (200, "executed", 4, ["bob"])
    assert {r.state for r in desk.desk.keys.values() if r.tenant == "acme"} == {State.COMPROMISED}
    assert {r.state for r in desk.desk.keys.values() if r.tenant == "beta"} == {State.ACTIVE}
    assert desk.desk.keys[KEYS[1]].actor == "ann (approved by bob)"
    kinds = [r["kind"] for r in desk.desk.records if r["kind"].startswith("approval.")]
    assert kinds == ["approval.proposed", "approval.granted", "approval.executed"]
    assert (await desk.call("cat", "POST", f"/approvals/{asked}/approve", verdict)).status == 409


async def test_an_officer_of_one_tenant_has_no_word_on_others_keys() -> None:
    desk = site()
    asked = json.loads((await desk.call("ann", "POST", "/lifecycle/destroy", {"link": "ab", "reason": "x"})).body)
    path = f"/approvals/{asked['proposal_id']}"
    foreign = await desk.call("acmeoff", "GET", path)
    missing = await desk.call("acmeoff", "GET", f"/approvals/{key_id(5)}")
    assert (foreign.status, foreign.body) == (missing.status, missing.body)
    assert (await desk.call("acmeoff", "POST", f"{path}/approve", {"reason": "y"})).status == 404
    assert (await desk.get("acmeoff", "/approvals"))["approvals"] == []
    assert len((await desk.get("aud", "/approvals"))["approvals"]) == 1


async def test_a_long_scope_is_executed_page_by_page() -> None:
    desk = site()
    desk.desk.page_max = 2
    asked = json.loads((await desk.call("ann", "POST", "/lifecycle/compromise", {"peer": "bravo", "reason": "x"})).body)
    reply = await desk.call("bob", "POST", f"/approvals/{asked['proposal_id']}/approve", {"reason": "y"})
    assert json.loads(reply.body)["moved"] == 7
    assert {record.state for record in desk.desk.keys.values()} == {State.COMPROMISED}


@pytest.mark.proves("R047", "R066")
async def test_a_policy_is_tried_proposed_and_taken_with_its_etag() -> None:
    desk = site()
    read = await desk.call("ann", "GET", "/policy")
    etag = read.headers["etag"].encode()
    trial = await desk.call("ann", "POST", "/policy/trials", {"document": "second"}, once="")
    assert json.loads(trial.body)["pairs_changed"] == 1
    assert desk.desk.present.serial == 1
    wish = {"document": "second", "reason": "quota"}
    assert (await desk.call("ann", "POST", "/policy/proposals", wish)).status == 428
    stale = ((b"if-match", b'"1-00"'),)
    assert (await desk.call("ann", "POST", "/policy/proposals", wish, headers=stale)).status == 412
    fresh = ((b"if-match", etag),)
    first, second = [
        json.loads(
            (await desk.call("ann", "POST", "/policy/proposals", {**wish, "document": name}, headers=fresh)).body
        )
        for name in ("second", "third")
    ]
    for proposal, status in ((first, 200), (second, 409)):  # what the second was to replace is gone
        path = f"/approvals/{proposal['proposal_id']}/approve"
        assert (await desk.call("bob", "POST", path, {"reason": "ok"})).status == status
    assert desk.desk.present.serial == 2
    assert (await desk.get("ann", f"/approvals/{second['proposal_id']}"))["stand"] == "pending"
    assert (await desk.call("ann", "GET", "/policy")).headers["etag"].encode() != etag


@pytest.mark.proves("R047")
async def test_an_emergency_needs_two_others() -> None:
    desk = site()
    headers = ((b"if-match", (await desk.call("ann", "GET", "/policy")).headers["etag"].encode()),)
    wish = {"document": "second", "reason": "incident 7", "emergency": True}
    asked = json.loads((await desk.call("ann", "POST", "/policy/proposals", wish, headers=headers)).body)
    assert asked["needed"] == 2
    path = f"/approvals/{asked['proposal_id']}/approve"
    assert json.loads((await desk.call("bob", "POST", path, {"reason": "y"})).body)["stand"] == "pending"
    assert desk.desk.present.serial == 1
    assert json.loads((await desk.call("cat", "POST", path, {"reason": "y"})).body)["stand"] == "executed"
    assert desk.desk.records[-3:][0]["approved_by"] == ["bob", "cat"]
    assert any(r["kind"] == "policy.loaded" and r["emergency"] for r in desk.desk.records)


async def test_T15_a_repeated_mutation_is_done_once() -> None:
    desk = site()
    body = {"key_ids": [KEYS[1]], "reason": "x"}
    first = await desk.call("ann", "POST", "/lifecycle/suspend", body, once="one")
    again = await desk.call("ann", "POST", "/lifecycle/suspend", body, once="one")
    assert (first.status, first.body) == (again.status, again.body)
    assert again.headers["idempotency-replayed"] == "true"
    other = await desk.call("ann", "POST", "/lifecycle/suspend", {**body, "reason": "y"}, once="one")
    assert other.status == 422
    elsewhere = await desk.call("ann", "POST", "/lifecycle/resume", body, once="one")
    assert elsewhere.status == 422
    # the key is that of one person: another's is another request, and that is not legal any more
    assert (await desk.call("bob", "POST", "/lifecycle/suspend", body, once="one")).status == 409
    assert (await desk.call("ann", "POST", "/lifecycle/suspend", body, once="")).status == 400


@pytest.mark.proves("R046")
async def test_L18_parameters_from_elsewhere_decide_nothing() -> None:
    desk = site()
    for path in (
        "/keys?tenant=acme&tenant=beta",
        "/keys?tenant=acme&unknown=1",
        "/keys?tenant=acme;tenant=beta",
        "/keys?Tenant=beta",
        "/status?tenant=acme",
    ):
        assert (await desk.call("tess", "GET", path)).status in (400, 403), path
    body = {"key_ids": [KEYS[1]], "reason": "x"}
    for path in ("/lifecycle/suspend?tenant=acme", "/lifecycle/suspend?key_ids=" + KEYS[0]):
        assert (await desk.call("ann", "POST", path, body)).status == 400
    for raw in (
        b'{"reason": "x", "tenant": "acme", "tenant": "beta"}',
        b'{"reason": "x", "tenant": "acme", "operation": "keys.resume"}',
        b'{"reason": "x", "tenant": null}',
        b"[" * 100 + b"]" * 100,
        b'{"reason": " ", "tenant": "acme"}',
        b'{"reason": "x"}',
        b"",
        b"\xff",
    ):
        assert (await desk.call("ann", "POST", "/lifecycle/suspend", raw)).status in (400, 413), raw
    assert all(record.state is State.ACTIVE for record in desk.desk.keys.values())


@pytest.mark.parametrize(
    "path",
    [
        "/keys/../status", "/keys/%2e%2e/status", "//status", "/status/", "/Status", "/keys/%2F", "/keys/x",
        f"/keys/{KEYS[0].upper()}/", f"/keys/{KEYS[0]}%00", "/audit/proofs/-1", "/audit/proofs/01", "/approvals/x",
    ],
)  # fmt: skip
async def test_L13_paths_are_taken_as_they_stand(path: str) -> None:
    assert (await site().call("aud", "GET", path)).status in (403, 404)


async def test_methods_and_bodies_that_do_not_fit() -> None:
    desk = site()
    reply = await desk.call("ann", "DELETE", f"/keys/{KEYS[0]}")
    assert (reply.status, reply.headers["allow"]) == (405, "GET")
    assert (await desk.call("ann", "GET", "/lifecycle/suspend")).status == 405
    assert (await desk.call("ann", "GET", "/status", b"{}")).status == 400
    big = b'{"reason": "' + b"x" * 70_000 + b'"}'
    assert (await desk.call("ann", "POST", "/lifecycle/suspend", big)).status == 413
    for reply in (await desk.call("vic", "GET", "/status"), await desk.call("vic", "GET", "/keys")):
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["cache-control"] == "no-store"


async def test_lists_come_page_by_page_and_whole() -> None:
    desk = site()
    for path, name, of, whole in (
        ("/keys", "keys", "key_id", [*KEYS, key_id(9)]),
        ("/saes", "saes", "sae", ["a1", "a2", "b1", "b2"]),
        ("/policy", "rules", "initiator", ["a1", "b1"]),
    ):
        seen, cursor = [], ""
        while True:
            page = await desk.get("aud", f"{path}?limit=1" + (f"&cursor={cursor}" if cursor else ""))
            seen += [entry[of] for entry in page[name]]
            cursor = page["cursor"]
            if not cursor:
                break
        assert seen == whole
    assert [t["tenant"] for t in (await desk.get("tess", "/tenants"))["tenants"]] == ["acme"]
    assert [s["sae"] for s in (await desk.get("tess", "/saes"))["saes"]] == ["a1", "a2"]
    assert (await desk.call("aud", "GET", "/keys?cursor=garbage")).status == 400


@pytest.mark.proves("R096")
async def test_a_proof_leads_from_a_record_to_a_checkpoint() -> None:
    desk = site()
    for _ in range(5):
        await desk.get("vic", "/status")
    desk.desk.notes.append((5, "note of 5"))
    for number in range(5):
        proof = await desk.get("aud", f"/audit/proofs/{number}")
        from hashlib import sha256

        head = link(bytes.fromhex(proof["before"]), sha256(proof["record"].encode()).digest())
        head = extend(head, (bytes.fromhex(digest) for digest in proof["digests"]))
        assert (head, proof["note"]) == (desk.desk.rows[4][2], "note of 5")
    assert (await desk.get("aud", "/audit/proofs/0"))["before"] == GENESIS.hex()
    assert (await desk.call("aud", "GET", "/audit/proofs/5")).status == 404
    page = await desk.get("aud", "/audit/records?first=2&limit=2")
    assert ([r["number"] for r in page["records"]], page["cursor"]) == ([2, 3], "4")


async def test_jobs_are_seen_and_run_by_operators() -> None:
    desk = site()
    assert (await desk.get("olga", "/jobs"))["jobs"][0]["runs"] == 0
    assert json.loads((await desk.call("olga", "POST", "/jobs/expiry/run")).body)["runs"] == 1
    assert (await desk.call("olga", "POST", "/jobs/none/run")).status == 404
    assert (await desk.call("aud", "POST", "/jobs/expiry/run")).status == 403


async def test_API9_the_document_is_the_route_table_and_the_route_table_is_what_is_served() -> None:
    desk = site()
    told = await desk.get("vic", "/openapi.json")
    assert told == json.loads(json.dumps(document(ROUTES)))
    described = {(method.upper(), path) for path, entry in told["paths"].items() for method in entry}
    assert described == {(r.method, PREFIX + r.path) for r in ROUTES} | {("GET", f"{PREFIX}/openapi.json")}
    filled = {"key_id": KEYS[0], "proposal_id": KEYS[0], "release_id": KEYS[0], "job": "expiry", "number": "0"}
    filled |= {"tenant": "acme", "window_id": KEYS[0], "site": "x"}
    for method, path in sorted(described):
        served = {}
        for tried in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            reply = await desk.call("nobody", tried, path.removeprefix(PREFIX).format(**filled))
            served[tried] = reply.status
        assert served[method] == 403, (method, path)  # there, and closed to who has no role
        assert {tried for tried, status in served.items() if status == 405} == {
            tried for tried in served if (tried, path) not in described
        }


def test_L5_every_route_names_an_operation_that_somebody_may_do() -> None:
    assert {route.operation for route in ROUTES} == set(Operation)
    trials = {"/policy/trials", "/lifecycle/trials"}
    assert all(route.changes or route.method == "GET" or route.path in trials for route in ROUTES)


@pytest.mark.proves("R057")
async def test_I12_no_answer_has_a_place_for_key_material() -> None:
    schemas = document(ROUTES)["components"]["schemas"].values()
    told = {name for schema in schemas for name in schema["properties"]}
    assert not [name for name in told if any(word in name for word in ("material", "secret", "phrase", "private"))]
    assert "key" not in told
    desk = site()
    for who in PEOPLE:
        for route in ROUTES:
            named = {"key_id": KEYS[1], "proposal_id": KEYS[1], "release_id": KEYS[1], "tenant": "acme"}
            named |= {"window_id": KEYS[1], "site": "x"}
            path = route.path.format(**named, job="expiry", number=0)
            if route.method == "GET":
                reply = await desk.call(who, "GET", path)
                assert b"material" not in reply.body
