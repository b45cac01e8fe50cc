"""The quantum link pulled, again and again: does traffic stop in time, or fall back, and is all as it was afterwards?

Between the runs nothing is started anew: one tunnel, one pool that runs dry and fills again. Whatever quantum bits are stored
when the link goes, another application draws, so that each run is about as long as the hold time.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bench.report import Row
from bench.transport_world import World, world
from keystrand.cli.options import site_of
from keystrand.cli.sae_client import client_of
from keystrand.core.errors import Unavailable
from keystrand.core.protection import Protection
from keystrand.lab.load import MARK
from keystrand.lab.pair import SITES
from keystrand.lab.tunnel_sites import Drill
from keystrand.lab.wires import Load
from keystrand.transport.keys import Etsi014Keys

ROTATE_S, HOLD_S, FALLBACK_S = 0.7, 2.0, 30.0
MARGIN_S = 0.5  # the tick, the step to stop, the processor that others have
FED_BITS = 16_384
RUN_S = 60.0
SILENCE_S = 1.0  # shorter ones are the machine's, which other work shares
EMPTY_LOOKS = 15


@dataclass(slots=True)
class Runs:
    """What was seen. stop_s: from the last key in use to the last packet, one for each run that stops."""

    wanted: int
    done: int = 0
    stopped: int = 0
    fell_back: int = 0
    restored: int = 0
    stop_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    fallback_lost: int = 0
    longest_gap_ms: float = 0.0
    clear: int = 0


def drill(kind: str, runs: int, on_exhaustion: str) -> list[Row]:
    falls_back = on_exhaustion != "fail-closed"
    terms = Drill(
        rotate_s=ROTATE_S, hold_s=HOLD_S, on_exhaustion=on_exhaustion, fallback_s=FALLBACK_S if falls_back else 0.0
    )
    seen = Runs(runs)
    with world(kind, terms, key_bits=FED_BITS) as place, drawing(place) as keys:
        for number in range(runs):
            load = place.load(RUN_S)
            drain(keys)
            (fall_back if falls_back else stop)(place, seen, load)
            seen.done += 1
            if sys.stderr.isatty() or number % 10 == 9:
                print(f"{kind}, {on_exhaustion}: {number + 1} of {runs}", file=sys.stderr)
        rotated = {site: place.sites.events(site, "tunnel.rotated") for site in SITES}
    return rows_of(kind, on_exhaustion, seen, rotated)


@contextlib.contextmanager
def drawing(place: World) -> Iterator[Etsi014Keys]:
    """As another application of alpha would."""
    with client_of(site_of(place.sites.file("alpha")), "gateway-alpha", timeout_s=10.0) as client:
        yield Etsi014Keys(client)


def drain(keys: Etsi014Keys) -> None:
    """Until a request finds no quantum bits, for as long as the other end needs to lend what it has."""
    size_bits, empty = 1024, 0
    while empty < EMPTY_LOOKS:
        try:
            has_some = keys.fresh("gateway-bravo", size_bits).protection >= Protection.QKD
        except Unavailable:
            has_some = False
        empty = 0 if has_some else empty + 1
        if not has_some:
            size_bits = 256
            time.sleep(0.1)


def when_s(event: dict[str, Any]) -> float:
    """Monotonic seconds of something that was logged."""
    return datetime.fromisoformat(event["time"]).timestamp() - (time.time() - time.monotonic())


def stop(place: World, seen: Runs, load: Load) -> None:
    place.sites.wait("blocked", HOLD_S + 10.0)
    seen.clear += place.wires.capture("a", 0.3, MARK)
    last_key_s = min(when_s(place.sites.events(site, "tunnel.rotated")[-1]) for site in SITES)
    place.tap.feed(FED_BITS)
    fed_s = time.monotonic()
    place.sites.wait("up", 20.0)
    time.sleep(0.2)
    gaps = [gap for gap in load.stop().gaps if gap[1] > fed_s]
    if gaps:
        stopped_s, back_s = gaps[0]
        seen.stopped += stopped_s - last_key_s <= HOLD_S + MARGIN_S
        seen.stop_s.append(stopped_s - last_key_s)
        seen.back_s.append(back_s - fed_s)
    seen.restored += protected(place)


def fall_back(place: World, seen: Runs, load: Load) -> None:
    place.sites.wait("fallback", HOLD_S + 10.0)
    below = lower_key(place, 5 * ROTATE_S)
    place.tap.feed(FED_BITS)
    fed_s = time.monotonic()
    place.sites.wait("up", 20.0)
    seen.back_s.append(time.monotonic() - fed_s)
    report = load.stop()
    seen.fell_back += below and report.longest_gap_ms < 1e3 * SILENCE_S
    seen.longest_gap_ms = max(seen.longest_gap_ms, report.longest_gap_ms)
    seen.fallback_lost += report.lost
    seen.restored += protected(place)


def lower_key(place: World, within_s: float) -> bool:
    """Does a key of the fallback come into use at both ends?"""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        statuses = place.sites.look().values()
        if all(status["state"] == "fallback" and status["protection"] == "pqc" for status in statuses):
            return True
        time.sleep(0.1)
    return False


def protected(place: World) -> bool:
    return all(status["protection"] == "hybrid" for status in place.sites.look().values())


def rows_of(kind: str, on_exhaustion: str, seen: Runs, rotated: dict[str, list[dict[str, Any]]]) -> list[Row]:
    ours, runs = f"{kind}, {on_exhaustion}", float(seen.wanted)
    reused = sum(len(events) - len({event["key_id"] for event in events}) for events in rotated.values())
    ids = [{event["key_id"]: event["number"] for event in events} for events in rotated.values()]
    differing = sum(ids[1].get(key_id, number) != number for key_id, number in ids[0].items())
    rows = []
    if seen.stop_s:
        rows += [
            Row(name=f"{ours}: traffic stopped in time", value=float(seen.stopped), unit="runs", goal=runs,
                note=f"within {HOLD_S + MARGIN_S:g} s of the last key"),
            Row(name=f"{ours}: last key to last packet", value=max(seen.stop_s), unit="s, longest", better="lower"),
            Row(name=f"{ours}: frames in clear", value=float(seen.clear), unit="", goal=0.0, better="lower"),
        ]  # fmt: skip
    else:
        rows += [
            Row(name=f"{ours}: traffic went on under a lower key", value=float(seen.fell_back), unit="runs", goal=runs),
            Row(name=f"{ours}: longest silence", value=seen.longest_gap_ms, unit="ms", better="lower"),
            Row(name=f"{ours}: lost meanwhile", value=float(seen.fallback_lost), unit="packets", better="lower"),
        ]  # fmt: skip
    rows += [
        Row(name=f"{ours}: the required protection came back", value=float(seen.restored), unit="runs", goal=runs),
        Row(name=f"{ours}: keys to required protection", value=max(seen.back_s, default=0.0), unit="s, longest",
            better="lower"),
        Row(name=f"{ours}: keys used twice", value=float(reused + differing), unit=f"of {len(rotated['alpha'])}",
            goal=0.0, better="lower"),
    ]  # fmt: skip
    return rows
