"""What a person sees of a site: bounded history of events and gauges, as a snapshot or as a live stream.

A reader keeps a cursor, not a queue: it asks for what is newer than its cursor, so a slow reader costs nothing and
nothing piles up for it. One that stays away longer than the history reaches gets the whole history again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import Unavailable
from keystrand.core.events import Event, Scalar, Severity
from keystrand.observe.alarms import Alarm, alarms_of, is_alarming, tunnel_alarms
from keystrand.observe.gauges import AuditGauge, Gauges, LinkGauge, PeerGauge

__all__ = ["AuditGauge", "Feed", "Gauges", "LinkGauge", "PeerGauge"]

Point = tuple[int, float, list[float | None]]  # cursor, Unix time, values
READING_SHARE: Final = 0.02
INTERVAL_S_MAX: Final = 2.0  # the page calls its figures old after ten seconds
_SHOWN: Final = frozenset({Severity.INFO, Severity.NOTICE, Severity.WARNING, Severity.ALERT})
_QUIET: Final = frozenset(
    {"key.delivered", "link.block", "block.ingested", "transfer.rotated"}
)  # frequent; shown in places of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How much a feed keeps. Each figure bounds one list; memory is bounded by their sum."""

    blocks: int = 720
    pool_samples: int = 1800
    deliveries: int = 40
    events: int = 80
    alerts: int = 32
    warnings: int = 32
    transfers: int = 12
    tunnels: int = 512
    rotations: int = 48
    pairs: int = 256
    links: int = 64
    ways: int = 8
    readers_max: int = 32


@dataclass(slots=True)
class _Series:
    """The two charts of one link, and the ways that its last relayed blocks came, the newest last."""

    blocks: deque[Point]
    pool: deque[Point]
    measured: bool = False  # blocks came as events; gauges need not stand in for them
    last_block: dict[str, Scalar] = field(default_factory=dict)
    ways: dict[str, None] = field(default_factory=dict)


