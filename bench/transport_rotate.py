"""Rotation under traffic: what is lost, how soon a key that both key managers have is in use, and who has seen it."""

from __future__ import annotations

import statistics
import time

from bench.load014 import percentile
from bench.report import Row
from bench.transport_world import world
from keystrand.lab.pair import SITES
from keystrand.lab.tunnel_sites import Drill


def rotate(kind: str, seconds: float, rotate_s: float, packets_per_s: int) -> list[Row]:
    """Traffic in both directions where the kind carries packets; streams where it carries TCP."""
    drill = Drill(rotate_s=rotate_s, hold_s=30.0 * rotate_s)
    keys = int(2 * seconds / rotate_s) + 50
    with world(kind, drill, key_bits=2 * 256 * keys) as place:
        began = {site: len(events) for site, events in place.rotated().items()}
        missed = {site: len(place.sites.events(site, "tunnel.missed")) for site in SITES}
        loads = [place.load(seconds, packets_per_s=packets_per_s)]
        if not place.way:
            loads.append(place.load(seconds, packets_per_s=packets_per_s, back=True))
        time.sleep(seconds)
        reports = [load.wait(60.0) for load in loads]
        time.sleep(1.0)  # the last rotation is logged at both ends
        seen = {site: events[began[site] :] for site, events in place.rotated().items()}
        missed_total = sum(len(place.sites.events(site, "tunnel.missed")) - missed[site] for site in SITES)
    names = [{(event["number"], event["key_id"]) for event in events} for events in seen.values()]
    ours = f"{kind}, every {rotate_s:g} s"
    rows = [
        Row(name=f"{ours}: rotations", value=float(len(names[0] & names[1])), unit="at both ends",
            goal=0.9 * seconds / rotate_s, note=f"{seconds:g} s; {place.note}"),
        Row(name=f"{ours}: of them at one end only", value=float(len(names[0] ^ names[1])), unit="", goal=1.0,
            better="lower", note="the last one may have been under way"),
        Row(name=f"{ours}: missed", value=float(missed_total), unit="", goal=0.0, better="lower"),
    ]  # fmt: skip
    for report, towards in zip(reports, ("to the responder", "to the initiator"), strict=False):
        rows.append(
            Row(name=f"{ours}: lost {towards}", value=float(report.lost), unit=f"of {report.sent}", goal=0.0,
                better="lower", note=f"p50 {report.latency_p50_ms:.2f} ms, p99 {report.latency_p99_ms:.2f} ms")
        )  # fmt: skip
    use_ms = sorted(event["use_ms"] for event in seen["alpha"])
    rows += [
        Row(name=f"{kind}: key at both KMEs to traffic under it", value=statistics.median(use_ms), unit="ms, median",
            better="lower"),
        Row(name=f"{kind}: key at both KMEs to traffic under it", value=percentile(use_ms, 0.99), unit="ms, p99",
            better="lower"),
    ]  # fmt: skip
    return rows
