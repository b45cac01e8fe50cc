"""One transfer over several connections side by side."""

import random
import threading
import uuid

import pytest
from tests.unit.transport.gateway_site import FRAME, Middle, Site, content, until

from keystrand.core.errors import BadRequest, KeyUnavailable, NotPermitted, PeerFault
from keystrand.lab.ports import free_base_port
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway.frames import Closing, Details, whole_of
from keystrand.transport.gateway.inbox import Inbox
from keystrand.transport.gateway.outflow import StreamOut


@pytest.fixture(autouse=True)
def small_lanes(monkeypatch):
    """As if a MiB were a frame of these tests, so that small contents have many lanes."""
    monkeypatch.setattr("keystrand.transport.gateway.sender.LANE_BYTES_MIN", 1)
    monkeypatch.setattr("keystrand.transport.gateway.frames.LANE_ALIGN_BYTES", FRAME)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.receiver.stop()


@pytest.mark.parametrize("streams", [2, 3, 16])
@pytest.mark.parametrize("size_bytes", [0, 1, FRAME, 16 * FRAME + 1, 30 * FRAME + 12345])
@pytest.mark.parametrize("content_hash", [False, True])
def test_the_content_arrives_whole(site, tmp_path, streams, size_bytes, content_hash):
    path = content(tmp_path, size_bytes)
    report = site.send(path, streams=streams, content_hash=content_hash)
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()
    assert report.bytes == size_bytes
    assert report.streams == (streams if size_bytes >= streams else max(1, size_bytes))
    assert until(site.reports).transcript == report.transcript
    assert site.parts() == []


@pytest.mark.proves("R051")
def test_every_stream_has_keys_of_its_own(site, tmp_path):
    report = site.send(content(tmp_path, 24 * FRAME), streams=3, rotate_bytes=2 * FRAME)
    assert report.rotations == 3 * 3
    assert len(set(report.key_ids)) == len(report.key_ids) == 3 * 4
    assert list(site.folder.iterdir()) == []


def test_a_lost_stream_goes_on_alone(site, tmp_path):
    path = content(tmp_path, 32 * FRAME)
    middle = Middle(site.port, cuts=[None, 5 * FRAME + 77, None, None])
    report = site.send(path, streams=4, port=middle.port, rotate_bytes=3 * FRAME)
    assert report.resumed == 1
    assert len(middle.recorded) == 5  # four streams, and one of them a second time
    again = min(len(bytes(kept)) for kept in middle.recorded[4:])
    assert again < 6 * FRAME  # and not from its start
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()
    assert len(set(report.key_ids)) == len(report.key_ids)


@pytest.mark.parametrize("seed", range(6))
def test_streams_lost_again_and_again(site, tmp_path, seed):
    chance = random.Random(seed)
    path = content(tmp_path, 40 * FRAME + seed)
    middle = Middle(site.port, cuts=[chance.choice([None, chance.randrange(300, 9 * FRAME)]) for _ in range(9)])
    report = site.send(path, streams=3, port=middle.port, rotate_bytes=3 * FRAME)
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()
    assert len(set(report.key_ids)) == len(report.key_ids)
    assert until(site.reports).transcript == report.transcript


def test_a_transfer_of_many_streams_is_resumed_by_a_new_sender(site, tmp_path):
    path, transfer_id = content(tmp_path, 32 * FRAME), str(uuid.uuid4())
    with pytest.raises(KeyUnavailable):
        site.send(
            path,
            streams=4,
            keys=KeyFolder(site.folder, "sae-a", left=6),
            rotate_bytes=3 * FRAME,
            transfer_id=transfer_id,
        )
    assert not (site.inbox / "report.bin").exists()
    starts = []
    report = site.send(path, streams=4, transfer_id=transfer_id, progress=starts.append)
    assert max(told.bytes_done for told in starts if told.state == "resumed") >= 12 * FRAME
    assert report.resumed >= 2
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()


def test_another_number_of_streams_starts_anew_and_arrives(site, tmp_path):
    path, transfer_id = content(tmp_path, 32 * FRAME), str(uuid.uuid4())
    keys = KeyFolder(site.folder, "sae-a", left=6)
    with pytest.raises(KeyUnavailable):
        site.send(path, streams=4, keys=keys, rotate_bytes=3 * FRAME, transfer_id=transfer_id)
    report = site.send(path, streams=2, transfer_id=transfer_id)
    assert report.resumed == 0
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("content_hash", [False, True])
def test_a_lost_receipt_of_many_streams_is_given_again(site, tmp_path, content_hash):
    path, transfer_id = content(tmp_path, 12 * FRAME), str(uuid.uuid4())
    site.send(path, streams=3, transfer_id=transfer_id, content_hash=content_hash)
    report = site.send(path, streams=3, transfer_id=transfer_id, content_hash=content_hash)
    assert report.bytes == 12 * FRAME
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()


