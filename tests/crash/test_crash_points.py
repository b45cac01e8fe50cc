"""The store's own crash test in small: 7,000 crash points here, any number with `make crash POINTS=n`."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest

from keystrand.testing.crash.disk import FOLDER, Act, Deed, Disk, Loss, Recording
from keystrand.testing.crash.planted import PLANTED, Bug, hunt

POINTS = 7000
QUICK = ("no sync at a commit", "release before the commit", "undo log in memory")  # the others: make crash


@pytest.mark.proves("R021", "R031", "R049", "R098", "R101")
@pytest.mark.timeout(900)  # some fifteen seconds of processor time, of which a busy machine gives little
def test_I1_to_I5_I9_I10_I13_hold_after_a_crash_at_every_write() -> None:
    command = [sys.executable, "-m", "keystrand.testing.crash", "--points", str(POINTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=880)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = re.search(r"(\d+) crash points in \d+ operations of (\d+) kinds, (\d+) lives", done.stdout)
    assert figures, done.stdout
    points, kinds, lives = map(int, figures.groups())
    assert points >= POINTS
    assert kinds >= 20, "operations that were not tried prove nothing"
    assert lives >= 100
    for operation in ("found", "ingest", "reserve", "set aside", "release", "deliver", "recover"):
        assert re.search(rf"^{operation} ", done.stdout, re.MULTILINE), f"no {operation} was cut short"


@pytest.mark.parametrize("bug", [bug for bug in PLANTED if bug.name in QUICK], ids=lambda bug: bug.name)
def test_planted_bug_is_found_by_a_crash(bug: Bug) -> None:
    assert hunt(bug).found


def write(name: str, offset: int, data: bytes) -> Act:
    return Act(Deed.WRITE, name, offset, data)


def test_only_what_was_synced_survives_a_loss_of_power() -> None:
    disk = Disk()
    disk.act(write("a", 0, b"one"))
    disk.act(Act(Deed.SYNC, "a"))
    recording = Recording(disk)
    disk.act(write("a", 3, b"two"))
    disk.act(write("b", 0, b"new"))
    recording.stop()
    found = recording.moment(2).after(Loss.LOST, random.Random(1))
    assert found == {"a": b"one"}
    assert recording.moment(2).after(Loss.EXIT, random.Random(1)) == {"a": b"onetwo", "b": b"new"}
    assert recording.moment(0).after(Loss.EXIT, random.Random(1)) == {"a": b"onetwo"}, "the write that was under way"


def test_a_removal_lasts_when_its_folder_is_synced() -> None:
    disk = Disk.of({"a": b"x"})
    disk.act(Act(Deed.REMOVE, "a"))
    assert disk.durable == {"a": b"x"}
    disk.act(Act(Deed.SYNC, FOLDER))
    assert disk.durable == {}
    assert not disk.pending


def test_a_torn_write_keeps_whole_sectors() -> None:
    disk = Disk.of({"a": bytes(4096)})
    recording = Recording(disk)
    disk.act(write("a", 100, b"\xff" * 2000))
    recording.stop()
    seen = set()
    for seed in range(50):
        found = recording.moment(1).after(Loss.TORN, random.Random(seed))["a"]
        assert len(found) == 4096
        for sector in range(0, 4096, 512):
            begin, end = max(sector, 100), min(sector + 512, 2100)
            assert begin >= end or len(set(found[begin:end])) == 1, "a sector is written whole or not at all"
        seen.add(bytes(found))
    assert len(seen) > 8
