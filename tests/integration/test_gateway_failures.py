"""What goes wrong under a transfer for real: a full file system, killed processes, a KME that is gone, hostile bytes."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import uuid

import pytest
from tests.unit.transport.gateway_site import FRAME, QUICK, Site, content

from keystrand.core.errors import Unavailable
from keystrand.lab.ports import free_base_port
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway import frames
from keystrand.transport.gateway.inbox import PARTS, Inbox

MIB = 1 << 20
SEED = 20261128


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "keystrand-test", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def tree(place, files=300):
    chance, root = random.Random(SEED), place / "tree"
    (root / "a" / "b").mkdir(parents=True)
    for number in range(files):
        folder = root / chance.choice(["", "a", "a/b"])
        (folder / f"{number}").write_bytes(chance.randbytes(chance.choice([0, 10, 4096, 100_000])))
    (root / "a" / "big").write_bytes(chance.randbytes(20 * MIB))
    return root


def same(one, other):
    return subprocess.run(["diff", "-r", one, other], capture_output=True, check=False).returncode == 0


@pytest.mark.proves("R098")
@pytest.mark.parametrize(("kind", "streams"), [("file", 1), ("file", 3), ("tree", 1), ("tree", 2)])
def test_a_full_file_system_is_told_and_with_room_the_transfer_goes_on(small_disk, tmp_path, kind, streams):
    source = tree(tmp_path) if kind == "tree" else content(tmp_path, 20 * MIB)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(28 * MIB))
    inbox = Inbox(small_disk / "inbox", checkpoint_bytes=MIB)
    site, transfer_id = Site(tmp_path, destination=inbox), str(uuid.uuid4())
    with pytest.raises(Unavailable, match="disk is full") as caught:
        site.send(source, streams=streams, transfer_id=transfer_id, rotate_bytes=MIB)
    assert transfer_id in caught.value.hint
    assert [path.name for path in (small_disk / "inbox").iterdir()] == [PARTS]
    ballast.unlink()
    report = site.send(source, streams=streams, transfer_id=transfer_id, rotate_bytes=MIB)
    site.receiver.stop()
    assert report.resumed >= 1
    assert same(source, small_disk / "inbox" / source.name)


RECEIVER = """
import sys
from pathlib import Path
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway.inbox import Inbox
from keystrand.transport.gateway.receiver import Receiver
receiver = Receiver(("127.0.0.1", int(sys.argv[3])), keys=KeyFolder(Path(sys.argv[1]), "b"), me="b", senders={"a"},
                    destination=Inbox(Path(sys.argv[2]), checkpoint_bytes=1 << 20))
print(receiver.port, flush=True)
receiver.serve_once()
"""
SENDER = """
import sys, time
from pathlib import Path
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway.ports import GatewayLimits
from keystrand.transport.gateway.sender import send
def slow(progress):
    if progress.state == "rotated":
        print(progress.bytes_done, flush=True)
        time.sleep(0.03)
report = send(Path(sys.argv[2]), keys=KeyFolder(Path(sys.argv[1]), "a"), connect=("127.0.0.1", int(sys.argv[3])),
              from_sae="a", to_sae="b", rotate_bytes=1 << 20, transfer_id=sys.argv[4], streams=int(sys.argv[5]),
              progress=slow, limits=GatewayLimits(chunk_bytes=1 << 18))
print("resumed", report.resumed, flush=True)
"""


@pytest.fixture
def start():
    with contextlib.ExitStack() as stack:

        def begin(script, *args):
            command = [sys.executable, "-c", script, *map(str, args)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            return process

        yield begin


@pytest.mark.proves("R101")
@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("victim", ["sender", "receiver"])
def test_I3_a_directory_goes_on_after_kill_9(start, tmp_path, streams, victim):
    root, keys, inbox = tree(tmp_path), tmp_path / "keys", tmp_path / "inbox"
    keys.mkdir()
    transfer_id = uuid.uuid4()
    receiver = start(RECEIVER, keys, inbox, free_base_port(1))
    port = receiver.stdout.readline().strip()
    sender = start(SENDER, keys, root, port, transfer_id, streams)
    while int(sender.stdout.readline()) < 8 * MIB:
        pass
    process = sender if victim == "sender" else receiver
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in inbox.iterdir()] == [PARTS]
    if victim == "sender":
        sender = start(SENDER, keys, root, port, transfer_id, streams)
    else:
        receiver = start(RECEIVER, keys, inbox, port)
    told = sender.communicate(timeout=120)[0].split("\n")
    assert int(told[-2].removeprefix("resumed ")) >= 1
    assert receiver.wait(120) == 0
    assert same(root, inbox / "tree")


class Leaving(KeyFolder):
    """A KME that answers `good` times, then not until `back`."""

    good = 3
    back = False

    def _gone(self):
        self.good -= 1
        if self.good < 0 and not self.back:
            raise Unavailable("the KME does not answer")

    def fresh(self, responder, size_bits):
        self._gone()
        return super().fresh(responder, size_bits)

    def pick_up(self, initiator, key_id):
        self._gone()
        return super().pick_up(initiator, key_id)


@pytest.mark.proves("R053")
@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_I7_a_key_service_that_goes_stops_the_content_and_it_can_be_resumed(tmp_path, end):
    (tmp_path / "keys").mkdir()
    leaving = Leaving(tmp_path / "keys", "sae-a" if end == "sender" else "sae-b")
    site = Site(tmp_path, keys=leaving if end == "receiver" else None)
    path, transfer_id, told = content(tmp_path, 20 * FRAME), str(uuid.uuid4()), []
    keys = leaving if end == "sender" else None
    with pytest.raises(Unavailable):
        site.send(path, keys=keys, rotate_bytes=2 * FRAME, transfer_id=transfer_id, progress=told.append)
    heard = told if end == "sender" else site.progress  # what a sender wrote may wait in the wire, sealed
    assert max(progress.bytes_done for progress in heard) <= 3 * 2 * FRAME  # nothing beyond what three keys may carry
    assert not (site.inbox / "report.bin").exists()
    leaving.back = True
    site.send(path, keys=keys, rotate_bytes=2 * FRAME, transfer_id=transfer_id)
    site.receiver.stop()
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()


def hostile(chance):
    """Bytes that are right for a while."""
    kind = chance.randrange(5)
    if kind == 0:
        return chance.randbytes(chance.randrange(300))
    record = chance.choice(list(frames.Record))
    low, high = frames._BODY_BYTES[record]
    length_bytes = chance.choice([0, low, low + 7, min(high, 4096), high, 2**32 - 1])
    raw = length_bytes.to_bytes(4, "big") + bytes([record]) + bytes(12)
    body = frames.MAGIC + chance.randbytes(min(length_bytes, 5000))
    return raw + body[: chance.randrange(len(body) + 1)] if kind < 4 else raw + body


def test_a_receiver_outlives_any_bytes_from_strangers(tmp_path):
    print("seed", SEED)
    site, chance = Site(tmp_path, limits=QUICK), random.Random(SEED)
    for _ in range(150):
        with socket.create_connection(("127.0.0.1", site.port)) as wire, contextlib.suppress(OSError):
            wire.sendall(hostile(chance))
            wire.shutdown(socket.SHUT_WR)
            wire.settimeout(60)
            while wire.recv(4096):
                pass
    assert not site.reports
    assert list(site.folder.iterdir()) == []
    path = content(tmp_path, 3 * FRAME)
    site.send(path)
    site.receiver.stop()
    assert (site.inbox / "report.bin").read_bytes() == path.read_bytes()
