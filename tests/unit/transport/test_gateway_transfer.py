"""Whole transfers over loopback between two threads."""

import hashlib
import io
import os
import random
import resource
import socket
import struct
import threading
import time
import uuid

import pytest
from tests.unit.transport.gateway_site import FRAME, Middle, Site, content, until

from keystrand.core.errors import (
    BadRequest,
    KeyUnavailable,
    NotPermitted,
    PeerFault,
    PeerUnavailable,
    Unavailable,
    UnknownKey,
)
from keystrand.core.secret import Secret
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway.inbox import PARTS
from keystrand.transport.gateway.outflow import StreamOut
from keystrand.transport.gateway.ports import GatewayLimits


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.receiver.stop()


@pytest.mark.proves("R087")
@pytest.mark.parametrize("size_bytes", [0, 1, FRAME - 1, FRAME, FRAME + 1, 4 * FRAME, 4 * FRAME + 1, 1_000_003])
def test_the_content_arrives_whole(site, tmp_path, size_bytes):
    path = content(tmp_path, size_bytes)
    report = site.send(path)
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()
    assert (report.bytes, report.sha256) == (size_bytes, "")
    assert until(site.reports).transcript == report.transcript
    assert report.fingerprint == f"transcript:{report.transcript}"
    assert site.parts() == []


@pytest.mark.parametrize("size_bytes", [0, 1_000_003])
def test_the_content_hash_is_compared_where_it_is_asked_for(site, tmp_path, size_bytes):
    path = content(tmp_path, size_bytes)
    report = site.send(path, content_hash=True)
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()
    assert wanted == report.sha256 == report.fingerprint == until(site.reports).sha256


def break_off(site, path, transfer_id):
    keys = KeyFolder(site.folder, "sae-a", left=2)
    with pytest.raises(KeyUnavailable):
        site.send(path, keys=keys, rotate_bytes=4 * FRAME, transfer_id=transfer_id)
    until(site.faults)


def test_what_is_resumed_is_hashed_whole(site, tmp_path):
    path, transfer_id = content(tmp_path, 12 * FRAME), str(uuid.uuid4())
    break_off(site, path, transfer_id)
    report = site.send(path, transfer_id=transfer_id)
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_part_that_was_bent_on_disk_before_a_resume_is_refused(site, tmp_path):
    path, transfer_id = content(tmp_path, 12 * FRAME), str(uuid.uuid4())
    break_off(site, path, transfer_id)
    part = site.inbox / PARTS / site.parts()[0]
    bent = bytearray(part.read_bytes())
    bent[FRAME] ^= 1
    part.write_bytes(bent)
    with pytest.raises(PeerFault, match="digest"):
        site.send(path, transfer_id=transfer_id)
    assert not (site.inbox / "report.bin").exists()


def test_a_source_that_was_bent_unnoticed_before_a_resume_is_refused(site, tmp_path):
    path, transfer_id = content(tmp_path, 12 * FRAME), str(uuid.uuid4())
    status = path.stat()
    break_off(site, path, transfer_id)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(PeerFault, match="digest"):
        site.send(path, transfer_id=transfer_id)
    assert not (site.inbox / "report.bin").exists()


@pytest.mark.proves("R051")
def test_rotation_by_bytes_uses_each_key_once_and_leaves_none_behind(site, tmp_path):
    report = site.send(content(tmp_path, 10 * FRAME + 5), rotate_bytes=2 * FRAME + 7)
    assert report.rotations == 4
    assert len(set(report.key_ids)) == len(report.key_ids) == 5
    assert list(site.folder.iterdir()) == []


def test_odd_rotation_limits_hold(site, tmp_path):
    path = content(tmp_path, 3000)
    report = site.send(path, rotate_bytes=999)
    assert report.rotations == 3
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()


@pytest.mark.proves("R051")
def test_rotation_by_time_goes_on_in_silence(site, tmp_path):
    read_end, write_end = os.pipe()
    out = os.fdopen(write_end, "wb", buffering=0)

    def speak():
        out.write(b"before")
        time.sleep(0.8)
        out.write(b" after")
        out.close()

    threading.Thread(target=speak).start()
    with os.fdopen(read_end, "rb") as source:
        report = site.send(source, name="stream", rotate_s=0.2)
    assert report.rotations >= 3
    assert (site.inbox / "stream").read_bytes() == b"before after"


def test_a_pipe_to_a_pipe(tmp_path):
    read_end, write_end = os.pipe()
    out = os.fdopen(write_end, "wb")
    site = Site(tmp_path, destination=StreamOut(out))
    got = []
    reader = threading.Thread(target=lambda: got.append(os.fdopen(read_end, "rb").read()))
    reader.start()
    data = random.Random(1).randbytes(300_000)
    site.send(io.BytesIO(data))
    out.close()
    reader.join()
    site.receiver.stop()
    assert got == [data]


