"""The edge: who is let in, how paths are read, what each error becomes, and that refusals change nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.api.etsi014 import KEY_ROUTES, Etsi014
from keystrand.core import errors
from keystrand.core.key import Key
from keystrand.core.limits import Limits
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.testing.asgi import App, AsgiCaller
from keystrand.testing.keyservice import MemoryNetwork
from keystrand.testing.sinks import Ears

SITES = {"sae-a": "alpha", "sae-b": "bravo"}
ENC = "/api/v1/keys/sae-b/enc_keys"
REPORT = {"state": "progress", "peer": "sae-b", "bytes_done": 5, "bytes_total": 10, "rotations": 1}


def edge(network: MemoryNetwork | None = None) -> tuple[App, MemoryNetwork, Ears]:
    network, heard = network or MemoryNetwork(SITES), Ears()
    return Etsi014(network.at("alpha"), limits=Limits(), sink=heard), network, heard


class Failing:
    """A service whose every method raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def status(self, *args: object, **named: object) -> None:
        raise self.error

    get_key = get_key_with_ids = note_use = status


ROUTES = [("GET", f"/api/v1/keys/sae-b/{verb}") for verb in KEY_ROUTES]
USE = "/keystrand/v1/keys/11111111-1111-4111-8111-111111111111/use"
ROUTES += [
    ("POST", ENC),
    ("POST", "/keystrand/v1/transfers/t1"),
    ("POST", "/keystrand/v1/tunnels/t1"),
    ("POST", USE),
    ("GET", "/nothing"),
    ("PUT", ENC),
]


@pytest.mark.proves("R026", "R046")
@pytest.mark.parametrize("kind", [None, "kme", "module", "admin", ""])
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_is_for_saes_only(method: str, path: str, kind: str | None) -> None:
    app, network, heard = edge()
    reply = await AsgiCaller(app, "sae-a", kind=kind).request(method, path, b"")
    assert (reply.status, reply.body) == (401, b"")
    assert reply.headers["cache-control"] == "no-store"
    assert network.held == {}
    assert [event.kind for event in heard.events] == ["request.refused"]


@pytest.mark.proves("R046")
async def test_the_certificate_decides_who_asks() -> None:
    app, network, _ = edge()
    reply = await AsgiCaller(app, "sae-a").request("POST", ENC, b'{"master_SAE_ID":"sae-x","SAE_ID":"sae-x"}')
    assert reply.status == 200
    assert [held.initiator for held in network.held.values()] == ["sae-a"]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (errors.NotPermitted("sae-a may not"), 401, None),
        (errors.BadRequest("number is off"), 400, "number is off"),
        (errors.UnknownKey("gone"), 400, "gone"),
        (errors.KeyUnavailable("the pool lacks bits", retry_after_s=7), 503, "the pool lacks bits"),
        (errors.StoreUnavailable("disk"), 503, "disk"),
        (errors.PeerFault("inner"), 503, "the KME cannot serve this now"),
        (errors.IllegalTransition("inner"), 503, "the KME cannot serve this now"),
        (RuntimeError("inner /etc/secret"), 503, "the KME cannot serve this now"),
    ],
)
async def test_errors_become_answers(error: Exception, status: int, message: str | None) -> None:
    heard = Ears()
    app = Etsi014(Failing(error), limits=Limits(), sink=heard)  # type: ignore[arg-type]
    reply = await AsgiCaller(app, "sae-a").request("POST", ENC, b"{}")
    assert reply.status == status
    assert (json.loads(reply.body)["message"] if reply.body else None) == message
    assert ("retry-after" in reply.headers) == (status == 503)
    assert heard.events[0].fields["reason"] == type(error).__name__
    if isinstance(error, errors.KeyUnavailable):
        assert reply.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/v1/keys/sae-b",
        "/api/v1/keys/sae-b/enc_keys/",
        "/api/v1/keys//enc_keys",
        "//api/v1/keys/sae-b/enc_keys",
        "/api/v1/keys/sae-b%2Fenc_keys",
        "/api/v1/keys/x/../sae-b/enc_keys",
        "/api/v1/keys/%2e%2e/enc_keys",
        "/api/v1/keys/%252e/enc_keys",
        "/api/v1/keys/sae-b%ff/enc_keys",
        "/API/v1/keys/sae-b/enc_keys",
        "/api/v1/keys/sae-b/enc_keys%00",
        "/api/v1/keys/sae%00b/enc_keys",
        "/keystrand/v1/transfers",
    ],
)
async def test_paths_are_split_before_they_are_decoded(path: str) -> None:
    app, network, _ = edge()
    reply = await AsgiCaller(app, "sae-a").request("POST", path, b"{}")
    assert reply.status in (400, 404)
    assert network.held == {}


