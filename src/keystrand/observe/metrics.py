"""Prometheus metrics of a site. The table `METRICS` is the reference; docs/reference/metrics.md is printed from it.

Labels name links, peers, SAE pairs and reasons, never a key ID. A metric has at most `CHILDREN_MAX` label sets, and those
about links or peers at most `PER_PLACE_MAX` for each that is configured, where that is more; what comes beyond is counted
under the label "other", so that a hostile caller cannot grow the exposition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.events import KINDS, Event
from keystrand.core.pool import Account
from keystrand.core.protection import Protection
from keystrand.observe.gauges import Gauges, LinkGauge, PeerGauge
from keystrand.observe.metric_table import METRICS, TUNNEL, Metric
from keystrand.observe.sample_lines import SampleLines

CHILDREN_MAX: Final = 512
PER_PLACE_MAX: Final = 16
OTHER: Final = "other"
LATENCY_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


_Bounded = Callable[[tuple[str, ...], int], tuple[str, ...]]


def _bound(metric: Metric, places: int) -> _Bounded:
    """Labels as they are while there is room beside `have` others, else "other". places: links and peers configured."""
    wanted = PER_PLACE_MAX * places if {"link", "peer"}.intersection(metric.labels) else 0

    def bounded(labels: tuple[str, ...], have: int) -> tuple[str, ...]:
        # one place is kept for "other"
        return labels if have < max(CHILDREN_MAX, wanted) - 1 else (OTHER,) * len(labels)

    return bounded


class _Latency:
    """The one histogram, with its children bound once: labels() on every call costs three times the observation."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._parent = Histogram(metric.name, metric.text, metric.labels, buckets=LATENCY_BUCKETS_S, registry=registry)
        self._children: dict[str, Histogram] = {}
        self._bounded = _bound(metric, 0)

    def observe(self, method: str, seconds: float) -> None:
        child = self._children.get(method)
        if child is None:
            (name,) = self._bounded((method,), len(self._children))
            child = self._children.get(name) or self._children.setdefault(name, self._parent.labels(name))
        child.observe(seconds)


@dataclass(frozen=True, slots=True)
class _Count:
    """Which counter an event raises: labels and amount are fields of the event."""

    metric: str
    labels: tuple[str, ...] = ()
    amount: str = ""


_COUNTS: Final[dict[str, tuple[_Count, ...]]] = {
    "link.block": (
        _Count("qkd_blocks_total", ("link",)),
        _Count("qkd_sifted_bits_total", ("link",), "sifted_bits"),
        _Count("qkd_secret_bits_total", ("link",), "secret_bits"),
        _Count("qkd_leak_ec_bits_total", ("link",), "leak_ec_bits"),
    ),
    "link.block_rejected": (_Count("qkd_blocks_rejected_total", ("link", "reason")),),
    "block.ingested": (_Count("pool_ingested_bits_total", ("link",), "bits"),),
    "key.delivered": (_Count("keys_delivered_total", ("initiator", "responder", "protection"), "keys"),),
    "key.refused": (_Count("keys_refused_total", ("reason",)),),
    "key.burnt": (_Count("keys_burnt_bits_total", ("link", "reason"), "bits"),),
    "key.unknown_id": (_Count("dec_keys_unknown_id_total", ("sae",)),),
    "draw.abnormal": (_Count("draws_abnormal_total", ("sae",)),),
    "pool.low": (_Count("pool_low_total", ("link",)),),
    "strand.missing": (_Count("strand_missing_total", ("peer",)),),
    "quota.denied": (_Count("quota_denied_total", ("sae",)),),
    "strand.renewed": (_Count("strand_renewed_total", ("peer",)),),
    "tls.refused": (_Count("tls_handshake_failed_total", ("reason",)),),
    "request.refused": (_Count("requests_refused_total", ("reason",)),),
    "transfer.finished": (_Count("transfers_finished_total", ("peer",)),),
    "transfer.failed": (_Count("transfers_failed_total", ("peer",)),),
    "transfer.rotated": (_Count("transfer_rotations_total", ("peer",)),),
    "relay.block": (_Count("relay_blocks_total", ("link",)),),
    "relay.block_lost": (_Count("relay_blocks_lost_total", ("link",)),),
    "maintenance.draining": (_Count("maintenance_begun_total"),),
    "maintenance.short": (_Count("maintenance_short_total"), _Count("maintenance_short_bits_total", (), "bits")),
    "relay.documents_lapsed": (_Count("relay_documents_lapsed_total", ("site",)),),
    "key.carried": (_Count("border_exposure_bits_total", ("peer", "onward"), "bits"),),
    "relay.saw": (_Count("relay_exposure_bits_total", ("link", "seen"), "bits"),),
    "source.block": (_Count("source_blocks_total", ("link",)), _Count("source_bits_total", ("link",), "bits")),
    "source.lost": (_Count("source_lost_bits_total", ("link",), "bits"),),
    "source.refused": (_Count("source_refused_total", ("link",)),),
    "tunnel.rotated": (_Count("tunnel_rotations_total", ("sae", "tunnel", "entropy")),),
    "tunnel.missed": (_Count("rekey_missed_total", TUNNEL),),
    "tunnel.blocked": (_Count("tunnel_blocks_total", TUNNEL),),
    "tunnel.fallback": (_Count("tunnel_fallbacks_total", TUNNEL),),
    "audit.failed": (_Count("audit_write_failures_total"),),
    "store.failed": (_Count("audit_write_failures_total"),),  # the log is in the store
}