def test_no_file_is_overwritten_without_leave(site, tmp_path):
    site.inbox.joinpath("report.bin").write_bytes(b"old")
    with pytest.raises(NotPermitted, match="file of this name"):
        site.send(content(tmp_path, 10))
    assert site.inbox.joinpath("report.bin").read_bytes() == b"old"


def test_overwrite_replaces(tmp_path):
    site = Site(tmp_path, overwrite=True)
    site.inbox.joinpath("report.bin").write_bytes(b"old")
    path = content(tmp_path, 100)
    site.send(path)
    assert site.inbox.joinpath("report.bin").read_bytes() == path.read_bytes()
    site.receiver.stop()


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", ".hidden", "a\\b", "a\nb", "..", "x" * 256])
def test_unsafe_names_are_refused_by_the_sender(site, tmp_path, name):
    with pytest.raises(BadRequest):
        site.send(content(tmp_path, 10), name=name)


def test_unsafe_names_are_refused_by_the_receiver(site, tmp_path, monkeypatch):
    monkeypatch.setattr("keystrand.transport.gateway.source.check_file_name", lambda name: name)
    with pytest.raises(NotPermitted, match="file name"):
        site.send(content(tmp_path, 10), name="../up")
    assert not (tmp_path / "up").exists()


def test_a_sender_that_is_not_listed_is_refused(tmp_path):
    site = Site(tmp_path, senders=("sae-x",))
    with pytest.raises(PeerUnavailable, match="does not take such transfers"):
        site.send(content(tmp_path, 10), limits=GatewayLimits(reconnect_s=0.2))
    site.receiver.stop()


@pytest.mark.proves("R021")
def test_I7_without_keys_a_transfer_waits_and_says_so_then_goes_on(site, tmp_path):
    keys = KeyFolder(site.folder, "sae-a", left=2)
    states = []

    def watch(progress):
        states.append(progress)
        if progress.state == "waiting":
            keys.left = 100

    path = content(tmp_path, 12 * FRAME)
    report = site.send(path, keys=keys, rotate_bytes=4 * FRAME, progress=watch)
    waited = [progress for progress in states if progress.state == "waiting"]
    assert waited
    assert waited[0].bytes_done <= 8 * FRAME  # not a byte beyond what two keys may carry
    assert report.rotations == 2
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()


@pytest.mark.proves("R021")
def test_I7_without_keys_for_too_long_the_transfer_ends_and_can_be_resumed(site, tmp_path):
    path, transfer_id = content(tmp_path, 12 * FRAME), str(uuid.uuid4())
    keys = KeyFolder(site.folder, "sae-a", left=2)
    with pytest.raises(KeyUnavailable):
        site.send(path, keys=keys, rotate_bytes=4 * FRAME, transfer_id=transfer_id)
    assert not (site.inbox / "report.bin").exists()
    keys.left = 100
    report = site.send(path, keys=keys, rotate_bytes=4 * FRAME, transfer_id=transfer_id)
    assert report.resumed == 1
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()


class WrongKeys(KeyFolder):
    """A KME that hands out other bits than its peer."""

    def pick_up(self, initiator, key_id):
        key = super().pick_up(initiator, key_id)
        object.__setattr__(key, "material", Secret(bytes(32)))
        return key


def test_a_wrong_key_is_refused_and_nothing_arrives(tmp_path):
    (tmp_path / "keys").mkdir()
    site = Site(tmp_path, keys=WrongKeys(tmp_path / "keys", "sae-b"))
    with pytest.raises(PeerUnavailable):
        site.send(content(tmp_path, 10), limits=GatewayLimits(reconnect_s=0.2))
    assert all(isinstance(fault, PeerFault) for fault in site.faults)
    assert site.faults
    assert [path.name for path in site.inbox.iterdir()] == [PARTS]
    site.receiver.stop()


@pytest.mark.parametrize("frames", range(9))
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_resume_at_and_around_every_frame_boundary(site, tmp_path, frames, beside):
    path = content(tmp_path, 8 * FRAME)
    opening = 17 + 72 + 12 + 49 + len("report.bin") + 16
    cut = opening + frames * (FRAME + 17 + 16) + beside
    middle = Middle(site.port, cuts=[cut])
    report = site.send(path, port=middle.port, rotate_bytes=1 << 30)
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()
    assert report.resumed == (1 if frames and (frames, beside) != (1, -1) else 0)
    assert len(set(report.key_ids)) == len(report.key_ids) == 2


def test_many_cuts_with_rotation(site, tmp_path):
    path = content(tmp_path, 40 * FRAME)
    middle = Middle(site.port, cuts=[random.Random(n).randrange(2000, 12 * FRAME) for n in range(6)])
    report = site.send(path, port=middle.port, rotate_bytes=3 * FRAME)
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()
    assert len(set(report.key_ids)) == len(report.key_ids)