async def test_an_escaped_letter_is_the_letter() -> None:
    app, _, _ = edge()
    assert (await AsgiCaller(app, "sae-a").request("GET", "/api/v1/keys/s%61e-b/enc_keys")).status == 200


@pytest.mark.parametrize(
    ("method", "verb"), [("PUT", "enc_keys"), ("DELETE", "dec_keys"), ("POST", "status"), ("HEAD", "status")]
)
async def test_other_methods_are_405_and_say_which(method: str, verb: str) -> None:
    app, _, _ = edge()
    reply = await AsgiCaller(app, "sae-a").request(method, f"/api/v1/keys/sae-b/{verb}", b"")
    assert reply.status == 405
    assert "GET" in reply.headers["allow"]


async def test_bodies_are_bounded_and_json() -> None:
    app, network, _ = edge()
    caller = AsgiCaller(app, "sae-a")
    assert (await caller.request("POST", ENC, b" " * 65_537)).status == 413
    told = AsgiCaller(app, "sae-a", headers=((b"content-length", b"65537"), (b"content-type", b"application/json")))
    assert (await told.request("POST", ENC, b"{}")).status == 413
    for kind in (b"text/plain", b"application/xml", b"application/json; charset=latin-1"):
        text = AsgiCaller(app, "sae-a", headers=((b"content-type", kind),))
        assert (await text.request("POST", ENC, b"{}")).status == 415
    assert network.held == {}
    utf8 = AsgiCaller(app, "sae-a", headers=((b"content-type", b"Application/JSON; charset=UTF-8"),))
    assert (await utf8.request("POST", ENC, b"{}")).status == 200
    assert (await AsgiCaller(app, "sae-a", headers=()).request("POST", ENC, b"")).status == 200


async def test_I12_material_is_wiped_once_the_answer_is_built() -> None:
    key = Key(
        key_id="bc490419-7d60-487f-adc1-4ddcc177c139", material=Secret(b"\x11" * 32), strands=frozenset({Strand.QKD})
    )

    class One(Failing):
        async def get_key(self, *args: object, **named: object) -> list[Key]:
            return [key]

    app = Etsi014(One(RuntimeError()), limits=Limits(), sink=Ears())  # type: ignore[arg-type]
    reply = await AsgiCaller(app, "sae-a").request("POST", ENC, b"{}")
    assert b"ERERERER" in reply.body
    assert key.material.reveal() == bytes(32)


TEXT = st.sampled_from(
    ["api", "v1", "keys", "sae-a", "sae-b", "enc_keys", "dec_keys", "status", "..", "%2f", "%", "é", ""]
)
PATHS = st.lists(TEXT, max_size=7).map(lambda parts: "/" + "/".join(parts)) | st.sampled_from(
    [path for _, path in ROUTES]
)
QUERIES = st.sampled_from(
    ["", "?", "?number=1", "?number=1&number=2", "?size=257", "?key_ID=1", "?%ff=%fe", "?a;b", "?" + "a=1&" * 20]
)
BODIES = st.binary(max_size=64) | st.sampled_from(
    [
        b"{}",
        b'{"number":2}',
        b'{"number":-1}',
        b'{"size":257}',
        b'{"key_IDs":[{"key_ID":"x"}]}',
        json.dumps(REPORT).encode(),
    ]
)


@settings(max_examples=600, derandomize=True, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "X"]), PATHS, QUERIES, BODIES, st.sampled_from(["sae-a", "sae-x", "sae-b"])
)
async def test_any_request_is_answered_inside_the_contract_and_refusals_change_nothing(
    method: str, path: str, query: str, body: bytes, name: str
) -> None:
    app, network, heard = edge()
    reply = await AsgiCaller(app, name).request(method, path + query, body)
    assert reply.status in (200, 204, 400, 401, 404, 405, 413, 415)
    assert bool(network.held) == (reply.status == 200 and "enc_keys" in path)
    if reply.status >= 400:
        assert not [event for event in heard.events if event.kind != "request.refused"]


