"""Whole directories over loopback between two threads."""

import os
import random
import socket
import stat
import uuid

import pytest
from tests.unit.transport.gateway_site import FRAME, Middle, Site, until

from keystrand.core.errors import BadRequest, KeyUnavailable, NotPermitted, PeerFault
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway import manifest as manifests
from keystrand.transport.gateway.inbox import PARTS
from keystrand.transport.gateway.manifest import Entry, Kind, Manifest


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.receiver.stop()


def make_tree(place, *, files=40, seed=1):
    """Nested, with empty, small and large files, an empty directory, odd names, links, modes and times."""
    chance = random.Random(seed)
    root = place / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    for number in range(files):
        folder = root / chance.choice(["", "sub", "sub/deep"])
        (folder / f"file {number}: ä").write_bytes(chance.randbytes(chance.choice([0, 1, 100, 5000, FRAME + 3])))
    (root / "big").write_bytes(chance.randbytes(20 * FRAME + 7))
    (root / ".hidden").write_bytes(b"h")
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o750)
    (root / "sub" / "up").symlink_to("../big")
    (root / "sub" / "deep" / "top").symlink_to("../..")
    (root / "broken").symlink_to("not-there")
    (root / "sub" / "deep").chmod(0o555)
    os.utime(root / "big", ns=(0, 1_234_567_890_123_456_789))
    os.utime(root / "empty", ns=(0, 987_654_321_000_000_000))
    os.utime(root, ns=(0, 1_111_111_111_000_000_000))
    return root


def facts(root):
    """Everything that travels, by relative path."""
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        mode = None if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(root))] = (stat.S_IFMT(status.st_mode), mode, status.st_mtime_ns, what)
    return found


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("content_hash", [False, True])
def test_a_directory_arrives_with_names_modes_times_and_links(site, tmp_path, streams, content_hash, monkeypatch):
    monkeypatch.setattr("keystrand.transport.gateway.sender.LANE_BYTES_MIN", 1)
    monkeypatch.setattr("keystrand.transport.gateway.frames.LANE_ALIGN_BYTES", FRAME)
    root = make_tree(tmp_path)
    report = site.send(root, streams=streams, content_hash=content_hash)
    assert facts(site.inbox / "tree") == facts(root)
    assert report.streams == streams
    received = until(site.reports)
    assert (received.transcript, received.sha256) == (report.transcript, report.sha256)
    assert [path.suffix for path in (site.inbox / PARTS).iterdir()] == [".journal"]


@pytest.mark.parametrize("files", [0, 1])
def test_a_directory_with_nothing_or_only_empty_files_arrives(site, tmp_path, files):
    root = tmp_path / "bare"
    root.mkdir()
    for number in range(files):
        (root / f"{number}").touch()
    site.send(root)
    assert facts(site.inbox / "bare") == facts(root)


def test_links_can_be_left_out_and_are_told(site, tmp_path):
    root, skipped = make_tree(tmp_path), []
    (root / "out").symlink_to("/etc/passwd")
    site.send(root, symlinks="skip", skipped=skipped.append)
    assert sorted(skipped) == ["broken", "out", "sub/deep/top", "sub/up"]
    assert not any(path.is_symlink() for path in (site.inbox / "tree").rglob("*"))


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside"])
def test_a_link_that_leads_out_is_refused_before_a_byte_leaves(site, tmp_path, target):
    root = make_tree(tmp_path)
    (root / "out").symlink_to(target)
    with pytest.raises(BadRequest, match="out") as caught:
        site.send(root)
    assert "--symlinks skip" in caught.value.hint
    assert list(site.folder.iterdir()) == []  # no key was drawn


def test_sockets_and_pipes_are_refused(site, tmp_path):
    root = tmp_path / "special"
    root.mkdir()
    os.mkfifo(root / "pipe")
    with pytest.raises(BadRequest, match="pipe"):
        site.send(root)


def test_a_name_that_is_no_utf8_is_refused_with_its_name(site, tmp_path):
    root = tmp_path / "odd"
    root.mkdir()
    (root / os.fsdecode(b"bad\xff")).touch()
    with pytest.raises(BadRequest, match="UTF-8"):
        site.send(root)


