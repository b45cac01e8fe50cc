"""Hostile requests to the ETSI GS QKD 014 edge: the status of each, and nothing changes (T5, L12, L13, L16, L18)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import pytest

from keystrand.api.etsi014 import Etsi014
from keystrand.core.events import Event
from keystrand.core.limits import Limits
from keystrand.testing.asgi import AsgiCaller, Reply
from keystrand.testing.keyservice import MemoryNetwork

SITES = {"sae-a": "alpha", "sae-b": "bravo", "sae-c": "bravo", "sae-d": "alpha"}
KEYS = "/api/v1/keys"
ENC = f"{KEYS}/sae-b/enc_keys"
DEC = f"{KEYS}/sae-a/dec_keys"
LONG = Limits().http_body_bytes_max + 1


class Deaf:
    def emit(self, event: Event, /) -> None:
        """Nobody listens."""


class Edges:
    """Both sites, with one key drawn and waiting."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(SITES)
        self.apps = {site: Etsi014(self.network.at(site), limits=Limits(), sink=Deaf()) for site in ("alpha", "bravo")}
        self.key_id = ""

    def caller(self, name: str, kind: str | None = "sae", **options: object) -> AsgiCaller:
        return AsgiCaller(self.apps[SITES.get(name, "alpha")], name, kind=kind, **options)  # type: ignore[arg-type]

    def state(self) -> object:
        return copy.deepcopy((self.network.held, self.network.stored_bits))


@pytest.fixture
async def edges() -> Edges:
    edges = Edges()
    drawn = await edges.caller("sae-a").request("POST", ENC, b"{}")
    edges.key_id = json.loads(drawn.body)["keys"][0]["key_ID"]
    return edges


def nested(depth: int) -> bytes:
    return b'{"extension_optional":' + b"[" * depth + b"]" * depth + b"}"


def bodies() -> Iterator[tuple[str, bytes, int]]:
    """Bodies of Get key that no honest client sends, and the status of each."""
    yield "member twice", b'{"number":1,"number":2}', 400
    yield "member twice, the first one fits", b'{"size":256,"size":8}', 400
    yield "member twice, spelt with an escape", b'{"number":1,"n\\u0075mber":2}', 400
    yield "null number", b'{"number":null}', 400
    yield "null size", b'{"size":null}', 400
    yield "null list", b'{"additional_slave_SAE_IDs":null}', 400
    yield "null in a list", b'{"additional_slave_SAE_IDs":[null]}', 400
    yield "null alone", b"null", 400
    yield "a list", b"[]", 400
    yield "a number", b"1", 400
    yield "text", b'"{}"', 400
    yield "not JSON", b"number=1&size=256", 400
    yield "cut off", b'{"number":1', 400
    yield "two objects", b"{}{}", 400
    yield "a tail", b"{}\x00", 400
    yield "a byte order mark", b"\xef\xbb\xbf{}", 400
    yield "UTF-16", '{"number":1}'.encode("utf-16"), 400
    yield "not UTF-8", b'{"additional_slave_SAE_IDs":["\xff"]}', 400
    yield "half a surrogate pair", b'{"additional_slave_SAE_IDs":["\\ud800"]}', 400
    for number in ("0", "-1", "1.5", "1e999", "NaN", "Infinity", "true", '"1"', "[1]", "1" + "0" * 400, "129"):
        yield f"number {number[:12]}", f'{{"number":{number}}}'.encode(), 400
    for size in ("0", "-256", "7", "255", "256.5", '"256"', "true", str(2**63), str(2**64 + 256)):
        yield f"size {size[:12]}", f'{{"size":{size}}}'.encode(), 400
    for sae in (
        "sae-a",
        "sae-b",
        "SAE-C",
        "sae-c ",
        " sae-c",
        "sae-с",
        "sae-\u200bc",
        "sae-c\\u0000",
        "../sae-c",
        "",
        "x" * 999,
    ):
        yield f"additional {sae[:12]!r}", f'{{"additional_slave_SAE_IDs":["{sae}"]}}'.encode(), 400
    yield "additional twice", b'{"additional_slave_SAE_IDs":["sae-c","sae-c"]}', 400
    yield "mandatory extension", b'{"extension_mandatory":[{"x":1}]}', 400
    yield "extension of no list", b'{"extension_mandatory":{"x":1}}', 400
    for depth in (64, 1000, 20_000):
        yield f"nested {depth} deep", nested(depth), 400
    yield "nested beyond the limit of bodies", nested(LONG), 413
    yield "too long", b" " * LONG, 413