@pytest.mark.proves("R084")
def test_F9_I1_a_recorded_connection_cannot_be_replayed(site, tmp_path):
    middle = Middle(site.port)
    site.send(content(tmp_path, 3 * FRAME), port=middle.port)
    site.inbox.joinpath("report.bin").unlink()
    with socket.create_connection(("127.0.0.1", site.port)) as wire:
        wire.sendall(middle.recorded[0])
        wire.settimeout(60)
        assert wire.recv(64)[4] == 8  # REFUSED
    assert isinstance(until(site.faults), UnknownKey)
    assert not site.inbox.joinpath("report.bin").exists()


def test_a_bent_record_ends_the_transfer_and_nothing_arrives(site, tmp_path):
    path = content(tmp_path, 6 * FRAME)
    middle = Middle(site.port, bend=3 * FRAME)
    with pytest.raises(PeerFault):
        site.send(path, port=middle.port)
    assert not (site.inbox / "report.bin").exists()


def test_a_changed_source_is_sent_from_the_start(site, tmp_path):
    path, transfer_id = content(tmp_path, 12 * FRAME), str(uuid.uuid4())
    with pytest.raises(KeyUnavailable):
        site.send(path, keys=KeyFolder(site.folder, "sae-a", left=1), rotate_bytes=4 * FRAME, transfer_id=transfer_id)
    path.write_bytes(b"new" * 1000)
    site.send(path, transfer_id=transfer_id)
    assert (site.inbox / "report.bin").read_bytes() == b"new" * 1000


@pytest.mark.parametrize("content_hash", [False, True])
def test_a_lost_receipt_is_given_again(site, tmp_path, content_hash):
    path, transfer_id = content(tmp_path, 3 * FRAME), str(uuid.uuid4())
    first = site.send(path, transfer_id=transfer_id, content_hash=content_hash)
    report = site.send(path, transfer_id=transfer_id, content_hash=content_hash)
    assert report.sha256 == first.sha256
    assert report.bytes == 3 * FRAME
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()


def test_a_full_disk_is_told_to_both_sides_and_the_transfer_resumes(tmp_path):
    path, transfer_id = content(tmp_path, 12 * FRAME), str(uuid.uuid4())
    site = Site(tmp_path)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, old[1]))
    try:
        with pytest.raises(Unavailable, match="disk is full") as caught:
            site.send(path, transfer_id=transfer_id)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert transfer_id in caught.value.hint
    assert not (site.inbox / "report.bin").exists()
    report = site.send(path, transfer_id=transfer_id)
    assert report.resumed == 1
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()
    site.receiver.stop()


@pytest.mark.parametrize("cut", [200, 5 * FRAME])
def test_a_stream_that_breaks_says_that_it_cannot_be_resumed(site, cut):
    middle = Middle(site.port, cuts=[cut])
    with pytest.raises(PeerUnavailable, match="stream"):
        site.send(io.BytesIO(bytes(20 * FRAME)), port=middle.port)
    assert not (site.inbox / "stream").exists()


def test_too_many_connections_are_told_so(tmp_path):
    site = Site(tmp_path, limits=GatewayLimits(connections_max=1, opening_s=5.0))
    with socket.create_connection(("127.0.0.1", site.port)), socket.create_connection(("127.0.0.1", site.port)) as late:
        late.settimeout(60)
        assert late.recv(64)[4] == 8
    site.receiver.stop()


def test_a_silent_caller_is_dropped(tmp_path):
    site = Site(tmp_path, limits=GatewayLimits(opening_s=0.3))
    with socket.create_connection(("127.0.0.1", site.port)) as wire:
        wire.sendall(struct.pack(">IBIQ", 200, 1, 0, 0))
        wire.settimeout(60)
        assert wire.recv(64) == b""
    site.receiver.stop()


def test_a_gateway_of_version_1_is_told_apart(site):
    """Its OPEN is refused with the reason that says so, before any key is asked for."""
    clear = b"KSTRAND\x01" + bytes(64) + b"\x05sae-a\x05sae-b"
    with socket.create_connection(("127.0.0.1", site.port)) as wire:
        wire.sendall(struct.pack(">IBIQ", len(clear) + 60, 1, 0, 0) + clear + bytes(60))
        wire.settimeout(60)
        assert wire.recv(64) == struct.pack(">IBIQB", 1, 8, 0, 0, 10)


def answer_refused(server, reason):
    wire, _ = server.accept()
    wire.recv(1 << 16)
    wire.sendall(struct.pack(">IBIQB", 1, 8, 0, 0, reason))
    wire.close()


def test_a_receiver_of_another_version_ends_the_transfer_at_once(site, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer_refused, args=(server, 10)).start()
        with pytest.raises(PeerFault, match="another version") as caught:
            site.send(content(tmp_path, 10), port=server.getsockname()[1])
    assert "update the older" in caught.value.hint
