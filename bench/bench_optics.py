"""One hour of a 1 GHz link over 50 km: exact counts, and click by click: python -m bench.bench_optics"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".numba_cache"))

import numpy as np

from bench.report import Row, publish
from keystrand.config.load import load_profile
from keystrand.core.secret import Secret
from keystrand.qkd.optics import QuantumChannel
from keystrand.qkd.optics_channel import quiet_conditions
from keystrand.qkd.optics_statistics import count_clicks
from keystrand.qkd.profile import LinkProfile
from keystrand.qkd.rates import at_length

HOUR_S = 3600
TRAIN_S = 0.05
GATED = "class-ingaas-1ghz"


def counts_s(profile: LinkProfile, rng: np.random.Generator) -> tuple[float, int]:
    """Processor time of one hour of counts, second by second, and its clicks."""
    now, begun_s, clicks = quiet_conditions(profile), time.process_time(), 0
    for _ in range(HOUR_S):
        clicks += count_clicks(now, int(profile.source.clock_hz), rng)[1]
    return time.process_time() - begun_s, clicks


def clicks_s(profile: LinkProfile, seconds: float, rng: np.random.Generator) -> tuple[float, int]:
    """Processor time of so many seconds of light, click by click with the transmitter's choices, and its clicks."""
    channel = QuantumChannel(Secret(os.urandom(32)), profile, rng=rng)
    train = int(TRAIN_S * profile.source.clock_hz)
    channel.detect(0, train)  # compile
    begun_s, clicks = time.process_time(), 0
    for number in range(1, round(seconds / TRAIN_S) + 1):
        clicks += channel.detect(number * train, train).indices.size
    return time.process_time() - begun_s, clicks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of light, click by click")
    options = parser.parse_args()
    rng, rows = np.random.default_rng(1), []
    for name in (GATED, "class-snspd"):
        profile = at_length(load_profile(name).profile, 50.0)
        spent_s, clicks = counts_s(profile, rng)
        rows.append(
            Row(
                name=f"{name}: hour, counts",
                value=spent_s,
                unit="s",
                goal=60,
                better="lower",
                note=f"{clicks:.3g} clicks",
            )
        )
        spent_s, clicks = clicks_s(profile, options.seconds, rng)
        hour_s = spent_s * HOUR_S / options.seconds
        note = f"from {options.seconds:g} s of light"
        goal = 60 if name == GATED else None  # the other one clicks 6 million times a second
        rows.append(
            Row(name=f"{name}: hour, click by click", value=hour_s, unit="s", goal=goal, better="lower", note=note)
        )
        rows.append(Row(name=f"{name}: speed", value=options.seconds / spent_s, unit="x real time"))
        rows.append(Row(name=f"{name}: clicks", value=clicks / spent_s / 1e6, unit="M/s"))
    return 0 if publish("optics", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