BODIES = {name: (body, status) for name, body, status in bodies()}


@pytest.mark.proves("R021", "R045")
@pytest.mark.parametrize("name", BODIES)
async def test_l16_a_hostile_body_is_refused_and_changes_nothing(edges: Edges, name: str) -> None:
    body, status = BODIES[name]
    before = edges.state()
    reply = await edges.caller("sae-a").request("POST", ENC, body)
    assert reply.status == status, reply.body
    assert edges.state() == before
    assert_quotes_nothing(reply, body)


async def test_an_honest_request_is_served_and_changes_state(edges: Edges) -> None:
    """Without it, refusals would prove nothing."""
    before = edges.state()
    reply = await edges.caller("sae-a").request(
        "POST", ENC, b'{"number":2,"size":256,"additional_slave_SAE_IDs":["sae-c"]}'
    )
    assert reply.status == 200, reply.body
    assert edges.state() != before
    body = json.dumps({"key_IDs": [{"key_ID": edges.key_id}]}).encode()
    assert (await edges.caller("sae-b").request("POST", DEC, body)).status == 200


def assert_quotes_nothing(reply: Reply, sent: bytes) -> None:
    """One object with a message of our own words, short whatever was sent."""
    assert set(json.loads(reply.body)) <= {"message", "details"}
    assert len(reply.body) < 500
    assert reply.headers["cache-control"] == "no-store"
    assert len(sent) < 200 or sent[:200] not in reply.body


QUERIES = {
    "number twice": ("number=1&number=2", 400),
    "size twice": ("size=256&size=256", 400),
    "escaped twice": ("number=1&%6eumber=2", 400),
    "other case": ("Number=1", 400),
    "an array's name": ("number[]=1", 400),
    "unknown": ("caller=sae-b", 400),
    "SAE from the query": ("SAE_ID=sae-b&slave_SAE_ID=sae-c", 400),
    "semicolons": ("number=1;size=256", 400),
    "empty value": ("number=", 400),
    "no value": ("number", 400),
    "plus": ("number=+1", 400),
    "full-width digit": ("number=%EF%BC%91", 400),
    "underscore": ("number=1_0", 400),
    "hexadecimal": ("number=0x1", 400),
    "space": ("number=%201", 400),
    "not UTF-8": ("number=%ff", 400),
    "zero byte": ("number=1%00", 400),
    "many": ("&".join(f"x{n}=1" for n in range(500)), 400),
}


@pytest.mark.proves("R021", "R045")
@pytest.mark.parametrize("name", QUERIES)
async def test_l18_parameters_are_taken_from_one_place_once(edges: Edges, name: str) -> None:
    query, status = QUERIES[name]
    before = edges.state()
    reply = await edges.caller("sae-a").request("GET", f"{ENC}?{query}")
    assert reply.status == status, reply.body
    assert edges.state() == before


@pytest.mark.parametrize("query", ["number=1", "key_ID=x", "SAE_ID=sae-b"])
@pytest.mark.parametrize(("path", "body"), [(ENC, b'{"number":1}'), (DEC, b'{"key_IDs":[]}')])
async def test_l18_a_post_with_a_query_is_refused(edges: Edges, path: str, body: bytes, query: str) -> None:
    before = edges.state()
    caller = edges.caller("sae-a" if path is ENC else "sae-b")
    assert (await caller.request("POST", f"{path}?{query}", body)).status == 400
    assert edges.state() == before


