"""`keystrand lab tunnel`: the whole story, counted on packets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keystrand.cli.program import run
from keystrand.lab.wires import why_not

REASON = why_not() or ("" if shutil.which("wireguard-go") else "the program wireguard-go is missing")
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.mark.timeout(900)
@pytest.mark.proves("R028", "R053", "R100", "R106")
def test_keys_change_end_and_come_back_and_no_packet_is_lost_or_seen_in_clear(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--rotate-s", "1", "--seconds", "4", "--on-exhaustion", "fallback:pqc", "--json"]
    assert run(["site", "init", "delta", "--dir", str(tmp_path / "delta")]) == 0
    signed, site = tmp_path / "behaviour.note", ["--config", str(tmp_path / "delta" / "site.toml")]
    options += ["--dir", str(tmp_path / "lab"), "--report", str(signed), *site]
    words = [sys.executable, "-m", "keystrand", "lab", "tunnel", "wireguard", *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=440)
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

    capsys.readouterr()
    assert run(["audit", "verify-report", str(signed), *site]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["traffic"]["packets_passed_when_blocked"] == report["traffic"]["frames_in_clear"] == 0
    for name in ("alpha", "bravo"):
        assert any("lab: no key is young enough: no packet passes" in told for told in report["alarms"][name])
        assert "warning: alpha-bravo: link is down: no new key arrives" in report["alarms"][name]
        ends = report["keys"]["tunnels"][name]
        assert 0 < ends["last_key_after_s"] <= ends["blocked_after_s"] < ends["restored_after_s"]


def test_a_kind_that_is_not_there_is_refused(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "keystrand", "lab", "tunnel", "carrier-pigeon", "--dir", str(tmp_path / "lab")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4
    assert "wireguard" in done.stderr