class Feed:
    """Sink of events and taker of gauges. Thread-safe: the engine's thread emits, the console's loop reads."""

    def __init__(self, site: str = "", *, clock: Clock | None = None, history: History | None = None) -> None:
        self._clock = clock or SystemClock()
        self._history = history or History()
        self._site = site
        self._started_s = self._clock.now_s()
        self._lock = threading.Lock()
        self._cursor = 0
        self._closed = False
        self._readers = 0
        self._gauges: Gauges | None = None
        self._gauges_at_s = 0.0
        self._plain: dict[str, Any] | None = None  # the gauges as a snapshot has them, made when one is asked for
        self._series: dict[str, _Series] = {}
        self._delivered = 0
        self._pairs: dict[tuple[str, str, str], int] = {}
        self._deliveries: deque[dict[str, Any]] = deque(maxlen=self._history.deliveries)
        self._transfers: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()  # by SAE and its name for it
        self._tunnels: dict[tuple[str, str], dict[str, Any]] = {}  # by SAE and name
        self._saw: dict[tuple[str, str], int] = {}  # bits that were in clear here, by link and "whole" or "part"
        self._events: deque[dict[str, Any]] = deque(maxlen=self._history.events)
        # two lists: warnings and what is said of tunnels, which an SAE may provoke, must not push out alerts
        self._alerts: deque[Event] = deque(maxlen=self._history.alerts)
        self._warnings: deque[Event] = deque(maxlen=self._history.warnings)

    # what comes in

    def emit(self, event: Event, /) -> None:
        """Take note of one event. Never raises for what the event holds, never waits for a reader."""
        with self._lock:
            self._cursor += 1
            if event.kind == "key.delivered":
                self._note_delivery(event)
            elif event.kind == "link.block":
                self._note_block(event)
            elif event.kind == "relay.saw":
                self._note_sight(event)
            elif event.kind == "relay.block":
                self._note_way(event)
            elif event.kind.startswith("transfer."):
                self._note_transfer(event)
            elif event.kind.startswith("tunnel.") and "state" in event.fields:
                self._note_tunnel(event)
            if is_alarming(event):
                provoked = event.severity is not Severity.ALERT or event.kind.startswith("tunnel.")
                (self._warnings if provoked else self._alerts).append(event)
            if event.severity in _SHOWN and event.kind not in _QUIET:
                self._events.append(_spoken(event))

    def update(self, gauges: Gauges) -> None:
        """Take the site's gauges, about once a second."""
        now_s = self._clock.now_s()
        with self._lock:
            self._cursor += 1
            self._gauges = gauges
            self._gauges_at_s = now_s
            self._plain = None
            for link in gauges.links:
                self._sample(link, now_s)

    def close(self) -> None:
        """End every stream, so that a server can stop."""
        self._closed = True

    # what goes out

    @property
    def age_s(self) -> float | None:
        """Seconds since the last gauges; None before the first."""
        with self._lock:
            return None if self._gauges is None else max(0.0, self._clock.now_s() - self._gauges_at_s)

    def snapshot(self, since: int = 0) -> dict[str, Any]:
        """Everything a page or `status --json` shows, ready for JSON. Series hold only points newer than `since`."""
        with self._lock:
            now_s = self._clock.now_s()
            return {
                "version": 1,
                "site": self._site,
                "at_s": now_s,
                "started_s": self._started_s,
                "cursor": self._cursor,
                "full": not self._reaches(since),
                **self._gauge_part(),
                "alarms": [_plain_alarm(alarm) for alarm in self._alarms(now_s)],
                "deliveries": self._delivery_part(),
                "saw": [{"link": link, "seen": seen, "bits": n} for (link, seen), n in sorted(self._saw.items())],
                "transfers": [dict(transfer) for transfer in reversed(self._transfers.values())],
                "tunnels": [dict(tunnel) for tunnel in self._tunnels.values()],
                "events": list(reversed(self._events)),
                "series": self._series_part(since if self._reaches(since) else 0),
            }

    async def subscribe(self, *, interval_s: float = 0.25) -> AsyncIterator[dict[str, Any]]:
        """Snapshots as they change, at most one per `interval_s`; the first holds the whole history.

        Where many links make a snapshot dear, they come more rarely: all readers together take about
        `READING_SHARE` of a processor for them, until they come every `INTERVAL_S_MAX`.

        Raises Unavailable where `readers_max` streams are already open.
        """
        self._enter()
        try:
            cursor, share_s = 0, 0.0
            while not self._closed:
                if self._cursor != cursor or not cursor:
                    began_s = time.perf_counter()
                    message = self.snapshot(cursor)
                    cursor = message["cursor"]
                    share_s = (time.perf_counter() - began_s) * self._readers / READING_SHARE
                    yield message
                await asyncio.sleep(max(interval_s, min(share_s, INTERVAL_S_MAX)))
        finally:
            self._leave()

    # inside, under the lock

    def _enter(self) -> None:
        with self._lock:
            if self._readers >= self._history.readers_max:
                raise Unavailable("too many live streams are open", hint="close a status page", retry_after_s=5.0)
            self._readers += 1

    def _leave(self) -> None:
        with self._lock:
            self._readers -= 1

    def _note_delivery(self, event: Event) -> None:
        fields = event.fields
        pair = (str(fields.get("initiator", "")), str(fields.get("responder", "")), str(fields.get("protection", "")))
        keys = fields.get("keys", 1)
        number = keys if isinstance(keys, int) else 1
        self._delivered += number
        if pair in self._pairs or len(self._pairs) < self._history.pairs:
            self._pairs[pair] = self._pairs.get(pair, 0) + number
        self._deliveries.append({"at_s": event.at_s, **fields})

    def _note_block(self, event: Event) -> None:
        series = self._series_of(str(event.fields.get("link", "")))
        if series is None:
            return
        if not series.measured:
            series.measured = True
            series.blocks.clear()
        series.last_block = {"at_s": event.at_s, **event.fields}
        rates = [_number(event.fields.get("qber")), _number(event.fields.get("skr_bps"))]
        series.blocks.append((self._cursor, event.at_s, rates))

    def _note_way(self, event: Event) -> None:
        series, way = self._series_of(str(event.fields.get("link", ""))), str(event.fields.get("source", ""))
        if series is None:
            return
        series.ways.pop(way, None)
        series.ways[way] = None
        while len(series.ways) > self._history.ways:
            del series.ways[next(iter(series.ways))]

    def _note_sight(self, event: Event) -> None:
        seen, bits = (str(event.fields.get("link", "")), str(event.fields.get("seen", ""))), event.fields.get("bits", 0)
        if seen in self._saw or len(self._saw) < self._history.pairs:
            self._saw[seen] = self._saw.get(seen, 0) + (bits if isinstance(bits, int) else 0)

    def _note_transfer(self, event: Event) -> None:
        sae, name = (str(event.fields.get(part, "")) for part in ("sae", "transfer_id"))
        fresh = {"sae": sae, "transfer_id": name, "started_s": event.at_s, "rotated": []}
        transfer = self._transfers.setdefault((sae, name), fresh)
        transfer.update(event.fields)
        transfer["at_s"] = event.at_s
        transfer["state"] = _transfer_state(event)
        if event.kind == "transfer.rotated":
            turn = {"at_s": event.at_s, **{k: event.fields[k] for k in _ROTATION if k in event.fields}}
            # a new list: a snapshot that was handed out keeps the old one
            transfer["rotated"] = [*transfer["rotated"], turn][-self._history.rotations :]
        while len(self._transfers) > self._history.transfers:
            self._transfers.popitem(last=False)

    def _note_tunnel(self, event: Event) -> None:
        """The last that its connector said; what it says more rarely stays."""
        name = str(event.fields.get("sae", "")), str(event.fields.get("tunnel", ""))
        if name not in self._tunnels and len(self._tunnels) >= self._history.tunnels:
            self._tunnels.pop(self._crowded())
        self._tunnels[name] = {**event.fields, "tunnel": name[1], "at_s": event.at_s}

    def _crowded(self) -> tuple[str, str]:
        """The tunnel that makes room: the first of the SAE that has most, so that nobody's reports push out another's."""
        most, _ = Counter(sae for sae, _ in self._tunnels).most_common(1)[0]
        return next(name for name in self._tunnels if name[0] == most)

    def _sample(self, link: LinkGauge, now_s: float) -> None:
        series = self._series_of(link.link)
        if series is None:
            return
        available, reserved = (float(link.ledger.get(name, 0)) for name in ("available", "reserved"))
        held: list[float | None] = [available, reserved, float(link.owned_free_bits), float(link.oldest_block_age_s)]
        series.pool.append((self._cursor, now_s, held))
        if not series.measured and link.qber is not None:
            series.blocks.append((self._cursor, now_s, [link.qber, link.skr_bps]))

    def _series_of(self, link: str) -> _Series | None:
        if link not in self._series:
            if len(self._series) >= self._history.links:
                return None
            bounds = self._history
            self._series[link] = _Series(deque(maxlen=bounds.blocks), deque(maxlen=bounds.pool_samples))
        return self._series[link]

    def _reaches(self, since: int) -> bool:
        """Whether every point newer than `since` is still kept (else the reader needs the whole history)."""
        if not 0 < since <= self._cursor:
            return False
        lists = [points for series in self._series.values() for points in (series.blocks, series.pool)]
        return all(len(points) != points.maxlen or points[0][0] <= since for points in lists)

    def _series_part(self, since: int) -> dict[str, Any]:
        return {
            link: {
                "blocks": _newer(s.blocks, since),
                "pool": _newer(s.pool, since),
                "last_block": dict(s.last_block),
                "ways": list(s.ways),
            }
            for link, s in self._series.items()
        }

    def _delivery_part(self) -> dict[str, Any]:
        names = ("initiator", "responder", "protection")
        pairs = [{**dict(zip(names, pair, strict=True)), "keys": n} for pair, n in sorted(self._pairs.items())]
        return {"total": self._delivered, "pairs": pairs, "recent": list(reversed(self._deliveries))}

    def _gauge_part(self) -> dict[str, Any]:
        if self._plain is None:
            self._plain = _plain_gauges(self._gauges)
        return self._plain

    def _alarms(self, now_s: float) -> list[Alarm]:
        found = alarms_of(self._gauges, self._gauges_at_s, [*self._alerts, *self._warnings], now_s)
        return sorted(
            [*found, *tunnel_alarms(self._tunnels.values(), now_s)], key=lambda alarm: alarm.severity != "alert"
        )


