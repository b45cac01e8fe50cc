"""ETSI GS QKD 020 on the wire: hand-written messages, round trips, problems, and answers of peers that are off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import PeerFault
from keystrand.core.secret import Secret
from keystrand.wire import etsi020 as wire
from keystrand.wire.etsi020 import Ack, AckStatus, ExtKey, ExtKeys, Parties, ProblemType, Refused, Void

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "etsi020.json").read_text())
DOORS = {
    "ext_keys": (wire.parse_ext_keys, wire.print_ext_keys),
    "acks": (wire.parse_acks, wire.print_acks),
    "void": (wire.parse_void, wire.print_void),
}


@pytest.mark.parametrize(("kind", "number"), [(kind, n) for kind in DOORS for n in range(len(VECTORS[kind]))])
def test_hand_written_messages(kind: str, number: int) -> None:
    vector = VECTORS[kind][number]
    parse, show = DOORS[kind]
    printed = show(parse(vector["wire"].encode()))  # type: ignore[operator]
    assert printed.decode() == vector["printed"]
    assert show(parse(printed)) == printed  # type: ignore[operator]


NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._~@:-]{0,8}[A-Za-z0-9])?", fullmatch=True)
PARTIES = st.builds(Parties, NAMES, st.lists(NAMES, min_size=1, max_size=3, unique=True).map(tuple))
IDS = st.lists(st.uuids().map(str), min_size=1, max_size=4, unique=True).map(tuple)
URLS = st.none() | st.just("https://x.example/ack?a=b#c")
RAW = st.sampled_from([b"1", b"null", b"1e400", b'{ "a" : [ ] }', b'"\\u0000"', b"-0.0", '"é"'.encode()])
EXTENSIONS = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), RAW, max_size=3)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(IDS, PARTIES, URLS, EXTENSIONS, EXTENSIONS, st.binary(min_size=1, max_size=64))
def test_what_is_printed_is_read_back(
    ids: tuple[str, ...],
    parties: Parties,
    url: str | None,
    first: dict[str, bytes],
    second: dict[str, bytes],
    bits: bytes,
) -> None:
    keys = tuple(ExtKey(key_id=key_id, material=Secret(bits), extension=second) for key_id in ids)
    sent = ExtKeys(keys=keys, parties=parties, callback_url=url, mandatory=first, optional=second)
    read = wire.parse_ext_keys(wire.print_ext_keys(sent))
    assert read == sent
    assert all(key.material.reveal() == bits for key in read.keys)
    void = Void(key_ids=ids, parties=parties, callback_url=url, all_confirmed=bool(first))
    assert wire.parse_void(wire.print_void(void)) == void
    acks = tuple(Ack(key_ids=ids, status=status, parties=parties, message="m") for status in AckStatus)
    assert wire.parse_acks(wire.print_acks(acks)) == acks


def test_I12_keys_do_not_print() -> None:
    keys = wire.parse_ext_keys(VECTORS["ext_keys"][0]["wire"].encode())
    assert "ERER" not in repr(keys)
    assert "\\x11" not in repr(keys)


@pytest.mark.parametrize("kind", list(ProblemType))
def test_problems_are_read_back(kind: ProblemType) -> None:
    problem = Refused(kind, "why", details={"key_id": "x"})
    read = wire.parse_problem(problem.status, wire.print_problem(problem))
    assert (read.kind, read.status, str(read), read.details) == (kind, problem.status, "why", {"key_id": "x"})
    assert json.loads(wire.print_problem(problem))["type"].startswith("https://qkd.etsi.org/gs020-interop-kms/")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"type":1,"title":[],"details":[1]}',
        b'{"type":"about:blank"}',
        b'{"details":{"a":{"b":1}}}',
    ],
)
def test_a_problem_that_cannot_be_read_is_a_server_error(body: bytes) -> None:
    problem = wire.parse_problem(503, body)
    assert (problem.kind, problem.status) == (ProblemType.SERVER_ERROR, 503)


def test_what_a_stranger_writes_is_safe_to_print() -> None:
    body = json.dumps({"type": "x", "title": "a\x1b[2J\n" + "b" * 999, "details": {"\x07": "\u202e"}}).encode()
    problem = wire.parse_problem(400, body)
    assert str(problem).isprintable()
    assert len(str(problem)) <= 256
    assert problem.details == {"?": "?"}


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"versions":"v1"}', b'{"versions":[1]}', b'{"versions":["' + b"v" * 17 + b'"]}',
             b'{"versions":["v1"],"capabilities":[null]}', b'{"versions":["v1"],"versions":[]}']
)  # fmt: skip
def test_answers_that_are_off_are_the_peers_fault(body: bytes) -> None:
    with pytest.raises(PeerFault):
        wire.parse_versions(body)
    with pytest.raises(PeerFault):
        wire.parse_answered_acks(body)


@settings(max_examples=500, derandomize=True, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode), st.sampled_from(sorted(DOORS)))
def test_any_bytes_are_read_or_refused(body: bytes, kind: str) -> None:
    for text in (body, VECTORS[kind][0]["wire"].encode()[: len(body) * 5] + body):
        refusals = []
        try:
            DOORS[kind][0](text)
        except Refused as problem:
            refusals.append(problem.status)
        assert refusals in ([], [400])
