"""Sender and receiver as two processes, with keys from a folder: killed, restarted, and weighed."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid

import pytest

from keystrand.lab.ports import free_base_port

MIB = 1 << 20

# ru_maxrss would carry the parent's peak over fork and exec; VmHWM belongs to the new address space alone
PEAK = """
def peak_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
"""
RECEIVER = """
import sys
from pathlib import Path
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway.inbox import Inbox
from keystrand.transport.gateway.ports import GatewayLimits
from keystrand.transport.gateway.receiver import Receiver
limits = GatewayLimits(checkpoint_bytes=4 << 20)
receiver = Receiver(("127.0.0.1", int(sys.argv[3])), keys=KeyFolder(Path(sys.argv[1]), "b"), me="b", senders={"a"},
                    destination=Inbox(Path(sys.argv[2]), checkpoint_bytes=4 << 20), limits=limits)
print(receiver.port, flush=True)
report = receiver.serve_once()
print(report.transcript, peak_kib(), flush=True)
"""
SENDER = """
import sys, time
from pathlib import Path
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway.sender import send
def slow(progress):
    if progress.state == "rotated":
        print(progress.bytes_done, flush=True)
        time.sleep(float(sys.argv[4]))
report = send(Path(sys.argv[2]), keys=KeyFolder(Path(sys.argv[1]), "a"), connect=("127.0.0.1", int(sys.argv[3])),
              from_sae="a", to_sae="b", rotate_bytes=2 << 20, transfer_id=sys.argv[5], progress=slow)
print(report.transcript, peak_kib(), report.resumed, len(report.key_ids), flush=True)
"""


def start(script, *args):
    command = [sys.executable, "-c", PEAK + script, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})


@pytest.fixture
def processes():
    with contextlib.ExitStack() as stack:

        def begin(script, *args):
            process = stack.enter_context(start(script, *args))
            stack.callback(process.kill)
            return process

        yield begin


@pytest.fixture
def place(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "content.bin").write_bytes(random.Random(7).randbytes(48 * MIB))
    return tmp_path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.proves("R017", "R084", "R087")
def test_two_processes_agree_within_bounded_memory(processes, place):
    receiver = processes(RECEIVER, place / "keys", place / "inbox", free_base_port(1))
    port = receiver.stdout.readline().strip()
    sender = processes(SENDER, place / "keys", place / "content.bin", port, 0, uuid.uuid4())
    sent, received = (
        sender.communicate(timeout=120)[0].split("\n")[-2].split(),
        receiver.communicate(timeout=120)[0].split(),
    )
    assert sent[0] == received[0]
    assert digest(place / "inbox" / "content.bin") == digest(place / "content.bin")
    assert int(sent[3]) == 24  # one key per 2 MiB
    for rss_kib in (int(sent[1]), int(received[1])):
        assert rss_kib < 80 * 1024


def wait_until(sender, at_least_bytes):
    while int(sender.stdout.readline()) < at_least_bytes:
        pass


@pytest.mark.proves("R101")
def test_I3_a_killed_receiver_comes_back_and_the_transfer_goes_on(processes, place):
    receiver = processes(RECEIVER, place / "keys", place / "inbox", free_base_port(1))
    port = receiver.stdout.readline().strip()
    sender = processes(SENDER, place / "keys", place / "content.bin", port, 0.1, uuid.uuid4())
    wait_until(sender, 16 * MIB)
    receiver.send_signal(signal.SIGKILL)
    receiver.wait()
    assert [path.name for path in (place / "inbox").iterdir()] == [".keystrand-parts"]
    time.sleep(0.2)
    again = processes(RECEIVER, place / "keys", place / "inbox", port)
    resumed = int(sender.communicate(timeout=120)[0].split("\n")[-2].split()[2])
    assert resumed == 1
    assert again.wait(120) == 0
    assert digest(place / "inbox" / "content.bin") == digest(place / "content.bin")


def test_a_killed_sender_resumes_under_its_transfer_id(processes, place):
    transfer_id = uuid.uuid4()
    receiver = processes(RECEIVER, place / "keys", place / "inbox", free_base_port(1))
    port = receiver.stdout.readline().strip()
    sender = processes(SENDER, place / "keys", place / "content.bin", port, 0.1, transfer_id)
    wait_until(sender, 16 * MIB)
    sender.kill()
    sender.wait()
    again = processes(SENDER, place / "keys", place / "content.bin", port, 0, transfer_id)
    assert again.communicate(timeout=120)[0].split("\n")[-2].split()[2] == "1"
    assert receiver.wait(120) == 0
    assert digest(place / "inbox" / "content.bin") == digest(place / "content.bin")
