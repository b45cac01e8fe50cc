"""The list of a directory: what comes back, and what is refused."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, PeerFault
from keystrand.transport.gateway.manifest import TREE_MAGIC, Entry, Kind, Manifest, parse_manifest
from keystrand.transport.gateway.names import UnsafeName, check_link, check_member_path

TOP = Entry(Kind.DIRECTORY, "", 0o755, 1)


def file(path, size_bytes=1):
    return Entry(Kind.FILE, path, 0o644, 2, size_bytes)


def folder(path):
    return Entry(Kind.DIRECTORY, path, 0o755, 3)


def link(path, target):
    return Entry(Kind.LINK, path, 0o777, 4, target=target)


names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 255
)


@st.composite
def manifests(draw):
    entries, folders = [TOP], [""]
    for name in draw(st.lists(names, max_size=12, unique=True)):
        above = draw(st.sampled_from(folders))
        path = f"{above}/{name}" if above else name
        kind = draw(st.sampled_from(Kind))
        modified_ns = draw(st.integers(-(2**60), 2**60))
        if kind is Kind.DIRECTORY:
            folders.append(path)
        entries.append(
            Entry(
                kind,
                path,
                draw(st.integers(0, 0o777)),
                modified_ns,
                draw(st.integers(0, 3000)) if kind is Kind.FILE else 0,
                "x" if kind is Kind.LINK else "",
            )
        )
    return Manifest(entries)


@given(manifests())
def test_manifests_come_back(manifest):
    packed = manifest.pack()
    again = parse_manifest(packed)
    assert again.entries == manifest.entries
    assert again.pack() == packed


@given(manifests(), st.data())
def test_an_offset_names_a_file_and_a_place_in_it(manifest, data):
    content = b"".join(bytes([number % 251]) * entry.size_bytes for number, entry in enumerate(manifest.files))
    start = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, len(content) - start))
    numbers = {entry.path: number for number, entry in enumerate(manifest.files)}
    got = b""
    for piece in manifest.pieces(start, length):
        assert 0 <= piece.offset_bytes < piece.offset_bytes + piece.length_bytes <= piece.entry.size_bytes
        got += bytes([numbers[piece.entry.path] % 251]) * piece.length_bytes
    assert got == content[start : start + length]
    assert manifest.body_bytes == len(content)


@given(st.binary(max_size=300).map(lambda tail: TREE_MAGIC + tail) | st.binary(max_size=100))
def test_any_bytes_as_a_manifest_are_one_or_a_fault(raw):
    with contextlib.suppress(PeerFault, BadRequest):
        assert parse_manifest(raw).pack() == raw


@given(manifests(), st.data())
def test_a_bent_manifest_is_one_or_a_fault(manifest, data):
    raw = bytearray(manifest.pack())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(PeerFault, BadRequest):
        assert parse_manifest(bytes(raw)).pack() == bytes(raw)


@pytest.mark.parametrize("cut", [0, 5, 11, 12, 20, -1])
def test_a_cut_manifest_is_refused(cut):
    raw = Manifest([TOP, folder("d"), file("d/f")]).pack()
    with pytest.raises(PeerFault):
        parse_manifest(raw[:cut])


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../up", "a/../../up", "a/..", "..", ".", "a//b", "a/", "", "a\0b", "a\nb", "a\x7f", "x" * 256,
     "/".join(["x" * 200] * 21), "\udcff"],
)  # fmt: skip
def test_hostile_paths_are_refused(path):
    with pytest.raises(UnsafeName):
        check_member_path(path)


@pytest.mark.parametrize("path", [".hidden", "a b", "a:b", "a\\b", "ünï/cödé", "-rf", "a/.git/config", " "])
def test_what_is_unusual_in_a_directory_passes(path):
    assert check_member_path(path) == path


@pytest.mark.parametrize(
    ("path", "target"),
    [("l", "/etc/passwd"), ("l", ".."), ("l", "../x"), ("a/l", "../../x"), ("l", "a/../.."), ("l", "a/../b"),
     ("l", "a//b"), ("a/l", "../a/../../x"), ("l", "a/./b"), ("l", "a\0"), ("l", "a/")],
)  # fmt: skip
def test_links_that_lead_or_could_lead_out_are_refused(path, target):
    with pytest.raises(UnsafeName):
        check_link(path, target)


@pytest.mark.parametrize(
    ("path", "target"), [("l", "a"), ("l", "a/b"), ("a/l", "../b"), ("a/b/l", "../.."), ("a/l", ".."), ("l", ".")]
)
def test_links_that_stay_within_pass(path, target):
    assert check_link(path, target) == target


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [file("f")],
        [folder("d"), TOP],
        [TOP, file("f"), file("f")],
        [TOP, file("d/f"), folder("d")],
        [TOP, file("d"), file("d/f")],
        [TOP, link("d", "x"), file("d/f")],
        [TOP, Entry(Kind.FILE, "f", 0o4755, 1, 1)],
        [TOP, Entry(Kind.DIRECTORY, "d", 0o755, 1, 1)],
        [TOP, Entry(Kind.FILE, "f", 0o644, 1, 1, "target")],
        [TOP, link("l", "")],
        [TOP, file("f", 2**63)],
    ],
)
def test_entries_that_make_no_safe_tree_are_refused_at_both_ends(entries):
    with pytest.raises(BadRequest):
        Manifest(entries)
    packed = struct.pack(">8sI", TREE_MAGIC, len(entries)) + b"".join(entry.pack() for entry in entries)
    with pytest.raises((BadRequest, PeerFault)):
        parse_manifest(packed)


def test_a_manifest_that_promises_too_much_is_refused_before_it_is_read():
    with pytest.raises(PeerFault, match="too many"):
        parse_manifest(struct.pack(">8sI", TREE_MAGIC, 2**32 - 1))