class Metrics:
    """Sink of events and taker of gauges; `render` is what a scrape gets. Thread-safe."""

    def __init__(
        self,
        *,
        links: Iterable[str] = (),
        peers: Iterable[str] = (),
        clock: Clock | None = None,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a third more series that no alert reads
        self._registry = CollectorRegistry()
        self._clock = clock or SystemClock()
        links, peers = tuple(links), tuple(peers)
        bounds = {metric.name: _bound(metric, len(links) + len(peers)) for metric in METRICS}
        lines = [metric for metric in METRICS if metric.kind != "histogram"]
        self._of = {metric.name: SampleLines(metric, bounds[metric.name]) for metric in lines}
        self._latency = _Latency(next(m for m in METRICS if m.kind == "histogram"), self._registry)
        self._shown: dict[str, LinkGauge] = {}
        self._groups: dict[str, str] = {}
        self._last_block_s: dict[str, float] = {}
        self._bind(links, peers)

    def emit(self, event: Event, /) -> None:
        """Count one event. Fields that are missing count under the label "" or as zero."""
        self._of["events_total"](event.kind, event.severity.value).inc()
        for count in _COUNTS.get(event.kind, ()):
            labels = tuple(str(event.fields.get(name, "")) for name in count.labels)
            self._of[count.metric](*labels).inc(_amount(event, count))
        if event.kind == "link.block":
            self._note_block(event)
        elif event.kind.startswith("tunnel.") and "state" in event.fields:
            self._note_tunnel(event)

    def update(self, gauges: Gauges) -> None:
        """Set every gauge, about once a second."""
        for link in gauges.links:
            self._set_link(link)
        for peer in gauges.peers:
            self._set_peer(peer)
        audit, now_s = gauges.audit, self._clock.now_s()
        self._of["audit_records"]().set(audit.size)
        self._of["audit_checkpoint_records"]().set(audit.last_checkpoint_size)
        self._of["audit_cosigned_records"]().set(audit.cosigned_size)
        self._of["audit_cosign_lag_records"]().set(max(0, audit.size - audit.cosigned_size))
        if audit.cosigned_at_s is not None:
            self._of["audit_cosign_age_seconds"]().set(max(0.0, now_s - audit.cosigned_at_s))
        if gauges.cert_expiry_s is not None:
            self._of["cert_expiry_seconds"]().set(gauges.cert_expiry_s)
        self._of["waivers_active"]().set(gauges.waivers_active)

    def observe_request(self, method: str, status: int, seconds: float) -> None:
        """One answered API request. `method` is the operation (enc_keys, dec_keys, status), never a path."""
        self._of["requests_total"](method, str(status)).inc()
        self._latency.observe(method, seconds)

    def render(self) -> bytes:
        """The exposition, text format 0.0.4."""
        return generate_latest(self._registry) + "".join([family.text() for family in self._of.values()]).encode()

    # inside

    def _bind(self, links: Iterable[str], peers: Iterable[str]) -> None:
        """A counter exists from the start with the value 0; one that appears with its first event hides that event."""
        for kind, severity in KINDS.items():
            self._of["events_total"](kind, severity.value)
        for name, bound in (("link", tuple(links)), ("peer", tuple(peers))):
            for metric in METRICS:
                if metric.kind == "counter" and metric.labels == (name,):
                    for value in bound:
                        self._of[metric.name](value)
        self._of["audit_write_failures_total"]()

    def _note_block(self, event: Event) -> None:
        link = str(event.fields.get("link", ""))
        self._last_block_s[link] = event.at_s
        total = _number(event, "eps_sec") + _number(event, "eps_cor")
        self._of["qkd_finite_key_epsilon"](link).set(total)

    def _note_tunnel(self, event: Event) -> None:
        labels = tuple(str(event.fields.get(name, "")) for name in TUNNEL)
        state = event.fields["state"]
        self._of["tunnel_up"](*labels).set(state in ("up", "fallback"))
        level = str(event.fields.get("protection") or Protection.NONE.label)
        carried = state not in ("blocked", "starting")
        self._of["tunnel_protection_level"](*labels).set(Protection.parse(level) if carried else 0)
        self._of["tunnel_reported_timestamp_seconds"](*labels).set(event.at_s)
        for name, metric in _TUNNEL_FIELDS.items():
            self._of[metric](*labels).set(_number(event, name))

    def _set_link(self, link: LinkGauge) -> None:
        name = link.link
        if name in self._last_block_s:
            age_s = max(0.0, self._clock.now_s() - self._last_block_s[name])
            self._of["qkd_last_block_age_seconds"](name).set(age_s)
        if self._shown.get(name) == link:
            return
        self._shown[name] = link
        for metric, value in _link_values(link).items():
            if value is not None:
                self._of[metric](name).set(value)
        for account in Account:
            self._of["pool_bits"](name, account.value).set(link.ledger.get(account.value, 0))

    def _set_peer(self, peer: PeerGauge) -> None:
        self._of["peer_up"](peer.peer).set(peer.up)
        self._of["peer_since_timestamp_seconds"](peer.peer).set(peer.since_s)
        self._of["peer_epoch"](peer.peer).set(peer.epoch)
        if peer.strand_age_s is not None:
            self._of["strand_age_seconds"](peer.peer).set(peer.strand_age_s)
        before = self._groups.get(peer.peer)
        if before is not None and before != peer.group:
            self._of["peer_tls_group"](peer.peer, before).set(0)
        self._groups[peer.peer] = peer.group
        self._of["peer_tls_group"](peer.peer, peer.group).set(1)


_TUNNEL_FIELDS: Final = {
    "key_age_s": "tunnel_key_age_seconds",
    "exposure_s": "tunnel_exposure_window_seconds",
    "fallback_s": "tunnel_fallback_active_seconds",
    "bytes_under_key": "tunnel_key_bytes",
}


def _link_values(link: LinkGauge) -> dict[str, float | None]:
    empty_s = link.time_to_empty_s
    return {
        "qkd_link_state": float(link.state == "up"),
        "qkd_qber_ratio": link.qber,
        "qkd_secret_key_rate_bps": link.skr_bps,
        "qkd_sifted_key_rate_bps": link.sifted_bps,
        "qkd_auth_key_remaining_bits": link.auth_key_bits,
        "pool_owned_free_bits": link.owned_free_bits,
        "pool_ledger_imbalance_bits": link.imbalance_bits,
        "pool_fill_rate_bps": link.fill_bps,
        "pool_drain_rate_bps": link.drain_bps,
        "pool_time_to_empty_seconds": math.inf if empty_s is None else empty_s,
        "pool_oldest_block_age_seconds": link.oldest_block_age_s,
    }


def _amount(event: Event, count: _Count) -> float:
    """Counters only rise: what is no finite positive number adds nothing."""
    return max(0.0, _number(event, count.amount)) if count.amount else 1


def _number(event: Event, name: str) -> float:
    value = event.fields.get(name, 0)
    if isinstance(value, int):
        return float(value) if abs(value) < 1 << 63 else 0.0
    return value if isinstance(value, float) and math.isfinite(value) else 0.0
