"""ETSI GS QKD 014 objects: exact on the way out, strict on the way in."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, KeystrandError, NotPermitted, PeerFault, Unavailable, UnknownKey
from keystrand.core.key import Key
from keystrand.core.pool import PoolStatus
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.wire import etsi014 as wire

KEY_ID = "bc490419-7d60-487f-adc1-4ddcc177c139"
UUIDS = st.uuids().map(str)
NAMES = st.from_regex(r"\A[A-Za-z0-9]([A-Za-z0-9._~@:-]{0,20}[A-Za-z0-9])?\Z")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.sampled_from(
    [
        "number",
        "size",
        "additional_slave_SAE_IDs",
        "extension_mandatory",
        "key_IDs",
        "key_ID",
        "keys",
        "key",
        "message",
        "x",
    ]
)
BODIES = st.binary(max_size=200) | st.dictionaries(MEMBERS, JSON, max_size=5).map(
    lambda value: json.dumps(value).encode()
)


@settings(max_examples=400, derandomize=True)
@given(BODIES)
def test_any_bytes_give_a_value_or_the_stated_error(body: bytes) -> None:
    for parse in (wire.parse_key_request, wire.parse_key_ids):
        try:
            parse(body)
        except BadRequest as error:
            json.loads(wire.print_error(str(error), error.details))  # every refusal can be told to the caller
    for parse_answer in (wire.parse_container, wire.parse_status):
        with contextlib.suppress(PeerFault):
            parse_answer(body)
    wire.parse_error(body)


@settings(max_examples=100, derandomize=True)
@given(
    st.none() | st.integers(1, 2**31 - 1),
    st.none() | st.integers(1, 2**27).map(lambda octets: 8 * octets),
    st.lists(NAMES, unique=True, max_size=5).map(tuple),
)
def test_a_key_request_survives_the_wire(
    number: int | None, size_bits: int | None, additional: tuple[str, ...]
) -> None:
    request = wire.KeyRequest(number=number, size_bits=size_bits, additional=additional)
    assert wire.parse_key_request(wire.print_key_request(request)) == request


@settings(max_examples=100, derandomize=True)
@given(st.lists(UUIDS, unique=True, min_size=1, max_size=5).map(tuple))
def test_key_ids_survive_the_wire(key_ids: tuple[str, ...]) -> None:
    assert wire.parse_key_ids(wire.print_key_ids(key_ids)) == key_ids


@settings(max_examples=100, derandomize=True)
@given(st.lists(st.tuples(UUIDS, st.binary(min_size=1, max_size=64)), unique_by=lambda pair: pair[0], min_size=1))
def test_I2_a_container_survives_the_wire(pairs: list[tuple[str, bytes]]) -> None:
    strands = frozenset({Strand.QKD, Strand.PQC})
    printed = wire.print_container(Key(key_id=name, material=Secret(bits), strands=strands) for name, bits in pairs)
    parsed = wire.parse_container(printed)
    assert [(key.key_id, key.material.reveal(), key.strands) for key in parsed] == [(*pair, strands) for pair in pairs]


@pytest.mark.proves("R045")
def test_the_container_is_spelt_as_the_standard_says() -> None:
    key = Key(key_id=KEY_ID, material=Secret(bytes(range(32))), strands=frozenset({Strand.QKD}))
    assert json.loads(wire.print_container([key])) == {
        "keys": [
            {
                "key_ID": KEY_ID,
                "key": base64.b64encode(bytes(range(32))).decode(),
                "key_extension": {"keystrand_strands": ["qkd"]},
            }
        ]
    }


@pytest.mark.proves("R045")
def test_status_is_spelt_as_the_standard_says_and_survives() -> None:
    status = PoolStatus(
        source_kme_id="kme-a",
        target_kme_id="kme-b",
        initiator="sae-a",
        responder="sae-b",
        key_size_bits=352,
        stored_keys=25000,
        stored_keys_max=100000,
        keys_per_request_max=128,
        key_size_bits_max=1024,
        key_size_bits_min=64,
        additional_recipients_max=0,
    )
    printed = wire.print_status(status)
    assert json.loads(printed) == {
        "source_KME_ID": "kme-a",
        "target_KME_ID": "kme-b",
        "master_SAE_ID": "sae-a",
        "slave_SAE_ID": "sae-b",
        "key_size": 352,
        "stored_key_count": 25000,
        "max_key_count": 100000,
        "max_key_per_request": 128,
        "max_key_size": 1024,
        "min_key_size": 64,
        "max_SAE_ID_count": 0,
    }
    assert wire.parse_status(printed) == status
    for odd in ("-1", "true", "1.0", '"1"', str(1 << 63)):
        with pytest.raises(PeerFault, match="a count"):
            wire.parse_status(printed.replace(b"25000", odd.encode()))


@pytest.mark.parametrize(
    "body",
    [
        b'{"number":1,"number":1}',
        b'{"x":{"y":1,"y":2}}',
        b'{"number":null}',
        b'{"number":true}',
        b'{"number":1.0}',
        b'{"number":"1"}',
        b'{"number":0}',
        b'{"number":-1}',
        b'{"number":NaN}',
        b'{"x":Infinity}',
        b'{"number":' + b"9" * 6000 + b"}",
        b'{"size":0}',
        b'{"size":-8}',
        b'{"size":null}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b'{"x":"\xff"}',
        b"[]",
        b"null",
        b" ",
        b"{}{}",
        b"{'number':1}",
        b'{"x":' + b"[" * 17 + b"]" * 17 + b"}",
        b'{"x":' + b"[" * 20000,
        b'{"additional_slave_SAE_IDs":null}',
        b'{"additional_slave_SAE_IDs":[]}',
        b'{"additional_slave_SAE_IDs":[1]}',
        b'{"additional_slave_SAE_IDs":["a","a"]}',
        b'{"additional_slave_SAE_IDs":["a/b"]}',
        b'{"additional_slave_SAE_IDs":["\\ud800"]}',
        b'{"extension_mandatory":{}}',
        b'{"extension_mandatory":["a"]}',
        b'{"extension_optional":1}',
    ],
)
def test_a_key_request_that_is_off_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        wire.parse_key_request(body)
    wire.print_error(str(caught.value), caught.value.details)


def test_brackets_in_text_are_no_depth() -> None:
    body = json.dumps({"x": "[{" * 50 + '"', "number": 2}).encode()
    assert wire.parse_key_request(body).number == 2


@pytest.mark.parametrize("size", [1, 63, 257, 4095])
def test_sizes_that_are_no_octets_get_the_mandated_words(size: int) -> None:
    with pytest.raises(BadRequest, match=r"^size shall be a multiple of 8$"):
        wire.parse_key_request(b'{"size":%d}' % size)


def test_mandatory_extensions_are_refused_with_the_mandated_words() -> None:
    request = wire.parse_key_request('{"extension_mandatory":[{"abc_route":"direct","é\\ud800":1}]}'.encode())
    with pytest.raises(BadRequest) as caught:
        wire.require_supported(request)
    assert json.loads(wire.print_error(str(caught.value), caught.value.details)) == {
        "message": "not all extension_mandatory parameters are supported",
        "details": [
            {"extension_mandatory_unsupported": "abc_route is not supported"},
            {"extension_mandatory_unsupported": "?? is not supported"},
        ],
    }
    wire.require_supported(request, frozenset(request.mandatory))


@pytest.mark.parametrize(
    "params",
    [
        [("number", "1"), ("number", "1")],
        [("number", "")],
        [("number", "-1")],
        [("number", "+1")],
        [("number", "1_0")],
        [("number", "١")],
        [("number", "99999999999")],
        [("size", "257")],
        [("additional_slave_SAE_IDs", "b")],
        [("Number", "1")],
    ],
)
def test_a_query_that_is_off_is_refused(params: list[tuple[str, str]]) -> None:
    with pytest.raises(BadRequest):
        wire.key_request_from_query(params)


def test_queries_of_the_standard_are_read() -> None:
    assert wire.key_request_from_query([("number", "3"), ("size", "1024")]) == wire.KeyRequest(number=3, size_bits=1024)
    assert wire.key_ids_from_query([("key_ID", KEY_ID.upper())]) == (KEY_ID,)
    for params in ([], [("key_ID", KEY_ID)] * 2, [("key_ID", KEY_ID), ("x", "1")], [("key_ID", "1")]):
        with pytest.raises(BadRequest):
            wire.key_ids_from_query(params)


@pytest.mark.parametrize("key", ["", "AB", "AB=", "AB==", "A B=", "AA==\n", "____", "é", None, 1])
def test_I12_base64_is_strict_and_never_quoted(key: object) -> None:
    body = json.dumps({"keys": [{"key_ID": KEY_ID, "key": key}]}).encode()
    with pytest.raises(PeerFault) as caught:
        wire.parse_container(body)
    assert not isinstance(key, str) or len(key) < 2 or key not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_one_key_twice_in_a_container_is_refused() -> None:
    item = {"key_ID": KEY_ID, "key": "AAAA"}
    with pytest.raises(PeerFault, match="twice"):
        wire.parse_container(json.dumps({"keys": [item, item | {"key": "BBBB"}]}).encode())


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b"", NotPermitted),
        (401, b"<html>", NotPermitted),
        (400, b'{"message":"one or more keys specified are not found on KME"}', UnknownKey),
        (400, b'{"message":"number shall be 1 to 128"}', BadRequest),
        (400, b"\xff", BadRequest),
        (503, b'{"message":"the pool lacks bits"}', Unavailable),
        (500, b"oops", PeerFault),
        (302, b"", PeerFault),
    ],
)
def test_answers_become_errors(status: int, body: bytes, kind: type[KeystrandError]) -> None:
    assert type(wire.error_of(status, body)) is kind


GAPS = st.text(" \t\r\n", max_size=2)


@settings(max_examples=300, derandomize=True)
@given(st.lists(st.uuids(), min_size=1, max_size=4), GAPS, st.booleans(), st.data())
def test_the_usual_list_of_key_IDs_is_read_as_any_other(ids: list, gap: str, upper: bool, data: st.DataObject) -> None:
    names = [str(one).upper() if upper else str(one) for one in ids]
    body = json.dumps({"key_IDs": [{"key_ID": name} for name in names]}).replace(":", f"{gap}:{gap}").encode()
    if data.draw(st.booleans()):  # a byte is lost, doubled or another one
        at = data.draw(st.integers(0, len(body) - 1))
        body = (
            body[:at]
            + data.draw(st.sampled_from([b"", body[at : at + 1] * 2, b"}", b'"', b",", b"\x0b"]))
            + body[at + 1 :]
        )

    def outcome(parse: object) -> object:
        try:
            return parse(body)  # type: ignore[operator]
        except BadRequest as refusal:
            return str(refusal)

    usual, general = outcome(wire.parse_key_ids), outcome(wire._listed_key_ids)
    if isinstance(general, tuple) and len(set(general)) < len(general):
        general = "a key ID is listed twice"
    assert usual == general