HOSTILE = {
    "climbs": Entry(Kind.FILE, "../up", 0o644, 1, 5),
    "absolute": Entry(Kind.FILE, "/tmp/keystrand-hostile", 0o644, 1, 5),
    "link out": Entry(Kind.LINK, "l", 0o777, 1, target="../../.."),
    "set-user-ID": Entry(Kind.FILE, "s", 0o4755, 1, 5),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_list_is_refused_by_the_receiver_and_leaves_nothing(site, tmp_path, case, monkeypatch):
    root = tmp_path / "tree"
    root.mkdir()
    (root / "f").write_bytes(b"12345")
    packed = Manifest([Entry(Kind.DIRECTORY, "", 0o755, 1)]).pack()
    hostile = packed[:8] + (2).to_bytes(4, "big") + packed[12:] + HOSTILE[case].pack()
    monkeypatch.setattr(manifests.Manifest, "pack", lambda self: hostile)
    with pytest.raises(NotPermitted, match="name"):
        site.send(root)
    assert not (tmp_path / "up").exists()
    until(site.faults)
    site.receiver.stop()
    assert [path.suffix for path in (site.inbox / PARTS).iterdir()] == [".journal"]


def test_a_link_under_a_listed_file_is_refused(site, tmp_path, monkeypatch):
    """The classic: a link first, then a file through it."""
    entries = [
        Entry(Kind.DIRECTORY, "", 0o755, 1),
        Entry(Kind.LINK, "d", 0o777, 1, target="."),
        Entry(Kind.FILE, "d/f", 0o644, 1, 5),
    ]
    raw = manifests._COUNT.pack(manifests.TREE_MAGIC, 3) + b"".join(entry.pack() for entry in entries)
    monkeypatch.setattr(manifests.Manifest, "pack", lambda self: raw)
    (tmp_path / "tree").mkdir()
    with pytest.raises(NotPermitted, match="name"):
        site.send(tmp_path / "tree")


def test_a_directory_that_changes_while_it_is_sent_is_refused(site, tmp_path):
    root = make_tree(tmp_path)

    def change(progress):
        if progress.state == "rotated":
            for path in root.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    os.utime(path, ns=(5, 5))

    with pytest.raises(BadRequest, match="changed while"):
        site.send(root, rotate_bytes=FRAME, progress=change)
    assert not (site.inbox / "tree").exists()


def test_no_directory_is_overwritten_without_leave(site, tmp_path):
    root = make_tree(tmp_path)
    (site.inbox / "tree").mkdir()
    with pytest.raises(NotPermitted, match="of this name"):
        site.send(root)
    assert list((site.inbox / "tree").iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_overwrite_replaces_what_is_there(tmp_path, kind):
    site, root = Site(tmp_path, overwrite=True), make_tree(tmp_path)
    if kind == "directory":
        (site.inbox / "tree" / "old").mkdir(parents=True)
    else:
        (site.inbox / "tree").write_bytes(b"old")
    site.send(root)
    site.receiver.stop()
    assert facts(site.inbox / "tree") == facts(root)


def test_a_broken_directory_goes_on_at_its_file_and_offset(site, tmp_path):
    root, transfer_id = make_tree(tmp_path), str(uuid.uuid4())
    with pytest.raises(KeyUnavailable):
        site.send(root, keys=KeyFolder(site.folder, "sae-a", left=2), rotate_bytes=5 * FRAME, transfer_id=transfer_id)
    assert not (site.inbox / "tree").exists()
    starts = []
    report = site.send(root, transfer_id=transfer_id, progress=lambda progress: starts.append(progress))
    assert next(told.bytes_done for told in starts if told.state == "resumed") == 10 * FRAME
    assert report.resumed == 1
    assert facts(site.inbox / "tree") == facts(root)


@pytest.mark.parametrize("seed", range(4))
def test_many_cuts(site, tmp_path, seed):
    root, chance = make_tree(tmp_path, seed=seed), random.Random(seed)
    middle = Middle(site.port, cuts=[chance.randrange(2000, 9 * FRAME) for _ in range(5)])
    site.send(root, port=middle.port, rotate_bytes=3 * FRAME)
    assert facts(site.inbox / "tree") == facts(root)


def test_a_directory_with_another_file_is_sent_from_the_start(site, tmp_path):
    root, transfer_id = make_tree(tmp_path), str(uuid.uuid4())
    with pytest.raises(KeyUnavailable):
        site.send(root, keys=KeyFolder(site.folder, "sae-a", left=2), rotate_bytes=5 * FRAME, transfer_id=transfer_id)
    (root / "new").write_bytes(b"new")
    site.send(root, transfer_id=transfer_id)
    assert facts(site.inbox / "tree") == facts(root)


def test_a_part_of_a_directory_bent_on_disk_before_a_resume_is_refused(site, tmp_path):
    root, transfer_id = make_tree(tmp_path), str(uuid.uuid4())
    with pytest.raises(KeyUnavailable):
        site.send(root, keys=KeyFolder(site.folder, "sae-a", left=2), rotate_bytes=5 * FRAME, transfer_id=transfer_id)
    bent = next(path for path in (site.inbox / PARTS).rglob("big"))
    raw = bytearray(bent.read_bytes())
    raw[0] ^= 1
    bent.write_bytes(raw)
    with pytest.raises(PeerFault, match="digest"):
        site.send(root, transfer_id=transfer_id)
    assert not (site.inbox / "tree").exists()


def test_a_stranger_cannot_make_the_receiver_wait_for_a_list(site):
    """Only who has proved a key takes part in a transfer: a caller without one holds nothing."""
    with socket.create_connection(("127.0.0.1", site.port)) as wire:
        wire.sendall(b"\0" * 17)
        wire.settimeout(60)
        assert wire.recv(64)[4] == 8
