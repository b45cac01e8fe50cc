"""The status of a site in 80 columns, without colour: what `keystrand status` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

WIDTH: Final = 80
BAR_WIDTH: Final = 30
_MARKS: Final = {"available": "#", "reserved": "=", "delivered": "-", "quarantined": "?", "burnt": "x", "expired": "."}
Snapshot = dict[str, Any]


def render_status(snapshot: Snapshot) -> str:
    """Lines of at most 80 columns, ending in a newline. `snapshot` is `Feed.snapshot()` or its JSON."""
    lines = [*_head(snapshot), *_alarms(snapshot)]
    for part in (_links, _network, _peers, _keys, _transfers, _audit):
        if told := [*part(snapshot)]:
            lines += ["", *told]
    return "\n".join(fit(line) for line in lines) + "\n"


def bits(count: float) -> str:
    """1234567 -> '1.23 Mbit'; decimal prefixes."""
    for unit, scale in (("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3)):
        if abs(count) >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:.0f} bit"


def span(seconds: float | None) -> str:
    """A duration in its largest two units: '2 h 05 min'."""
    if seconds is None:
        return "-"
    whole = int(max(0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def fit(line: str, columns: int = WIDTH) -> str:
    """Safe to print and at most so many columns: what a name holds cannot steer the terminal."""
    clean = _clean(line).rstrip()
    return clean if len(clean) <= columns else clean[: columns - 1] + "…"


def _clean(line: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in line)


def _head(snapshot: Snapshot) -> Iterator[str]:
    at = _moment(snapshot["at_s"])
    up = span(snapshot["at_s"] - snapshot["started_s"])
    yield f"site {snapshot['site'] or '-'}   {at}   running for {up}"


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _alarms(snapshot: Snapshot) -> Iterator[str]:
    if not snapshot["alarms"]:
        yield "no alarms"
    for alarm in snapshot["alarms"]:
        word = "ALERT" if alarm["severity"] == "alert" else "warning"
        yield from textwrap.wrap(_clean(f"{word}: {alarm['about']}: {alarm['text']}"), WIDTH, subsequent_indent="  ")
        yield f"  {alarm['owner']}: see {alarm['runbook']}"


def _links(snapshot: Snapshot) -> Iterator[str]:
    yield "LINKS"
    for link in snapshot["links"] or ():
        photons = "photons simulated" if link["simulated"] else "hardware"
        yield f"  {link['link']} to {link['peer']}   {link['state']}   ({photons})"
        qber = "-" if link["qber"] is None else f"{100 * link['qber']:.2f} %"
        rate = "-" if link["skr_bps"] is None else f"{bits(link['skr_bps'])}/s"
        yield f"    QBER {qber}   secret key rate {rate}"
        yield f"    pool  {_bar(link['ledger'])}  {bits(link['ledger']['available'])} available"
        yield from _accounts(link["ledger"])
        yield (
            f"    empty in {span(link['time_to_empty_s'])}"
            if link["time_to_empty_s"] is not None
            else "    not shrinking"
        )
    if not snapshot["links"]:
        yield "  none"


def _bar(ledger: dict[str, int]) -> str:
    """The accounts as one bar; each mark has its count in the line below, so the bar is never the only source."""
    total = max(1, ledger["ingested"])
    # a ledger that does not balance raises an alarm; here it must only not overflow the bar
    drawn = "".join(mark * min(BAR_WIDTH, round(BAR_WIDTH * ledger[name] / total)) for name, mark in _MARKS.items())
    return f"[{drawn[:BAR_WIDTH]:<{BAR_WIDTH}}]"


def _accounts(ledger: dict[str, int]) -> Iterator[str]:
    names = [name for name in _MARKS if name != "available" and ledger[name]]
    for row in (names[:3], names[3:]):
        if row:
            yield "    " + "  ".join(f"{_MARKS[name]} {name} {bits(ledger[name])}" for name in row)


def _network(snapshot: Snapshot) -> Iterator[str]:
    """Of sites and hops only what is not as it should be, a hop of such a site not again; the page has them all."""
    network = snapshot.get("network")  # a site of an older release says nothing of it
    if network is None:
        return
    yield f"NETWORK {network['network']}   {len(network['places'])} sites, {network['hops_total']} hops"
    for way in network["ways"]:
        planned = ", by planned maintenance" if way["planned"] else ""
        yield f"  {way['link']}, {' to '.join(way['ends'])}   {len(way['routes'])} of {way['paths']} ways{planned}"
        for route in way["routes"]:
            yield from textwrap.wrap(" > ".join(route), WIDTH - 4, initial_indent="    ", subsequent_indent="      ")
    named = {place["site"] for place in network["places"] if place["state"] != "up"}
    for hop in network["hops"]:
        if hop["state"] != "up" and not named & {hop["one"], hop["other"]}:
            yield f"  hop {hop['one']} – {hop['other']} is {hop['state']}"
    for place in network["places"]:
        if place["state"] != "up":
            yield f"  {place['site']} is {place['state'].replace('maintenance', 'in maintenance')}"
        if place["missing"]:
            yield f"  {place['site']} is not documented: {', '.join(place['missing'])}"
    for saw in snapshot["saw"]:
        part = "whole blocks" if saw["seen"] == "whole" else "parts that say nothing alone"
        yield f"  in clear here, of {saw['link']}: {bits(saw['bits'])}, {part}"


def _peers(snapshot: Snapshot) -> Iterator[str]:
    yield "PEERS"
    for peer in snapshot["peers"] or ():
        state = f"{'up' if peer['up'] else 'DOWN'} since {_moment(peer['since_s'])}"
        strand = f"ML-KEM strand {span(peer['strand_age_s'])} old" if peer["strand_age_s"] is not None else "no strand"
        yield f"  {peer['peer']}   {state} ({span(snapshot['at_s'] - peer['since_s'])})"
        runs = peer.get("release") or "not said"  # also not by a site of an older release
        yield f"    {peer['group'] or 'no TLS'}   {strand}   epoch {peer['epoch']}   release {runs}"
    if not snapshot["peers"]:
        yield "  none"


def _keys(snapshot: Snapshot) -> Iterator[str]:
    yield f"KEYS   {snapshot['deliveries']['total']} delivered since start"
    for pair in snapshot["deliveries"]["pairs"][:8]:
        yield f"  {pair['initiator']} to {pair['responder']}   {pair['protection']}   {pair['keys']}"


def _transfers(snapshot: Snapshot) -> Iterator[str]:
    yield "TRANSFERS"
    for transfer in snapshot["transfers"][:4]:
        done, total = transfer.get("bytes_done", 0), transfer.get("bytes_total", 0)
        part = f"{100 * done / total:.0f} %" if total else "-"
        turns = transfer.get("rotations", len(transfer["rotated"]))
        yield f"  {transfer['transfer_id'][:8]}   {transfer['state']}   {part}   {turns} key rotations"
    if not snapshot["transfers"]:
        yield "  none"


def _audit(snapshot: Snapshot) -> Iterator[str]:
    yield "AUDIT"
    audit = snapshot["audit"]
    if audit is None:
        yield "  no figures yet"
        return
    yield f"  {audit['size']} records, {audit['last_checkpoint_size']} under a signed checkpoint"
    at_s = audit["cosigned_at_s"]
    ago = "never co-signed" if at_s is None else f"co-signed {span(snapshot['at_s'] - at_s)} ago"
    yield f"  {audit['cosigned_size']} {ago}" if at_s is not None else f"  {ago} by a peer"
