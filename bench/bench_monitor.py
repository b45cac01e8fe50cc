"""The monitor of a link: attacks that give Eve 5 % of the key, faults, and a year of a healthy link that drifts.

Attacks and faults act on simulated light, click by click; the healthy year is drawn block by block from its distributions.
Goals: every attack is seen in its first block, no fault is called an attack, less than one false alarm in a year.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from bench.quiet_link import QuietLink
from bench.report import Row, publish
from keystrand.lab.fibre import LitFibre
from keystrand.qkd.monitor.monitor import Monitor
from keystrand.qkd.optics_attacks import ATTACKS, strength_for
from keystrand.qkd.optics_faults import FAULTS
from keystrand.qkd.profile import Distillation, Fibre, LinkProfile, Proof, Source

EVE_SHARE = 0.05
STRENGTHS = {
    "fibre-cut": 1.0,
    "loss-step": 1.0,
    "polarisation-drift": 0.3,
    "raman": 1.0,
    "dark-count-rise": 100.0,
    "sync-loss": 0.1,
}
LEARN_BLOCKS = 10
FAULT_BLOCKS = 20  # a fault that grows slowly shows by then
YEAR_S = 365.25 * 86_400
PULSES = 300_000_000

TWO_DECOYS = LinkProfile(source=Source(p_mu=0.5, p_vacuum=0.1), distillation=Distillation(proof=Proof.LIM))
DRIFTING = LinkProfile(
    source=Source(clock_hz=1e9, p_mu=0.5, p_vacuum=0.1),
    fibre=Fibre(length_km=50, loss_drift_db=0.1, misalignment_drift=0.002, drift_time_s=1800.0),
    distillation=Distillation(proof=Proof.LIM),
)
BLOCK_S = 60.0  # of the healthy year


def trial(name: str, profile: LinkProfile, seed: int, pulses: int) -> tuple[str, int]:
    """What the monitor called it, and in which block of the disturbance it did; ("nothing", 0): not at all."""
    fibre, monitor = LitFibre(profile, seed), Monitor(profile)
    for _ in range(LEARN_BLOCKS):
        if monitor.judge(fibre.block(pulses)).cause:
            return "false alarm", 0
    if name in ATTACKS:
        acting, blocks = ATTACKS[name](strength_for(ATTACKS[name], profile, EVE_SHARE)), 1
    else:
        acting, blocks = FAULTS[name](STRENGTHS[name]), FAULT_BLOCKS  # type: ignore[assignment]
    for number in range(1, blocks + 1):
        verdict = monitor.judge(fibre.block(pulses, (acting,)))
        if verdict.cause:
            return verdict.cause, number
    return "nothing", 0


def confusion(trials: int, pulses: int) -> dict[str, Counter[str]]:
    """What each disturbance was called, over so many seeds; printed as it grows."""
    table: dict[str, Counter[str]] = {}
    for name in (*ATTACKS, *FAULTS):
        table[name] = Counter(trial(name, TWO_DECOYS, seed, pulses)[0] for seed in range(trials))
        words = ", ".join(f"{cause} {count}" for cause, count in table[name].most_common())
        print(f"{name:20} called {words}", flush=True)
    return table


def healthy(years: float, seed: int) -> tuple[int, int, float]:
    """Blocks, findings among them, and processor seconds, of a link with which nothing is wrong."""
    link, monitor = QuietLink(DRIFTING, seed), Monitor(DRIFTING)
    blocks, findings, began_s = int(years * YEAR_S / BLOCK_S), 0, time.process_time()
    for _ in range(blocks):
        verdict = monitor.judge(link.block(int(BLOCK_S * DRIFTING.source.clock_hz)))
        if verdict.cause and verdict.changed:
            findings += 1
            print(f"false alarm: {verdict.reason}", flush=True)
    return blocks, findings, time.process_time() - began_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--years", type=float, default=1.0)
    parser.add_argument("--pulses", type=int, default=PULSES)
    options = parser.parse_args()
    table = confusion(options.trials, options.pulses)
    harmful = list(ATTACKS)
    seen = sum(sum(table[name][cause] for cause in ATTACKS) for name in harmful)
    named = sum(table[name][name] for name in harmful)
    accused = sum(table[name][cause] for name in FAULTS for cause in ATTACKS)
    noticed = sum(
        count for name in FAULTS for cause, count in table[name].items() if cause not in ("nothing", "false alarm")
    )
    blocks, findings, spent_s = healthy(options.years, 1)
    runs = options.trials
    rows = [
        Row(name="attacks seen in their first block", value=seen / (runs * len(harmful)), unit="share", goal=1.0),
        Row(name="attacks called by their name", value=named / (runs * len(harmful)), unit="share"),
        Row(name="faults noticed", value=noticed / (runs * len(FAULTS)), unit="share", goal=1.0),
        Row(name="faults called an attack", value=accused / (runs * len(FAULTS)), unit="share", goal=0.0, better="lower"),
        Row(name="false alarms per year", value=findings / options.years, unit="1/a", goal=1.0, better="lower",
            note=f"{blocks} blocks of {BLOCK_S:g} s, simulated"),
        Row(name="processor time per block judged and drawn", value=1e6 * spent_s / max(1, blocks), unit="µs"),
    ]  # fmt: skip
    return 0 if publish("monitor", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
