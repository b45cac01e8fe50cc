"""The main job as its user runs it: separate programs, real TLS, real files; only the photons are simulated."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from keystrand.testing.replay import Replay

PROVEN = ("hashes_equal", "keys_equal", "audit_verified", "ledger_balanced")


@pytest.mark.timeout(900)
@pytest.mark.proves("R027", "R087")
def test_the_demo_proves_what_it_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "keystrand", "demo", "--once", "--json", "--size-mib", "16"]
    cache = {"NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(tmp_path / "numba"))}
    run = subprocess.run(
        [*command, "--dir", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=880,
        env={**os.environ, **cache},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    facts = json.loads(run.stdout)
    assert all(facts[name] is True for name in PROVEN)
    assert facts["protection"] == "hybrid"
    assert facts["bytes"] == 16 * 1_048_576
    assert facts["rotations"] >= 3
    assert 0.0 < facts["qber"] < 0.11
    assert 0 < facts["secret_bits"] < facts["sifted_bits"]
    assert facts["keys_delivered"] > 0
    assert facts["skr_bps"] > 0
    assert facts["throughput_bytes_per_s"] > 0


def read_screen(descriptor: int) -> str:
    """All that a program writes to its terminal until it ends."""
    parts = []
    try:
        while part := os.read(descriptor, 65_536):
            parts.append(part)
    except OSError:  # Linux says EIO when the last writer is gone
        pass
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_the_demo_draws_one_picture_on_a_terminal_of_80_by_24(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    cache = {"NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(tmp_path / "numba"))}
    command = [sys.executable, "-m", "keystrand", "demo", "--once", "--size-mib", "16", "--dir", str(tmp_path / "demo")]
    setting = {**os.environ, **cache, "TERM": "xterm", "NO_COLOR": "1", "PYTHONUTF8": "1"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=setting) as run:
        os.close(theirs)
        written = read_screen(ours)
    os.close(ours)
    terminal = Replay(columns=80)
    terminal.feed(written)
    assert run.returncode == 0, terminal.lines
    *said, head, link, qber, rate, blocks, alpha, bravo, keys, transfer, rest = terminal.lines
    assert [line.startswith("[proven] ") for line in said].count(True) == len(PROVEN)
    assert written.count("-- waiting for keys, ") >= 2, "redrawn while it waits"
    assert head.startswith("-- done, ")
    assert (link.split()[:2], rest) == (["link", "alpha-bravo"], "")
    assert "%" in qber
    assert "bit/s" in rate
    assert "secret of" in blocks
    assert "#" in alpha
    assert "#" in bravo
    assert keys.split()[:2] == ["keys", "drawn"]
    assert "100% of 16.8 MB" in transfer
    assert "3 rotations" in transfer
    assert terminal.cursor
    assert terminal.colours == 0
