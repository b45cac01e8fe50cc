"""ETSI GS QKD 020 at the edge: who is let in, both modes, each problem, and that a refused request leaves nothing behind."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.api.etsi020 import InterdomainPeer, etsi020_app
from keystrand.core import errors
from keystrand.testing.asgi import App, AsgiCaller, Reply
from keystrand.testing.interdomain import MemoryInterdomain
from keystrand.testing.sinks import Ears
from keystrand.wire import etsi020 as wire
from keystrand.wire.handover import Stage

X_URL = "https://x.example/kmapi/v1/ext_keys/ack"
K1, K2 = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
VALUE = base64.b64encode(bytes(range(32))).decode()
KEYS, ACK, VOID = wire.KEYS_PATH, wire.ACK_PATH, wire.VOID_PATH
PEERS = {
    "kme-x": InterdomainPeer(kme_id="kme-x", callback_url=X_URL),
    "kme-z": InterdomainPeer(kme_id="kme-z", callback_url="https://z.example/ack"),
}


class Estate:
    def __init__(self, **options: object) -> None:
        self.kme = MemoryInterdomain({"kme-x": "https://y.example/ack", "kme-z": None}, {"sae-c": True, "sae-d": True})
        self.heard = Ears()
        self.app: App = etsi020_app(self.kme, PEERS, sink=self.heard, **options)  # type: ignore[arg-type]

    async def post(self, path: str, body: object, peer: str = "kme-x") -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await AsgiCaller(self.app, peer, kind="kme").request("POST", path, raw)


def container(*key_ids: str, **members: object) -> dict[str, object]:
    keys = [{"key_id": key_id, "value": VALUE} for key_id in key_ids or (K1,)]
    return {"keys": keys, "initiator_sae_id": "sae-a", "target_sae_ids": ["sae-c"], **members}


def void(*key_ids: str, **members: object) -> dict[str, object]:
    return {"key_ids": list(key_ids), "initiator_sae_id": "sae-a", "target_sae_ids": ["sae-c"], **members}


def slug(reply: Reply) -> str:
    problem = json.loads(reply.body)
    assert problem["status"] == reply.status
    assert reply.headers["content-type"] == "application/json; charset=UTF-8"
    return str(problem["type"].removeprefix("https://qkd.etsi.org/gs020-interop-kms/"))


@pytest.mark.parametrize(("synchronous", "capabilities"), [(True, {"capabilities": ["synchronous_mode"]}), (False, {})])
async def test_versions(synchronous: bool, capabilities: dict[str, object]) -> None:
    reply = await AsgiCaller(Estate(synchronous=synchronous).app, "kme-x", kind="kme").request(
        "GET", wire.VERSIONS_PATH
    )
    assert reply.status == 200
    assert json.loads(reply.body) == {"versions": ["v1"]} | capabilities


async def test_synchronous_mode_answers_with_the_outcome_and_sends_no_ack() -> None:
    estate = Estate()
    reply = await estate.post(KEYS, container(K1, K2))
    assert reply.status == 200
    assert json.loads(reply.body) == [
        {
            "key_id_container": [{"key_id": K1}, {"key_id": K2}],
            "ack_status": "relayed",
            "initiator_sae_id": "sae-a",
            "target_sae_ids": ["sae-c"],
        }
    ]
    assert estate.kme.engine.due(1e12) == []
    assert estate.kme.release(K1).material.reveal() == bytes(range(32))


async def test_asynchronous_mode_says_202_and_owes_an_ack() -> None:
    estate = Estate()
    for _ in range(2):  # and the same again
        reply = await estate.post(KEYS, container(ack_callback_url=X_URL))
        assert (reply.status, reply.body) == (202, b"")
    (request,) = estate.kme.engine.due(1e12)
    assert isinstance(request.body, tuple)
    assert [(ack.status, ack.key_ids) for ack in request.body] == [("relayed", (K1,))]


async def test_408_leaves_the_keys_and_the_same_request_later_gets_the_outcome() -> None:
    estate = Estate()
    estate.kme.reach["sae-c"] = None
    assert slug(await estate.post(KEYS, container())) == "timeout"
    assert estate.kme.engine.stage(K1) is Stage.HELD
    estate.kme.engine.settle([K1], relayed=True, now_s=1.0)
    reply = await estate.post(KEYS, container())
    assert json.loads(reply.body)[0]["ack_status"] == "relayed"


@pytest.mark.parametrize(
    ("name", "kind"), [("kme-q", "kme"), ("kme-x", "sae"), ("kme-x", None), ("KME-X", "kme"), ("kme-x", "module")]
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", wire.VERSIONS_PATH), ("POST", KEYS), ("POST", ACK), ("POST", VOID), ("GET", "/none")]
)
async def test_only_KMEs_of_the_table_are_served(name: str, kind: str | None, method: str, path: str) -> None:
    estate = Estate()
    reply = await AsgiCaller(estate.app, name, kind=kind).request(method, path, json.dumps(container()).encode())
    assert (reply.status, slug(reply)) == (401, "unauthorized")
    assert estate.kme.store.saved == {}


@pytest.mark.parametrize("path", ["/kmapi/v1/versions", "/kmapi", "/kmapi/versions/", "/kmapi/v1/ext_keys/%2e", "/"])
async def test_other_paths_are_404(path: str) -> None:
    assert (await Estate().post(path, {})).status == 404


@pytest.mark.parametrize(
    ("method", "path"), [("GET", KEYS), ("PUT", ACK), ("POST", wire.VERSIONS_PATH), ("HEAD", VOID)]
)
async def test_other_methods_are_405(method: str, path: str) -> None:
    reply = await AsgiCaller(Estate().app, "kme-x", kind="kme").request(method, path, b"")
    assert reply.status == 405
    assert reply.headers["allow"] == ("GET" if path == wire.VERSIONS_PATH else "POST")


@pytest.mark.parametrize(
    "url",
    ["https://x.example/kmapi/v1/ext_keys/ack/", "https://X.example/kmapi/v1/ext_keys/ack", "https://evil.example/ack",
     "https://x.example@evil.example/kmapi/v1/ext_keys/ack", "https://z.example/ack"],
)  # fmt: skip
@pytest.mark.parametrize(("path", "body"), [(KEYS, container), (VOID, lambda **named: void(K1, **named))])
async def test_a_callback_that_is_not_the_configured_one_is_refused(url: str, path: str, body) -> None:  # type: ignore[no-untyped-def]
    estate = Estate()
    reply = await estate.post(path, body(ack_callback_url=url))
    assert (reply.status, slug(reply)) == (400, "invalid-parameter")
    assert "ack_callback_url" in json.loads(reply.body)["details"]
    assert estate.kme.store.saved == {}


async def test_400_never_names_keys_that_are_held() -> None:
    """A KME that answered 400 to ext_keys holds nothing; so what is off with keys it holds is answered by 503."""
    estate = Estate()
    await estate.post(KEYS, container(ack_callback_url=X_URL))
    other = base64.b64encode(b"\7" * 32).decode()
    for body in (
        container(ack_callback_url="https://evil.example/ack"),
        container(keys=[{"key_id": K1, "value": other}]),
        container(initiator_sae_id="sae-b"),
        container(K1, target_sae_ids=["sae-nowhere"]),
        container(K2, K1, target_sae_ids=["sae-d"]),
    ):
        reply = await estate.post(KEYS, body)
        assert (reply.status, slug(reply)) == (503, "server-side-general-error")
    assert (await estate.post(KEYS, container(), peer="kme-z")).status == 503
    estate.kme.reach.clear()  # whatever policy says by now
    assert (await estate.post(KEYS, container(ack_callback_url=X_URL))).status == 202
    assert set(estate.kme.store.saved) == {K1}
    assert estate.kme.release(K1).material.reveal() == bytes(range(32))


async def test_without_synchronous_mode_a_callback_is_asked_for() -> None:
    estate = Estate(synchronous=False)
    for path, body in ((KEYS, container()), (VOID, void(K1))):
        reply = await estate.post(path, body)
        assert (reply.status, slug(reply)) == (400, "missing-parameters")
    assert estate.kme.store.saved == {}


async def test_unknown_mandatory_extensions_are_refused_and_optional_ones_passed_on_unchanged() -> None:
    estate = Estate(supported=frozenset({"E32473_known"}))
    reply = await estate.post(KEYS, container(extension_mandatory={"E32473_new": 1, "E32473_known": 2}))
    assert (reply.status, slug(reply)) == (503, "unsupported-mandatory-extension")
    assert json.loads(reply.body)["details"] == {"unsupported_mandatory_extension": "not supported: E32473_new"}
    assert estate.kme.store.saved == {}
    text = rb'{"E32473_a" : {"b":[1.50, 1e400 ,"\u00e9\/"],  "a":-0.0}, "x":12345678901234567890123}'
    raw = json.dumps(container(extension_mandatory={"E32473_known": 2}))[:-1].encode()
    assert (await estate.post(KEYS, raw + b', "extension_optional":' + text + b"}")).status == 200
    (forwarded,) = estate.kme.forwarded
    assert forwarded.optional == {
        "E32473_a": rb'{"b":[1.50, 1e400 ,"\u00e9\/"],  "a":-0.0}',
        "x": b"12345678901234567890123",
    }
    assert rb'"E32473_a":{"b":[1.50, 1e400 ,"\u00e9\/"],  "a":-0.0}' in wire.print_ext_keys(forwarded)


async def test_void_before_and_after_delivery() -> None:
    estate = Estate()
    await estate.post(KEYS, container(K1, K2))
    estate.kme.release(K1)
    acks = {ack["ack_status"]: ack for ack in json.loads((await estate.post(VOID, void(K1, K2))).body)}
    assert acks["failed to void"]["key_id_container"] == [{"key_id": K1}]
    assert acks["voided"]["key_id_container"] == [{"key_id": K2}]
    with pytest.raises(errors.UnknownKey):
        estate.kme.release(K2)
    again = await estate.post(KEYS, container(K2))  # overtaken by its void
    assert json.loads(again.body)[0]["ack_status"] == "voided"


async def test_a_void_that_overtakes_its_keys_keeps_them_out() -> None:
    estate = Estate()
    reply = await estate.post(VOID, void(K1))
    assert json.loads(reply.body)[0]["ack_status"] == "key not present"
    assert json.loads((await estate.post(KEYS, container())).body)[0]["ack_status"] == "voided"


async def test_an_empty_void_needs_its_confirmation_and_voids_only_these_parties() -> None:
    estate = Estate()
    await estate.post(KEYS, container(K1))
    await estate.post(KEYS, container(K2, target_sae_ids=["sae-d"]))
    for body in (void(), void(all_confirmation=False)):
        reply = await estate.post(VOID, body)
        assert (reply.status, slug(reply)) == (400, "no-key-ids-or-confirmation")
        assert {"no_all_confirmation", "no_key_ids_or_confirmation"} == set(json.loads(reply.body)["details"])
    assert (await estate.post(VOID, void(all_confirmation=True), peer="kme-z")).status == 400
    assert estate.kme.engine.stage(K1) is Stage.READY
    assert (await estate.post(VOID, void(all_confirmation=True))).status == 200
    assert estate.kme.engine.stage(K1) is Stage.VOIDED
    assert estate.kme.engine.stage(K2) is Stage.READY


@pytest.mark.parametrize("change", [{"initiator_sae_id": "sae-b"}, {"target_sae_ids": ["sae-d"]}])
async def test_voids_and_acks_of_others_change_nothing(change: dict[str, object]) -> None:
    estate = Estate()
    await estate.post(KEYS, container())
    assert slug(await estate.post(VOID, void(K1, **change))) == "key-not-present"
    assert slug(await estate.post(VOID, void(K1, K2), peer="kme-z")) == "key-not-present"
    ack = [{"key_id_container": [{"key_id": K1}], "ack_status": "voided", **void()} | change]
    assert slug(await estate.post(ACK, ack)) == "key-not-present"
    assert {key: record.stage for key, record in estate.kme.store.saved.items()} == {K1: Stage.READY}


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def receive_keys(self, *args: object) -> None:
        raise self.error

    holds = acknowledge = void_keys = receive_keys


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.NotPermitted("no"), 401, "unauthorized"),
        (errors.BadRequest("off"), 400, "invalid-parameter"),
        (errors.KeyUnavailable("none"), 503, "insufficient-key-material"),
        (errors.PeerUnavailable("slow"), 408, "timeout"),
        (errors.StoreUnavailable("disk"), 503, "server-side-general-error"),
        (RuntimeError("/etc/secret"), 503, "server-side-general-error"),
    ],
)
async def test_what_fails_behind_the_edge(error: Exception, status: int, kind: str) -> None:
    app = etsi020_app(Failing(error), PEERS, sink=Ears())  # type: ignore[arg-type]
    caller = AsgiCaller(app, "kme-x", kind="kme")
    reply = await caller.request("POST", KEYS, json.dumps(container()).encode())
    assert (reply.status, slug(reply)) == (status, kind)
    assert b"secret" not in reply.body
    assert ("retry-after" in reply.headers) == (status == 503)


def _without(body: dict[str, object], name: str) -> dict[str, object]:
    return {member: value for member, value in body.items() if member != name}


def _bad_keys() -> list[object]:
    good = container()
    bad: list[object] = [_without(good, name) for name in good]
    wrong: list[object] = [None, 1, True, {}, "", "x", [], [None], [1], [[]], [""], ["é"], ["sae-c", "sae-c"]]
    bad += [good | {name: value} for name in ("keys", "target_sae_ids") for value in wrong if value != ["sae-c"]]
    bad += [
        good | {"initiator_sae_id": value} for value in (None, 1, [], "", " sae-a", "sae-a\n", "ſae-a", "a" * 65, "a/b")
    ]
    bad += [good | {"target_sae_ids": [f"s{n}" for n in range(65)]}, good | {"keys": [good["keys"][0]] * 2}]  # type: ignore[index]
    bad += [good | {"keys": [{"key_id": K1, "value": value}]} for value in
            (None, 5, "", "=", "AA", "AA=", "AB==", "AAA\n", " AAAA", "AA-_", "ＡＡＡＡ", "A" * 5500, VALUE + "=")]  # fmt: skip
    bad += [good | {"keys": [{"key_id": value, "value": VALUE}]} for value in
            (None, 5, "", K1[:-1], "{" + K1 + "}", K1.replace("-", ""), "urn:uuid:" + K1, K1 + "\n",
             "０" + K1[1:])]  # fmt: skip
    bad += [good | {"keys": [{"key_id": K1, "value": VALUE, "extension": value}]} for value in (None, 1, [])]
    bad += [good | {"ack_callback_url": url} for url in (None, 1, "", "http://x.example/", "https://", "https://x y/")]
    bad += [good | {"ack_callback_url": "https://x/" + "a" * 1024}, good | {"ack_callback_url": X_URL + "\n"}]
    bad += [
        good | {name: value} for name in ("extension_optional", "extension_mandatory") for value in (None, [], {}, 1)
    ]
    bad += [good | {"extension_optional": {f"E{n}": 0 for n in range(1025)}}]
    return bad


_TEXT = json.dumps(container()).encode()
_OPTIONAL = _TEXT[:-1] + b',"extension_optional":'
_RAW = [
    b"", b"null", b"[]", b"1", b"{", b'"x"', b"\xef\xbb\xbf" + _TEXT, _TEXT.decode().encode("utf-16"), _TEXT + b"x",
    _TEXT[:-1] + b',"keys":[]}', _TEXT[:-1] + b',"initiator_sae_id":"sae-b"}',
    _TEXT.replace(b'{"key_id"', b'{"key_id":"x","key_id"'), _OPTIONAL + b'{"a":NaN}}', _OPTIONAL + b'{"a":1,"a":2}}',
    _OPTIONAL + b'{"a":' + b"[" * 20 + b"]" * 20 + b"}}", _OPTIONAL + b'{"\\ud800":1}}', b"[" * 100_000, b'{"a":"\xff"}',
    b" " * (1 << 20) + _TEXT, b'{"keys":' + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("body", [*_bad_keys(), *_RAW], ids=lambda body: repr(body)[:60])
async def test_bad_containers_are_400_and_leave_nothing(body: object) -> None:
    estate = Estate()
    reply = await estate.post(KEYS, body)
    assert reply.status == 400, body
    assert slug(reply) in ("missing-parameters", "invalid-parameter")
    assert estate.kme.store.saved == {}
    assert VALUE.encode() not in reply.body


def _bad_acks() -> list[object]:
    good = {"key_id_container": [{"key_id": K1}], "ack_status": "relayed", **_without(void(), "key_ids")}
    bad: list[object] = [good, [], None, [None], [[good]], {}, [good] * 1025]
    bad += [[_without(good, name)] for name in good]
    bad += [
        [good | {"ack_status": value}] for value in (None, "", "Relayed", "failed_to_void", "failed  to void", 1, [])
    ]
    bad += [[good | {"key_id_container": value}] for value in (None, [], [K1], [{}], [{"key_id": 1}], {"key_id": K1})]
    bad += [[good | {"message": value}] for value in (None, 1, "x" * 4097)] + [[good | {"extension": []}]]
    return bad


@pytest.mark.parametrize("body", [*_bad_acks(), *_RAW], ids=lambda body: repr(body)[:60])
async def test_bad_acks_are_400_and_change_nothing(body: object) -> None:
    estate = Estate()
    await estate.post(KEYS, container())
    assert (await estate.post(ACK, body)).status == 400
    assert {key: record.stage for key, record in estate.kme.store.saved.items()} == {K1: Stage.READY}


@pytest.mark.parametrize(
    "body",
    [*_RAW, _without(void(K1), "key_ids"), void(K1, all_confirmation=1), void(K1, all_confirmation=None), void(K1, K1),
     void("x"), void(K1) | {"key_ids": K1}, void(K1) | {"key_ids": [{"key_id": K1}]}, void(K1, extension=1),
     void(K1) | {"key_ids": [K1.upper(), K1]}, void(all_confirmation="true"), void(K1, target_sae_ids=[])],
    ids=lambda body: repr(body)[:60],
)  # fmt: skip
async def test_bad_voids_are_400_and_change_nothing(body: object) -> None:
    estate = Estate()
    await estate.post(KEYS, container())
    assert (await estate.post(VOID, body)).status == 400
    assert estate.kme.engine.stage(K1) is Stage.READY


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=6)
    | st.sampled_from([K1, VALUE, "sae-a", X_URL, "voided"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["keys", "key_ids", "initiator_sae_id", "target_sae_ids", "ack_callback_url", "all_confirmation", "extension",
          "extension_optional", "key_id_container", "ack_status"]  # fmt: skip


@settings(max_examples=600, derandomize=True, deadline=None)
@given(
    st.sampled_from([KEYS, ACK, VOID]),
    st.dictionaries(st.sampled_from(FIELDS), JSON),
    st.booleans(),
    st.binary(max_size=4),
)
async def test_any_request_is_answered_inside_the_contract(path: str, change: dict, array: bool, tail: bytes) -> None:  # type: ignore[type-arg]
    estate = Estate()
    body = container() | void(K1) | change
    raw = json.dumps([body] if array else body).encode() + tail
    reply = await estate.post(path, raw)
    assert reply.status in (200, 202, 400, 408, 503)
    assert reply.status != 400 or estate.kme.store.saved == {}
    if reply.status == 503:
        assert slug(reply) == "unsupported-mandatory-extension"
