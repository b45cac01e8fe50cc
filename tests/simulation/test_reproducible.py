"""One seed is one history, whatever the order of this process's sets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HISTORY = """
import random
from keystrand.testing.network.maps import drawn_atlas
from keystrand.testing.network.world import Network
from keystrand.testing.world.faults import Faults
from keystrand.testing.world.run import run_seed

stormy = Faults(loss=0.02, duplicate=0.02, crash_every_s=100.0, partition_every_s=100.0, crash_per_operation=0.0005)
network = Network(11, drawn_atlas(random.Random(11), 8, 3), faults=stormy)
network.run(200.0)
print(network.schedule.trace_hash(), network.tally)
print(run_seed(3, duration_s=200.0))
"""


@pytest.mark.proves("R098")
def test_a_seed_is_one_history_under_every_hash_seed() -> None:
    told = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", HISTORY],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        )
        told.append(done.stdout)
    assert told[0] == told[1]
    assert "keys_drawn" in told[0]