def test_one_bent_stream_ends_the_whole_and_nothing_arrives(site, tmp_path):
    middle = Middle(site.port, bend=3 * FRAME)
    with pytest.raises(PeerFault):
        site.send(content(tmp_path, 24 * FRAME), streams=3, port=middle.port)
    assert not (site.inbox / "report.bin").exists()
    assert not any(thread.name.startswith("gateway-lane") for thread in threading.enumerate())


def test_a_stopped_site_is_resumed_by_the_same_sender(tmp_path):
    """The receiver is gone for a while; the proofs of streams that had their receipts are in its journal."""
    first = Site(tmp_path, port=free_base_port(1))
    path = content(tmp_path, 60 * FRAME)
    begun, stopped = threading.Event(), threading.Event()

    def stop_midway(progress):
        if progress.bytes_done > 30 * FRAME and not begun.is_set():
            begun.set()
            first.close()
            stopped.set()

    outcome = []
    port = first.port
    run = threading.Thread(
        target=lambda: outcome.append(first.send(path, streams=3, rotate_bytes=4 * FRAME, progress=stop_midway))
    )
    run.start()
    assert stopped.wait(60)
    second = Site(tmp_path, port=port)
    run.join()
    second.receiver.stop()
    assert outcome[0].resumed >= 1
    assert (second.inbox / "report.bin").read_bytes() == path.read_bytes()


def test_the_whole_depends_on_every_lane_and_their_order():
    proofs = [bytes([number]) * 32 for number in range(3)]
    wholes = {whole_of(9, proofs), whole_of(8, proofs), whole_of(9, proofs[::-1]), whole_of(9, proofs[:2])}
    assert len(wholes) == 4


def test_a_pipe_takes_one_stream_only(tmp_path):
    with (tmp_path / "out").open("wb") as out:
        site = Site(tmp_path, destination=StreamOut(out))
        with pytest.raises(NotPermitted):
            site.send(content(tmp_path, 12 * FRAME), streams=2)
        site.receiver.stop()


@pytest.mark.parametrize("streams", [0, 17])
def test_an_impossible_number_of_streams_is_refused(site, tmp_path, streams):
    with pytest.raises(BadRequest, match="streams"):
        site.send(content(tmp_path, 10), streams=streams)


@pytest.mark.parametrize("streams", [1, 3])
def test_a_wrong_digest_over_the_whole_is_refused(site, tmp_path, monkeypatch, streams):
    """Every stream verified, but the sender closes another whole than the receiver put together."""
    monkeypatch.setattr("keystrand.transport.gateway.session.whole_of", lambda size_bytes, proofs: bytes(32))
    with pytest.raises(PeerFault):
        site.send(content(tmp_path, 12 * FRAME), streams=streams)
    assert not (site.inbox / "report.bin").exists()


def test_a_stream_that_ended_before_the_others_came_counts(tmp_path):
    """Between two of its streams nobody holds the transfer: what the journal says must be enough to go on."""
    inbox = Inbox(tmp_path)
    details = Details(
        name="f", size_bytes=4 * FRAME, source_mark=1, rotate_bytes=1, rotate_ms=1, lanes=4, run=b"run of it"[:8]
    )
    parts, proofs = [bytes([lane]) * FRAME for lane in range(4)], [bytes([lane]) * 32 for lane in range(4)]
    incoming = closing = None
    for lane in (1, 2, 3, 0):
        incoming = inbox.begin("t", "sae-a", details.for_lane(lane)) if lane in (1, 2) else incoming
        assert incoming.reached_bytes(lane) == lane * FRAME
        incoming.write(lane, lane * FRAME, memoryview(parts[lane]))
        closing = Closing((lane + 1) * FRAME, proofs[lane], bytes(32), whole_of(4 * FRAME, proofs))
        incoming.finish(lane, closing)
        if lane == 1:  # it was gone before the next one came
            incoming.suspend()
    incoming.place(closing)
    incoming.suspend()
    assert (tmp_path / "f").read_bytes() == b"".join(parts)
