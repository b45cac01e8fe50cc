"""The main job as its user runs it: separate programs, real TLS, real files; only the photons are simulated."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROVEN = ("hashes_equal", "keys_equal", "audit_verified", "ledger_balanced")


@pytest.mark.proves("R027", "R087")
def test_the_demo_proves_what_it_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "keystrand", "demo", "--once", "--json", "--size-mib", "16"]
    cache = {"NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(tmp_path / "numba"))}
    run = subprocess.run(
        [*command, "--dir", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=200,
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
