"""`keystrand tunnel`: what it says about tunnels that run, that do not, and that are not there."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.founding import append
from keystrand.lab.pair import found_pair

KEY = base64.b64encode(b"k" * 32).decode()
TABLE = f"""
[tunnel.west]
kind = "wireguard"
peer = "bravo"
sae = "gateway-alpha"
peer_sae = "gateway-bravo"
connect = "127.0.0.1:7000"
on_exhaustion = "fallback:pqc"
fallback_s = 60.0
start = "apart"
[tunnel.west.wireguard]
interface = "wgw"
private_key = "none.key"
peer_public_key = "{KEY}"
allowed_ips = ["10.2.0.0/16"]
"""
STATUS = {
    "tunnel": "west",
    "kind": "wireguard",
    "role": "initiator",
    "peer_sae": "gateway-bravo",
    "state": "up",
    "connected": False,
    "generation": 7,
    "protection": "hybrid",
    "key_age_s": 12.0,
    "next_rotation_s": 48.0,
    "exposure_s": 13.0,
    "bytes_under_key": 2_000_000,
    "rotations_total": 6,
    "rotations_fresh_total": 5,
    "fallback_s": 4.0,
    "rekey_missed_total": 1,
    "blocks_total": 0,
    "last_failure": "no key",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    site = found_pair(tmp_path / "pair").site_files["alpha"]
    append(site, TABLE)
    return site


def say(file: Path, at_s: float) -> None:
    folder = file.parent / "state" / "tunnels" / "west"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps(STATUS | {"at_s": at_s}))


def test_a_running_tunnel_is_told_in_words_and_in_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(file, time.time())
    assert run(["tunnel", "list", "--config", str(file)]) == exits.OK
    words = capsys.readouterr().out
    for part in ("west  wireguard, initiator, with gateway-bravo: up", "hybrid", "12 s old", "next in 48 s", "2.0 MB"):
        assert part in words
    assert "6 rotations (5 with fresh entropy), 1 missed" in words
    assert "IN FALLBACK for 4 s, below the protection that is required; blocked in 56 s" in words
    assert "NOT connected" in words
    assert "last failure: no key" in words
    run(["tunnel", "list", "--json", "--config", str(file)])
    assert json.loads(capsys.readouterr().out)["exposure_s"] == 13.0


@pytest.mark.parametrize("age_s", [None, 60.0])
def test_what_was_written_long_ago_or_never_does_not_run(
    file: Path, capsys: pytest.CaptureFixture[str], age_s: float | None
) -> None:
    if age_s is not None:
        say(file, time.time() - age_s)
    run(["tunnel", "list", "--config", str(file)])
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "west  wireguard, initiator, with gateway-bravo: not running"
    assert [line.partition("heard of")[2] for line in rest] == (
        [" 60 s ago, and the tunnel was up then"] if age_s else []
    )


def test_run_names_what_stands_in_the_way(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tunnel", "run", "east", "--config", str(file)]) == exits.CONFIG
    assert "there are: west" in capsys.readouterr().err
    assert run(["tunnel", "run", "west", "--config", str(file)]) == exits.CONFIG
    assert "none.key: No such file" in capsys.readouterr().err


def test_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tunnel", "kinds"]) == exits.OK
    assert "wireguard" in capsys.readouterr().out.split()
