"""Files by others: any bytes are read or refused with a reason, entities expand nowhere, and what is read can be written."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from samples import SAMPLES, js

from keystrand.config.estate_text import head, tables
from keystrand.config.load import estate_faults, load_estate
from keystrand.plan.imports.detect import READERS, detect, read
from keystrand.plan.imports.found import Found, Names, NotReadable, spelled

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE graphml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<graphml><graph><node id="&b;"/></graph></graphml>"""
THIEF = b"""<!DOCTYPE network [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<network><networkStructure><nodes><node id="&x;"/></nodes></networkStructure></network>"""


def readable(data: bytes, format_: str = "") -> Found | None:
    try:
        return read(data, "file", format_)
    except NotReadable:
        return None


@pytest.mark.parametrize("name", SAMPLES)
def test_each_format_is_told_by_its_content(name: str) -> None:
    assert detect(SAMPLES[name]) == name
    assert read(SAMPLES[name], "file").count
    assert set(SAMPLES) == set(READERS)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_read_can_be_written_and_read_as_an_estate(name: str, tmp_path: Path) -> None:
    found = read(SAMPLES[name], "file")
    kinds = ("sites", "links", "endpoints", "certificates", "algorithms")
    text = head('a "name"', date(2026, 11, 28))
    text += "\n".join(part for kind in kinds for part in tables(kind, getattr(found, kind)))
    file = tmp_path / "estate.toml"
    file.write_text(text)
    assert estate_faults(file) == []
    estate = load_estate(file)
    assert estate.name == 'a "name"'
    for kind in kinds:
        assert getattr(estate, kind) == getattr(found, kind)


@pytest.mark.parametrize("bomb", [BOMB, THIEF, BOMB.replace(b"graphml", b"network")])
def test_entities_are_not_read(bomb: bytes) -> None:
    with pytest.raises(NotReadable, match="DTD or entities"):
        read(bomb, "bomb")


@pytest.mark.parametrize("name", READERS)
@given(data=st.binary(max_size=300))
@example(data=b"")
@example(data=b"[" * 100_000)
@example(data=b'{"a":' * 100_000)
@example(data=b"\xff\xfe\x00")
@settings(max_examples=10, deadline=None)
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    readable(data)
    readable(data, name)


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_damaged_file_is_read_or_refused(name: str, data: st.DataObject) -> None:
    sample = SAMPLES[name]
    at = data.draw(st.integers(0, len(sample)))
    length = data.draw(st.integers(0, 40))
    put = data.draw(
        st.sampled_from([b"", b"null", b"-1", b'"x"', b"[]", b"{}", b"<x/>", b"1e999", b"\x00", b"NaN", b"\xe9"])
    )
    readable(sample[:at] + put + sample[at + length :], name)


WORDS = ["elements", "connections", "uid", "type", "results", "url", "sites", "cables", "circuits", "kex", "components"]
WORDS += ["name", "cryptoProperties", "server_scan_results", "scan_result", "scanResult", "port", "ip", "id", "params"]
jsons = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "name", ["cyclonedx", "sslyze", "testssl", "ssh-audit", "pqcscan", "netbox", "gnpy", "sndlib-json"]
)
@given(value=jsons)
@settings(max_examples=20, deadline=None)
def test_any_json_is_read_or_refused(name: str, value: object) -> None:
    readable(js(value), name)


@given(st.lists(st.tuples(st.integers(0, 5), st.text(max_size=90)), max_size=8))
@settings(deadline=None)
def test_names_fit_are_unlike_each_other_and_stay_with_their_key(keys: list[tuple[int, str]]) -> None:
    names = Names()
    given_ = {key: names.of(key, words) for key, words in keys}
    assert len({name.lower() for name in given_.values()}) == len(given_)
    assert all(spelled(name) == name for name in given_.values())
    assert given_ == {key: names.of(key, "other words") for key in given_}


@given(st.text())
@settings(deadline=None)
def test_any_text_survives_being_written(text: str) -> None:
    assert tomllib.loads(head(text, date(2026, 1, 1)))["name"] == text
