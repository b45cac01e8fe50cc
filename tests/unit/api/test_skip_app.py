"""Cisco SKIP at the edge: statuses and bodies, the table of systems, one delivery, and nothing told to strangers."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.api.skip import NO_SUCH_KEY, NO_SUCH_REMOTE, SkipEncryptor, SkipSite, skip_app
from keystrand.core import errors
from keystrand.core.key import Key
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.testing.asgi import App, AsgiCaller, Reply
from keystrand.testing.keyservice import MemoryNetwork
from keystrand.testing.sinks import Ears

SITES = {"enc-a": "alpha", "enc-a2": "alpha", "enc-b": "bravo", "enc-b-LOC2": "bravo", "enc-c": "bravo"}
ALPHA = SkipSite(
    encryptors={
        "enc-a": SkipEncryptor(
            system_id="KP_A", remotes={"KP_B": "enc-b", "KP_*_LOC2": "enc-*-LOC2", "KP_C": "enc-c", "KP_A": "enc-a"}
        ),
        "enc-a2": SkipEncryptor(system_id="KP_A2", remotes={"KP_B": "enc-b"}),
    }
)
BRAVO = SkipSite(
    encryptors={
        "enc-b": SkipEncryptor(system_id="KP_B", remotes={"KP_A": "enc-a", "KP_A2": "enc-a2"}),
        "enc-c": SkipEncryptor(system_id="KP_C", remotes={"KP_A": "enc-a"}),
    }
)


class Estate:
    def __init__(self, **network: object) -> None:
        self.network = MemoryNetwork(SITES, **network)  # type: ignore[arg-type]
        self.heard = Ears()
        self.alpha: App = skip_app(self.network.at("alpha"), ALPHA, sink=self.heard)
        self.bravo: App = skip_app(self.network.at("bravo"), BRAVO, sink=self.heard)

    async def get(self, name: str, path: str, method: str = "GET", kind: str | None = "sae") -> Reply:
        app = self.alpha if name.startswith("enc-a") else self.bravo
        return await AsgiCaller(app, name, kind=kind).request(method, path)

    async def new_key(self, query: str = "remoteSystemID=KP_B") -> dict[str, str]:
        reply = await self.get("enc-a", f"/key?{query}")
        assert reply.status == 200, reply.body
        return json.loads(reply.body)  # type: ignore[no-any-return]

    def waiting(self) -> set[str]:
        return {key_id for key_id, held in self.network.held.items() if held.waiting}


def words(reply: Reply) -> str:
    return str(json.loads(reply.body)["message"])


async def test_capabilities_say_who_we_are_and_whom_we_reach() -> None:
    reply = await Estate().get("enc-a", "/capabilities")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert json.loads(reply.body) == {
        "entropy": True,
        "key": True,
        "algorithm": "QKD, ML-KEM-768",
        "localSystemID": "KP_A",
        "remoteSystemID": ["KP_*_LOC2", "KP_A", "KP_B", "KP_C"],
    }


@pytest.mark.parametrize(("query", "bits"), [("", 256), ("&size=256", 256), ("&size=192", 192), ("&size=128", 128)])
async def test_I2_both_encryptors_get_the_same_key_and_each_once(query: str, bits: int) -> None:
    estate = Estate()
    made = await estate.new_key("remoteSystemID=KP_B" + query)
    assert set(made) == {"keyId", "key"}
    assert len(bytes.fromhex(made["keyId"])) == 16
    assert 8 * len(bytes.fromhex(made["key"])) == bits
    path = f"/key/{made['keyId'].upper()}?remoteSystemID=KP_A"
    assert json.loads((await estate.get("enc-b", path)).body) == made
    again = await estate.get("enc-b", path)
    assert (again.status, words(again)) == (400, NO_SUCH_KEY)
    assert estate.waiting() == set()


async def test_a_pattern_stands_for_at_least_one_character_and_exact_entries_win() -> None:
    encryptor = SkipEncryptor(system_id="A", remotes={"K*": "any-*", "KP_*": "kp-*", "KP_B": "enc-b"})
    assert [encryptor.sae_of(name) for name in ("KP_B", "KP_C", "KX", "K", "k_x", "KP_*")] == [
        "enc-b", "kp-C", "any-X", None, None, None,
    ]  # fmt: skip
    estate = Estate()
    made = await estate.new_key("remoteSystemID=KP_b_LOC2")
    assert len(made["key"]) == 64
    assert next(iter(estate.network.held.values())).recipients == {"enc-b-LOC2"}


@pytest.mark.parametrize(
    ("system_id", "remotes"),
    [("", {}), ("A B", {}), ("A*", {}), ("A", {"*_*": "x"}), ("A", {"B": "x*"}), ("A", {"Б": "x"}), ("A", {"B": ""})],
)
def test_a_table_that_cannot_be_meant_is_refused(system_id: str, remotes: dict[str, str]) -> None:
    with pytest.raises(errors.ConfigError):
        SkipEncryptor(system_id=system_id, remotes=remotes)


async def test_I1_a_key_is_for_the_remote_that_it_was_made_for() -> None:
    """A key provider that only looks the keyId up hands it to whoever asks."""
    estate = Estate()
    key_id = (await estate.new_key())["keyId"]
    for name, remote in (("enc-c", "KP_A"), ("enc-b", "KP_A2"), ("enc-a", "KP_B"), ("enc-a", "KP_C")):
        reply = await estate.get(name, f"/key/{key_id}?remoteSystemID={remote}")
        assert (reply.status, words(reply)) == (400, NO_SUCH_KEY)
    never = await estate.get("enc-b", f"/key/{'0' * 32}?remoteSystemID=KP_A")
    assert (never.status, words(never)) == (400, NO_SUCH_KEY)
    assert len(estate.waiting()) == 1
    assert (await estate.get("enc-b", f"/key/{key_id}?remoteSystemID=KP_A")).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "get"])
@pytest.mark.parametrize("path", ["/capabilities", "/key?remoteSystemID=KP_B", "/entropy", "/key/00", "/none"])
async def test_anything_but_GET_is_405_and_says_so(method: str, path: str) -> None:
    estate = Estate()
    reply = await estate.get("enc-a", path, method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET")
    assert estate.network.held == {}


@pytest.mark.parametrize(
    ("name", "kind"), [("enc-x", "sae"), ("enc-b", "sae"), ("enc-a", "kme"), ("enc-a", "module"), ("enc-a", None)]
)
@pytest.mark.parametrize("path", ["/capabilities", "/key?remoteSystemID=KP_B", "/entropy", "/none"])
async def test_who_is_no_encryptor_of_this_site_learns_nothing(name: str, kind: str | None, path: str) -> None:
    estate = Estate()
    reply = await AsgiCaller(estate.alpha, name, kind=kind).request("GET", path)
    assert (reply.status, reply.body) == (401, b"")
    assert [event.kind for event in estate.heard.events] == ["request.refused"]


BAD_QUERIES = [
    "", "remoteSystemID=", "remoteSystemId=KP_B", "RemoteSystemID=KP_B", "remoteSystemID=kp_b", "remoteSystemID=KP_B%00",
    "remoteSystemID=KP_B%20", "remoteSystemID=KP_%D0%92", "remoteSystemID=%EF%BC%AB%EF%BC%B0_B", "remoteSystemID=KP_X",
    "remoteSystemID=KP_*_LOC2", "remoteSystemID=KP__LOC2", "remoteSystemID=" + "K" * 65, "remoteSystemID=KP_A",
    "remoteSystemID=KP_B&remoteSystemID=KP_B", "remoteSystemID=KP_B&remoteSystemID=KP_C", "remoteSystemID=%ff",
    "remoteSystemID=KP_B&size=", "remoteSystemID=KP_B&size=0", "remoteSystemID=KP_B&size=-256", "remoteSystemID=KP_B&size=255",
    "remoteSystemID=KP_B&size=512", "remoteSystemID=KP_B&size=1e3", "remoteSystemID=KP_B&size=%D9%A1%D9%A2%D9%A8",
    "remoteSystemID=KP_B&size=+256", "remoteSystemID=KP_B&size=256&size=128", "remoteSystemID=KP_B&size=" + "9" * 4000,
    "remoteSystemID", "&" * 20, "a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8&remoteSystemID=KP_B", "remoteSystemID=KP_B&size=null",
]  # fmt: skip


@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_a_bad_query_is_400_and_changes_nothing(query: str) -> None:
    estate = Estate()
    reply = await estate.get("enc-a", f"/key?{query}")
    assert reply.status == 400, reply.body
    assert words(reply)
    assert estate.network.held == {}


BAD_KEY_IDS = ["0", "0" * 31, "0" * 33, "g" * 32, "０" * 32, "0x" + "0" * 30, "-" * 32, "0" * 31 + " ", "{" + "0" * 31,
               "00000000-0000-0000-0000-000000000000", "0" * 31 + "\n"]  # fmt: skip


@pytest.mark.parametrize("text", BAD_KEY_IDS)
async def test_a_malformed_keyId_is_refused_and_changes_nothing(text: str) -> None:
    estate = Estate()
    await estate.new_key()
    reply = await estate.get("enc-b", f"/key/{quote(text)}?remoteSystemID=KP_A")
    assert reply.status == (400 if text.isascii() else 404)
    assert len(estate.waiting()) == 1


@pytest.mark.parametrize("query", ["", "?remoteSystemID=KP_X", "?remoteSystemID=KP_A&size=256"])
async def test_a_pickup_needs_its_remote_and_no_size(query: str) -> None:
    estate = Estate()
    key_id = (await estate.new_key())["keyId"]
    assert (await estate.get("enc-b", f"/key/{key_id}{query}")).status == 400
    assert len(estate.waiting()) == 1


@pytest.mark.parametrize("path", ["/", "/keys", "/key/a/b", "/Key", "//key", "/capabilities/", "/key/%2e%2e"])
async def test_other_paths_are_404(path: str) -> None:
    assert (await Estate().get("enc-a", path)).status == 404


@pytest.mark.parametrize(("query", "bits"), [("", 256), ("?minentropy=128", 128), ("?minentropy=4096", 4096)])
async def test_entropy_is_fresh_and_of_the_size_asked_for(query: str, bits: int) -> None:
    estate = Estate()
    answers = [json.loads((await estate.get("enc-a", "/entropy" + query)).body) for _ in range(2)]
    assert [answer["minentropy"] for answer in answers] == [bits, bits]
    assert [8 * len(bytes.fromhex(answer["randomStr"])) for answer in answers] == [bits, bits]
    assert answers[0] != answers[1]


@pytest.mark.parametrize("bits", ["0", "7", "-8", "4104", "99999999", "x", "", "8.0", "256&minentropy=256"])
async def test_entropy_out_of_bounds_is_400(bits: str) -> None:
    assert (await Estate().get("enc-a", f"/entropy?minentropy={bits}")).status == 400


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def get_key(self, *args: object, **named: object) -> list[Key]:
        raise self.error

    status = get_key_with_ids = get_key

    def bytes(self, length: int) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (errors.KeyUnavailable("the pool lacks bits", retry_after_s=7), 503, "the pool lacks bits"),
        (errors.NotPermitted("no rule joins enc-a and enc-b"), 400, NO_SUCH_REMOTE),
        (errors.PeerFault("inner"), 500, "the key provider failed"),
        (RuntimeError("inner /etc/secret"), 500, "the key provider failed"),
    ],
)
async def test_what_fails_behind_the_edge(error: Exception, status: int, text: str) -> None:
    app = skip_app(Failing(error), ALPHA, sink=Ears())  # type: ignore[arg-type]
    reply = await AsgiCaller(app, "enc-a").request("GET", "/key?remoteSystemID=KP_B")
    assert (reply.status, words(reply)) == (status, text)
    assert ("retry-after" in reply.headers) == (status == 503)


async def test_without_entropy_there_is_none() -> None:
    service = MemoryNetwork(SITES).at("alpha")
    app = skip_app(service, ALPHA, sink=Ears(), entropy=Failing(OSError("no")))
    assert (await AsgiCaller(app, "enc-a").request("GET", "/entropy")).status == 503


async def test_I12_material_is_wiped_once_the_answer_is_built() -> None:
    key = Key(
        key_id="bc490419-7d60-487f-adc1-4ddcc177c139", material=Secret(b"\x11" * 32), strands=frozenset({Strand.QKD})
    )

    class One(Failing):
        async def get_key(self, *args: object, **named: object) -> list[Key]:
            return [key]

    app = skip_app(One(RuntimeError()), ALPHA, sink=Ears())  # type: ignore[arg-type]
    reply = await AsgiCaller(app, "enc-a").request("GET", "/key?remoteSystemID=KP_B")
    assert json.loads(reply.body) == {"keyId": "bc4904197d60487fadc14ddcc177c139", "key": "11" * 32}
    assert key.material.reveal() == bytes(32)


PARTS = st.sampled_from(["key", "capabilities", "entropy", "0" * 32, "..", "%2f", "%", "KP_B", ""])
PATHS = st.lists(PARTS, max_size=4).map(lambda parts: "/" + "/".join(parts))
QUERIES = st.sampled_from(["", *("?" + query for query in BAD_QUERIES)]) | st.text(
    st.sampled_from("?&=%rsKP_B256emot0;+*"), max_size=30
).map(lambda text: "?" + text)


@settings(max_examples=800, derandomize=True, deadline=None)
@given(st.sampled_from(["GET", "POST", "X"]), PATHS, QUERIES, st.sampled_from(["enc-a", "enc-x", "enc-a2"]))
async def test_any_request_is_answered_inside_the_contract_and_refusals_change_nothing(
    method: str, path: str, query: str, name: str
) -> None:
    estate = Estate()
    reply = await estate.get(name, path + query, method)
    assert reply.status in (200, 400, 401, 404, 405)
    assert reply.status == 200 or estate.network.held == {}
    assert reply.headers["cache-control"] == "no-store"
