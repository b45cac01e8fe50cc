"""What wants a person's attention, from the last gauges and the last alerts. Pure; empty on a healthy site."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from keystrand.observe.gauges import Gauges, LinkGauge, PeerGauge

STALE_S: Final = 10.0  # gauges come once a second; ten missed ones are no accident
TIME_TO_EMPTY_S: Final = 240.0  # two rekey intervals of two minutes
QBER_RATIO: Final = 0.088  # 0.8 of 11 %, where one-way BB84 yields no key at all (Shor and Preskill 2000)
CERT_EXPIRY_S: Final = 14 * 86_400.0
COSIGN_AGE_S: Final = 300.0
AUTH_KEY_BITS: Final = 4096
ALERT_SHOWN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """severity: "alert" needs a person now, "warning" soon. `about` is the link, peer or part concerned."""

    severity: str
    name: str
    about: str
    text: str


@dataclass(frozen=True, slots=True)
class RecentAlert:
    kind: str
    at_s: float
    detail: str


def alarms_of(gauges: Gauges | None, gauges_at_s: float, alerts: tuple[RecentAlert, ...], now_s: float) -> list[Alarm]:
    """Alerts first, then warnings, each group in a fixed order."""
    found = [*_recent(alerts, now_s)]
    if gauges is not None:
        found += _site(gauges, now_s - gauges_at_s, now_s)
        for link in gauges.links:
            found += _link(link)
        for peer in gauges.peers:
            found += _peer(peer)
    return sorted(found, key=lambda alarm: alarm.severity != "alert")


def _recent(alerts: tuple[RecentAlert, ...], now_s: float) -> Iterator[Alarm]:
    """The latest alert of each kind, for ten minutes."""
    latest = {alert.kind: alert for alert in alerts if now_s - alert.at_s <= ALERT_SHOWN_S}
    for alert in latest.values():
        ago_s = max(0, round(now_s - alert.at_s))
        yield Alarm("alert", alert.kind, "event", f"{alert.kind} {ago_s} s ago: {alert.detail or 'no detail'}")


def _site(gauges: Gauges, age_s: float, now_s: float) -> Iterator[Alarm]:
    if age_s > STALE_S:
        yield Alarm("alert", "stale", "site", f"no fresh figures for {age_s:.0f} s: what you see is old")
    if gauges.cert_expiry_s is not None and gauges.cert_expiry_s < CERT_EXPIRY_S:
        yield Alarm("warning", "cert", "site", f"a certificate expires in {gauges.cert_expiry_s / 86_400:.1f} days")
    if gauges.waivers_active:
        text = f"{gauges.waivers_active} waiver(s) active: keys below the required protection may leave"
        yield Alarm("alert", "waiver", "policy", text)
    audit = gauges.audit
    if audit.cosigned_at_s is not None and audit.size > audit.cosigned_size:
        age_s = now_s - audit.cosigned_at_s
        if age_s > COSIGN_AGE_S:
            yield Alarm("warning", "cosign", "audit", f"no peer has co-signed the audit log for {age_s:.0f} s")


def _link(link: LinkGauge) -> Iterator[Alarm]:
    if link.imbalance_bits:
        text = f"the bit ledger is off by {link.imbalance_bits} bits"
        yield Alarm("alert", "ledger", link.link, text)
    if link.state != "up":
        yield Alarm("warning", "link", link.link, f"link is {link.state}: no new key arrives")
    if link.qber is not None and link.qber > QBER_RATIO:
        yield Alarm("warning", "qber", link.link, f"QBER {100 * link.qber:.2f} % is near the limit of 11 %")
    if link.time_to_empty_s is not None and link.time_to_empty_s < TIME_TO_EMPTY_S:
        yield Alarm("warning", "drain", link.link, f"the pool is empty in {link.time_to_empty_s:.0f} s at this rate")
    if link.auth_key_bits is not None and link.auth_key_bits < AUTH_KEY_BITS:
        yield Alarm("warning", "auth", link.link, f"{link.auth_key_bits} bits left to authenticate the channel")


def _peer(peer: PeerGauge) -> Iterator[Alarm]:
    if not peer.up:
        yield Alarm("warning", "peer", peer.peer, "peer does not answer: keys with its users cannot be made")