PATHS = {
    "/api/v1/keys/./sae-b/enc_keys": 404,
    "/api/v1/keys/../keys/sae-b/enc_keys": 404,
    "/api/v1/keys/x/../sae-b/enc_keys": 404,
    "/api/v1/keys/sae-b/../sae-b/enc_keys": 404,
    "/api/v1/keys/%2e%2e/enc_keys": 404,
    "/api/v1/keys/%2E/enc_keys": 404,
    "/api/v1/keys/..%2fsae-b/enc_keys": 404,
    "/api/v1/keys/sae-b%2f..%2fsae-c/enc_keys": 404,
    "/api/v1/keys/%252e%252e/enc_keys": 404,
    "/api/v1/keys/sae-b/enc_keys/..": 404,
    "/api/v1/keys/sae-b\\enc_keys": 404,
    "/api/v1/keys/sae-b;x=1/enc_keys": 400,
    "/api/v1/keys/sae-b/ENC_KEYS": 404,
    "/api/v1/keys/sae-b/enc_keys/": 404,
    "/api/V1/keys/sae-b/enc_keys": 404,
    "//api/v1/keys/sae-b/enc_keys": 404,
    "/api//v1/keys/sae-b/enc_keys": 404,
    "https://other/api/v1/keys/sae-b/enc_keys": 404,
    "/api/v1/keys/sae-b/enc_keys%00": 404,
    "/api/v1/keys/sae-b/enc%5fkeys%20": 404,
}


@pytest.mark.parametrize("path", PATHS)
async def test_l13_paths_are_taken_as_they_stand(edges: Edges, path: str) -> None:
    before = edges.state()
    assert (await edges.caller("sae-a").request("POST", path, b"{}")).status == PATHS[path]
    assert edges.state() == before


# names that look like sae-b, or become it after some normalisation
ALIKE = (
    "SAE-B",
    "Sae-b",
    "sae-b ",
    " sae-b",
    "sae-b%20",
    "sae-b%09",
    "sae-b%00",
    "sae-%62%00",
    "sae-b.",
    "sae_b",
    "sae--b",
)
ALIKE_UTF8 = ("sae-%D0%B2", "sae\u2010b", "sae-b\u200b", "ｓae-b", "sae-ｂ", "sae-b\u0301", "ſae-b", "sae\u00adb")


@pytest.mark.proves("R046")
@pytest.mark.parametrize("name", [*ALIKE, *ALIKE_UTF8])
async def test_l12_a_name_that_looks_like_another_is_not_that_one(edges: Edges, name: str) -> None:
    before = edges.state()
    reply = await edges.caller("sae-a").request("POST", f"{KEYS}/{name}/enc_keys", b"{}")
    assert reply.status in (400, 404), reply.status
    assert edges.state() == before


@pytest.mark.proves("R046")
@pytest.mark.parametrize("name", ["SAE-B", "sae-b ", " sae-b", "sae-b\x00", "sae-b\n", "ѕae-b", "sae-b,sae-a", ""])
async def test_l12_l19_a_certificate_whose_name_looks_like_another_gets_nothing(edges: Edges, name: str) -> None:
    before = edges.state()
    caller = AsgiCaller(edges.apps["bravo"], name)
    reply = await caller.request("POST", DEC, json.dumps({"key_IDs": [{"key_ID": edges.key_id}]}).encode())
    assert (reply.status, reply.body) == (401, b"")
    assert edges.state() == before


HEADERS = (
    "x-forwarded-for",
    "x-ssl-client-s-dn",
    "request-sae-id",
    "x-sae-id",
    "authorization",
    "forwarded",
    "x-original-url",
)


@pytest.mark.proves("R046")
@pytest.mark.parametrize("name", HEADERS)
async def test_l19_t1_no_header_says_who_asks(edges: Edges, name: str) -> None:
    headers = ((b"content-type", b"application/json"), (name.encode(), b"sae-b"))
    before = edges.state()
    body = json.dumps({"key_IDs": [{"key_ID": edges.key_id}]}).encode()
    reply = await AsgiCaller(edges.apps["bravo"], "sae-c", headers=headers).request("POST", DEC, body)
    assert reply.status == 401, "sae-c is no recipient, whatever it says of itself"
    assert edges.state() == before


