"""`keystrand lab tunnel`: the whole story, counted on packets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keystrand.lab.wires import why_not

REASON = why_not() or ("" if shutil.which("wireguard-go") else "the program wireguard-go is missing")
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.mark.proves("R028", "R053", "R106")
def test_keys_change_end_and_come_back_and_no_packet_is_lost_or_seen_in_clear(tmp_path: Path) -> None:
    options = ["--rotate-s", "1", "--seconds", "4", "--on-exhaustion", "fallback:pqc", "--json"]
    options += ["--dir", str(tmp_path / "lab")]
    words = [sys.executable, "-m", "keystrand", "lab", "tunnel", "wireguard", *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr + done.stdout
    facts = json.loads(done.stdout)
    assert facts["photons"] == "simulated"
    assert facts["rotations"] >= 2
    assert (facts["missed"], facts["load"]["lost"]) == (0, 0)
    assert facts["load"]["sent"] > 3900
    pulled, outage = facts["link_pulled"], facts["outage"]
    assert (pulled["fallback"]["protection"], pulled["fallback"]["load"]["lost"]) == ("pqc", 0)
    for part in (pulled, outage):
        assert (part["packets_passed_when_blocked"], part["frames_in_clear"]) == (0, 0)
        assert part["traffic_went_on_for_s"] < part["hold_s"] + part["fallback_s"] + 2.0
        assert part["recovery"]["load"]["lost"] == 0


def test_a_kind_that_is_not_there_is_refused(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "keystrand", "lab", "tunnel", "carrier-pigeon", "--dir", str(tmp_path / "lab")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert "wireguard" in done.stderr