_ROTATION: Final = ("key_id", "protection", "rotations", "bytes_done")
_STATES: Final = {
    "transfer.started": "running",
    "transfer.progress": "running",
    "transfer.rotated": "running",
    "transfer.resumed": "running",
    "transfer.finished": "finished",
    "transfer.failed": "failed",
}


def _transfer_state(event: Event) -> str:
    return str(event.fields.get("state") or _STATES.get(event.kind, "running"))


def _newer(points: deque[Point], since: int) -> list[list[float | None]]:
    return [[at_s, *values] for cursor, at_s, values in points if cursor > since]


def _number(value: Scalar | None) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _spoken(event: Event) -> dict[str, Any]:
    fields = dict(event.fields)
    return {"at_s": event.at_s, "kind": event.kind, "severity": event.severity.value, "fields": fields}


def _plain_alarm(alarm: Alarm) -> dict[str, str]:
    return {**asdict(alarm), "owner": alarm.owner, "runbook": alarm.runbook}


def _plain_gauges(gauges: Gauges | None) -> dict[str, Any]:
    if gauges is None:
        return {"links": [], "peers": [], "audit": None, "cert_expiry_s": None, "waivers_active": 0, "network": None}
    return {
        "links": [link.plain() for link in gauges.links],
        "peers": [asdict(peer) for peer in gauges.peers],
        "audit": asdict(gauges.audit),
        "cert_expiry_s": gauges.cert_expiry_s,
        "waivers_active": gauges.waivers_active,
        "network": asdict(gauges.network) if gauges.network is not None else None,
    }
