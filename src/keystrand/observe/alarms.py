"""What wants a person's attention, from the last gauges and the last alerts. Pure; empty on a healthy site."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from keystrand.core.events import Event, Severity
from keystrand.observe.alarm_table import CALLS
from keystrand.observe.gauges import Gauges, LinkGauge, NetworkGauge, PeerGauge

STALE_S: Final = 10.0  # gauges come once a second; ten missed ones are no accident
TIME_TO_EMPTY_S: Final = 240.0  # two rekey intervals of two minutes
QBER_RATIO: Final = 0.088  # 0.8 of 11 %, where one-way BB84 yields no key at all (Shor and Preskill 2000)
CERT_EXPIRY_S: Final = 14 * 86_400.0
COSIGN_AGE_S: Final = 300.0
AUTH_KEY_BITS: Final = 4096
ALERT_SHOWN_S: Final = 600.0
TUNNEL_SILENT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """`name` is one of `alarm_table.CALLS`, which says whom it calls. `about` is the link, peer or part concerned."""

    severity: str
    name: str
    about: str
    text: str

    @property
    def owner(self) -> str:
        return CALLS[self.name].owner

    @property
    def runbook(self) -> str:
        return CALLS[self.name].runbook


def _alarm(name: str, about: str, text: str) -> Alarm:
    return Alarm(CALLS[name].severity, name, about, text)


# Warnings that the key service says once, when their condition begins.
_WARNINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pool.low": "the pool ran low: few keys are left of our own",
        "strand.missing": "no ML-KEM strand with this peer: no hybrid key can be made",
        "draw.abnormal": "asks for many key IDs that it has no copy of, as if it guessed",
    }
)

# Whom an event is about: the first of these fields that it has.
_SUBJECTS: Final = ("link", "tunnel", "relay", "neighbour", "peer", "sae", "site", "sink")


# Said by `tunnel_alarms` and `_network` as long as it lasts; the event would say it a second time, and for ten minutes more.
_LASTING: Final = frozenset({"tunnel.blocked", "tunnel.fallback", "relay.documents_lapsed"})


def is_alarming(event: Event) -> bool:
    """Whether an event by itself becomes an alarm."""
    return (event.severity is Severity.ALERT and event.kind not in _LASTING) or event.kind in _WARNINGS


def alarms_of(gauges: Gauges | None, gauges_at_s: float, alarming: Iterable[Event], now_s: float) -> list[Alarm]:
    """Alerts first, then warnings, each group in a fixed order. `alarming`: recent events, the oldest first."""
    if gauges is not None:
        alarming = [event for event in alarming if not _is_over(event, gauges)]
    found = [*_recent(alarming, now_s)]
    if gauges is not None:
        found += _site(gauges, now_s - gauges_at_s, now_s)
        lost = {way.link for way in gauges.network.ways if not way.routes} if gauges.network is not None else ()
        for link in gauges.links:  # a relayed link without a way is told as that
            found += (alarm for alarm in _link(link) if alarm.name != "link" or link.link not in lost)
        for peer in gauges.peers:
            found += _peer(peer)
        if gauges.network is not None:
            found += _network(gauges.network)
    return sorted(found, key=lambda alarm: alarm.severity != "alert")


def _recent(alarming: Iterable[Event], now_s: float) -> Iterator[Alarm]:
    """The latest of each kind and of whom it is about, for ten minutes."""
    latest = {(event.kind, _about(event)): event for event in alarming if now_s - event.at_s <= ALERT_SHOWN_S}
    for (kind, (subject, about)), event in latest.items():
        at = datetime.fromtimestamp(event.at_s, UTC).strftime("%H:%M:%S UTC")
        if kind in _WARNINGS:
            yield _alarm(kind, about, f"{_WARNINGS[kind]} (since {at})")
        else:
            detail = [f"{name} {value}" for name, value in event.fields.items() if name != subject and value != ""]
            yield _alarm(kind, about, "; ".join([f"{CALLS[kind].says} ({kind}, {at})", *detail]))


def _about(event: Event) -> tuple[str, str]:
    """Of which field, and what stands there."""
    found = ((name, str(event.fields[name])) for name in _SUBJECTS if event.fields.get(name))
    return next(found, ("", "site"))


def _is_over(event: Event, gauges: Gauges) -> bool:
    """A strand that came after all, a pool that filled; what else ends is not seen, so its warning stands until it is old."""
    if event.kind == "strand.missing":
        return any(peer.peer == event.fields.get("peer") and peer.strand_age_s is not None for peer in gauges.peers)
    enough_bits = event.fields.get("enough_bits")
    if event.kind == "pool.low" and isinstance(enough_bits, int):
        return any(
            link.link == event.fields.get("link") and link.owned_free_bits >= enough_bits for link in gauges.links
        )
    return False


def _site(gauges: Gauges, age_s: float, now_s: float) -> Iterator[Alarm]:
    if age_s > STALE_S:
        yield _alarm("stale", "site", f"no fresh figures for {age_s:.0f} s: what you see is old")
    if gauges.cert_expiry_s is not None and gauges.cert_expiry_s < CERT_EXPIRY_S:
        yield _alarm("cert", "site", f"a certificate expires in {gauges.cert_expiry_s / 86_400:.1f} days")
    if gauges.waivers_active:
        text = f"{gauges.waivers_active} waiver(s) active: keys below the required protection may leave"
        yield _alarm("waiver", "policy", text)
    audit = gauges.audit
    if audit.cosigned_at_s is not None and audit.size > audit.cosigned_size:
        age_s = now_s - audit.cosigned_at_s
        if age_s > COSIGN_AGE_S:
            yield _alarm("cosign", "audit", f"no peer has co-signed the audit log for {age_s:.0f} s")


def _link(link: LinkGauge) -> Iterator[Alarm]:
    if link.imbalance_bits:
        text = f"the bit ledger is off by {link.imbalance_bits} bits"
        yield _alarm("ledger", link.link, text)
    if link.state != "up":
        yield _alarm("link", link.link, f"link is {link.state}: no new key arrives")
    if link.qber is not None and link.qber > QBER_RATIO:
        yield _alarm("qber", link.link, f"QBER {100 * link.qber:.2f} % is near the limit of 11 %")
    if link.time_to_empty_s is not None and link.time_to_empty_s < TIME_TO_EMPTY_S:
        yield _alarm("drain", link.link, f"the pool is empty in {link.time_to_empty_s:.0f} s at this rate")
    if link.auth_key_bits is not None and link.auth_key_bits < AUTH_KEY_BITS:
        yield _alarm("auth", link.link, f"{link.auth_key_bits} bits left to authenticate the channel")


def _network(network: NetworkGauge) -> Iterator[Alarm]:
    """Of sites only what their documents lack that they had: what was never there stands in the trust statement."""
    for place in network.places:
        if place.lapsed:
            yield _alarm("relay.documents_lapsed", place.site, f"documented no more: {', '.join(place.missing)}")
        elif place.due:
            yield _alarm("relay.documents_due", place.site, "documents lapse within two weeks")
    for way in network.ways:
        if not way.routes and not way.planned:
            text = f"no way over relays as its terms ask ({way.paths} at a time): its users live on what the pool holds"
            yield _alarm("route", way.link, text)


def _peer(peer: PeerGauge) -> Iterator[Alarm]:
    if not peer.up:
        since = datetime.fromtimestamp(peer.since_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        yield _alarm("peer", peer.peer, f"peer does not answer since {since}: keys with its users cannot be made")


def tunnel_alarms(tunnels: Iterable[Mapping[str, Any]], now_s: float) -> Iterator[Alarm]:
    """As long as a tunnel is not what it should be. tunnels: the last report of each, and when it came (`at_s`)."""
    for tunnel in tunnels:
        name, state = str(tunnel["tunnel"]), tunnel["state"]
        if state == "stopped":
            continue
        silent_s, why = now_s - tunnel["at_s"], f" ({tunnel['reason']})" if tunnel.get("reason") else ""
        if state == "blocked":
            yield _alarm("tunnel-blocked", name, f"no key is young enough: no packet passes{why}")
        if silent_s > TUNNEL_SILENT_S:
            yield _alarm("tunnel-silent", name, f"nothing is heard of its connector for {silent_s:.0f} s")
        elif state == "fallback":
            key, for_s = tunnel.get("protection") or "old", tunnel.get("fallback_s", 0)
            text = f"runs under a key ({key}) below its protection, for {for_s:.0f} s now{why}"
            yield _alarm("tunnel-fallback", name, text)
        elif state == "down":
            yield _alarm("tunnel-down", name, f"its daemon has no session{why}")