def id_forms(key_id: str) -> dict[str, str]:
    return {
        "upper case": key_id.upper(),
        "braces": f"{{{key_id}}}",
        "urn": f"urn:uuid:{key_id}",
        "no hyphens": key_id.replace("-", ""),
        "space behind": f"{key_id} ",
        "space before": f" {key_id}",
        "line feed": f"{key_id}\n",
        "zero byte": f"{key_id}\x00",
        "full-width": key_id.replace("0", "０", 1) if "0" in key_id else key_id.replace("1", "１", 1),
        "path": f"./{key_id}",
        "any": "%",
        "star": "*",
        "SQL": f"{key_id}' OR '1'='1",
        "empty": "",
    }


@pytest.mark.proves("R046")
@pytest.mark.parametrize("form", [name for name in id_forms("0-1") if name != "upper case"])
async def test_l12_a_key_id_has_one_spelling(edges: Edges, form: str) -> None:
    before = edges.state()
    body = json.dumps({"key_IDs": [{"key_ID": id_forms(edges.key_id)[form]}]}).encode()
    reply = await edges.caller("sae-b").request("POST", DEC, body)
    assert reply.status == 400, reply.body
    assert edges.state() == before


async def test_l12_a_key_id_in_other_case_is_that_key_once_or_none(edges: Edges) -> None:
    both = {"key_IDs": [{"key_ID": edges.key_id}, {"key_ID": edges.key_id.upper()}]}
    assert (await edges.caller("sae-b").request("POST", DEC, json.dumps(both).encode())).status == 400


DEC_BODIES = {
    "null": b'{"key_IDs":null}',
    "null inside": b'{"key_IDs":[null]}',
    "null ID": b'{"key_IDs":[{"key_ID":null}]}',
    "none": b'{"key_IDs":[]}',
    "member twice": b'{"key_IDs":[],"key_IDs":[{"key_ID":"ID"}]}',
    "ID twice in one": b'{"key_IDs":[{"key_ID":"x","key_ID":"ID"}]}',
    "the same twice": b'{"key_IDs":[{"key_ID":"ID"},{"key_ID":"ID"}]}',
    "text": b'{"key_IDs":"ID"}',
    "list of text": b'{"key_IDs":["ID"]}',
    "one that is not there": b'{"key_IDs":[{"key_ID":"ID"},{"key_ID":"00000000-0000-4000-8000-000000000000"}]}',
    "too many": b'{"key_IDs":[' + b",".join(b'{"key_ID":"%036d"}' % n for n in range(200)) + b"]}",
}


@pytest.mark.parametrize("name", DEC_BODIES)
async def test_l16_a_hostile_list_of_key_ids_is_refused_and_takes_nothing(edges: Edges, name: str) -> None:
    before = edges.state()
    body = DEC_BODIES[name].replace(b'"ID"', f'"{edges.key_id}"'.encode())
    assert (await edges.caller("sae-b").request("POST", DEC, body)).status == 400
    assert edges.state() == before


@pytest.mark.proves("R046")
async def test_t5_unknown_used_and_foreign_key_ids_get_one_answer(edges: Edges) -> None:
    async def fetch(key_id: str) -> tuple[int, bytes]:
        reply = await edges.caller("sae-b").request("GET", f"{DEC}?key_ID={key_id}")
        return reply.status, reply.body

    unknown = await fetch("00000000-0000-4000-8000-000000000000")
    assert (await fetch(edges.key_id))[0] == 200
    assert await fetch(edges.key_id) == unknown
    other = json.loads((await edges.caller("sae-d").request("POST", ENC, b"{}")).body)["keys"][0]["key_ID"]
    assert await fetch(other) == unknown, "a key of another pair"
    assert unknown[0] == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"])
async def test_l15_other_methods_are_405(edges: Edges, method: str) -> None:
    before = edges.state()
    reply = await edges.caller("sae-a").request(method, ENC)
    assert reply.status == 405
    assert "POST" in reply.headers["allow"]
    assert edges.state() == before


@pytest.mark.parametrize(
    "kind", [b"text/plain", b"application/x-www-form-urlencoded", b"application/json; charset=utf-16", b""]
)
async def test_l16_a_body_of_another_type_is_415(edges: Edges, kind: bytes) -> None:
    before = edges.state()
    reply = await AsgiCaller(edges.apps["alpha"], "sae-a", headers=((b"content-type", kind),)).request(
        "POST", ENC, b"{}"
    )
    assert reply.status == 415
    assert edges.state() == before