# telemetry of gateways -----------------------------------------------------------------------------------------------


async def test_a_gateway_reports_and_the_event_names_its_certificate() -> None:
    app, _, heard = edge()
    body = json.dumps(REPORT | {"sae": "sae-x", "transfer_id": "other"}).encode()
    reply = await AsgiCaller(app, "sae-a").request("POST", "/keystrand/v1/transfers/t-1", body)
    assert (reply.status, reply.body) == (204, b"")
    assert "content-length" not in reply.headers
    (event,) = heard.events
    assert event.kind == "transfer.progress"
    assert (event.fields["sae"], event.fields["transfer_id"], event.fields["bytes_done"]) == ("sae-a", "t-1", 5)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "exploded"},
        {"bytes_done": -1},
        {"bytes_done": 2**60},
        {"bytes_done": "5"},
        {"bytes_done": None},
        {"throughput_bytes_per_s": -1.0},
        {"peer": "a b"},
        {"peer": "x" * 200},
        {"key_id": "no uuid"},
        {"message": "line\nbreak"},
        {"message": "x" * 129},
        {"protection": "perfect"},
    ],
)
async def test_a_report_that_is_off_is_refused(change: dict[str, object]) -> None:
    app, _, heard = edge()
    body = json.dumps(REPORT | change).encode()
    reply = await AsgiCaller(app, "sae-a").request("POST", "/keystrand/v1/transfers/t-1", body)
    assert reply.status == 400
    assert [event.kind for event in heard.events] == ["request.refused"]


@pytest.mark.parametrize("state", ["started", "rotated", "waiting", "resumed", "finished", "failed"])
async def test_every_state_of_a_transfer_is_an_event(state: str) -> None:
    app, _, heard = edge()
    body = json.dumps(REPORT | {"state": state, "bytes_total": None}).encode()
    assert (await AsgiCaller(app, "sae-a").request("POST", "/keystrand/v1/transfers/t-1", body)).status == 204
    assert heard.events[0].kind == ("transfer.progress" if state == "waiting" else f"transfer.{state}")
    assert "bytes_total" not in heard.events[0].fields


# use of keys ---------------------------------------------------------------------------------------------------------


async def test_whoever_holds_a_key_reports_its_use_and_others_learn_nothing() -> None:
    app, network, _ = edge(MemoryNetwork({"sae-a": "alpha", "sae-c": "alpha", "sae-b": "bravo"}))
    assert (await AsgiCaller(app, "sae-a").request("POST", ENC, b"{}")).status == 200
    (key_id,) = network.held
    body = b'{"consumer": "tunnel west", "uses": 1, "bytes": 2048}'
    reply = await AsgiCaller(app, "sae-a").request("POST", f"/keystrand/v1/keys/{key_id}/use", body)
    assert (reply.status, json.loads(reply.body)) == (200, {"state": "active", "rotation_due": False})
    foreign = await AsgiCaller(app, "sae-c").request("POST", f"/keystrand/v1/keys/{key_id}/use", body)
    missing = await AsgiCaller(app, "sae-c").request("POST", USE, body)
    assert foreign.status == missing.status == 400
    assert foreign.body.replace(key_id.encode(), b"") == missing.body.replace(USE.split("/")[4].encode(), b"")


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"consumer": ""}', b'{"consumer": "t", "uses": -1}', b'{"consumer": "t", "bytes": 1.5}',
     b'{"consumer": "a\nb"}', b'{"consumer": "t", "key": "x"}', b'{"consumer": "t", "uses": 18446744073709551616}'],
)  # fmt: skip
async def test_a_report_of_use_that_is_off_is_refused(body: bytes) -> None:
    app, network, heard = edge()
    await AsgiCaller(app, "sae-a").request("POST", ENC, b"{}")
    (key_id,) = network.held
    reply = await AsgiCaller(app, "sae-a").request("POST", f"/keystrand/v1/keys/{key_id}/use", body)
    assert reply.status == 400
    assert [event.kind for event in heard.events] == ["request.refused"]
