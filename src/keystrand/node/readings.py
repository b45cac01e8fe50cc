"""What a site reads off itself once a second: pools, rates, time to empty, peers, audit, certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keystrand.core.policy import Policy
from keystrand.core.pool import Account
from keystrand.core.protection import Protection
from keystrand.kme.service import Kme
from keystrand.node.devices import LinkState
from keystrand.observe.gauges import AuditGauge, Gauges, LinkGauge, NetworkGauge, PeerGauge

SMOOTHING_S = 20.0  # time constant of the exponentially weighted rates


@dataclass(slots=True)
class Flow:
    """Fill and drain of one pool in bits per second, smoothed; from the ledger, so nothing can be forgotten."""

    at_s: float = 0.0
    ingested: int = 0
    available: int = 0
    fill_bps: float = 0.0
    drain_bps: float = 0.0
    pads: int = 0
    pads_bps: float = 0.0  # of the drain, what relays take: they stop before others lack it

    def read(self, ledger: Mapping[Account, int], now_s: float, pads: int = 0) -> None:
        ingested, available = ledger[Account.INGESTED], ledger[Account.AVAILABLE]
        span_s = now_s - self.at_s
        if self.at_s and span_s > 0:
            filled = ingested - self.ingested
            drained = max(0, filled - (available - self.available))
            weight = min(1.0, span_s / SMOOTHING_S)
            self.fill_bps += weight * (filled / span_s - self.fill_bps)
            self.drain_bps += weight * (drained / span_s - self.drain_bps)
            self.pads_bps += weight * ((pads - self.pads) / span_s - self.pads_bps)
        self.at_s, self.ingested, self.available, self.pads = now_s, ingested, available, pads

    @property
    def time_to_empty_s(self) -> float | None:
        """At the present rates; None while the pool does not shrink, or for relays alone."""
        net_bps = self.drain_bps - self.pads_bps - self.fill_bps
        return self.available / net_bps if net_bps > 1.0 else None


class Readings:
    """Builds the gauges; runs inside the engine, for it reads the store."""

    def __init__(self, links: Mapping[str, LinkState], pads: Mapping[str, int] = MappingProxyType({})) -> None:
        self._links, self._pads = links, pads
        self._flows: dict[str, Flow] = {}
        self._requires: tuple[Policy | None, dict[str, str]] = (None, {})

    def read(
        self, kme: Kme, audit: AuditGauge, cert_expiry_s: float | None, network: NetworkGauge | None = None
    ) -> Gauges:
        now_s = kme.site.clock.now_s()
        waivers = sum(1 for r in kme.site.policy.rules.values() if r.waiver is not None and now_s < r.waiver.expires_s)
        return Gauges(
            links=tuple(self._link(kme, link.name, link.peer) for link in kme.site.links),
            peers=tuple(self._peer(kme, peer) for peer in kme.site.peer_kme_ids),
            audit=audit,
            cert_expiry_s=cert_expiry_s,
            waivers_active=waivers,
            network=network,
        )

    def _link(self, kme: Kme, link: str, peer: str) -> LinkGauge:
        ledger = kme.site.store.ledger(link)
        flow = self._flows.setdefault(link, Flow())
        flow.read(ledger, kme.site.clock.monotonic_s(), self._pads.get(link, 0))
        state = self._links.get(link, LinkState())
        report = state.report
        return LinkGauge(
            link=link,
            peer=peer,
            state=state.word,
            qber=report.qber if report and state.measures else None,
            skr_bps=report.skr_bps if report else None,
            sifted_bps=report.sifted_bps if report else None,
            auth_key_bits=report.auth_key_bits if report and report.auth_key_bits >= 0 else None,
            ledger={account.value: bits for account, bits in ledger.items()},
            owned_free_bits=kme.pool.owned_bits(link),
            fill_bps=flow.fill_bps,
            drain_bps=flow.drain_bps,
            time_to_empty_s=flow.time_to_empty_s,
            oldest_block_age_s=self._oldest_s(kme, link),
            simulated=state.simulated,
        )

    @staticmethod
    def _oldest_s(kme: Kme, link: str) -> float:
        oldest = kme.site.store.free_blocks(link, kme.site.name, 1)
        return max(0.0, kme.site.clock.now_s() - oldest[0].ingested_s) if oldest else 0.0

    def _required(self, kme: Kme, peer: str) -> str:
        """Worked out once per policy: it may hold many thousand rules."""
        policy = kme.site.policy
        if self._requires[0] is not policy:
            self._requires = policy, _weakest(policy, kme.site.name)
        return self._requires[1].get(peer, "")

    def _peer(self, kme: Kme, peer: str) -> PeerGauge:
        session = kme.sessions[peer]
        return PeerGauge(
            peer=peer,
            up=session.up,
            since_s=session.since_s,
            group=session.group if session.up else "",
            release=session.release,
            epoch=kme.site.store.peer(peer).epoch,
            strand_age_s=kme.strands.age_s(peer),
            requires=self._required(kme, peer),
        )


def _weakest(policy: Policy, site: str) -> dict[str, str]:
    """By the other site of its pairs, the lowest level that a rule requires."""
    found: dict[str, Protection] = {}
    for rule in policy.rules.values():
        ends = {policy.site_of[rule.initiator], policy.site_of[rule.responder]}
        for other in ends - {site} if site in ends else ():
            found[other] = min(rule.require, found.get(other, Protection.HYBRID))
    return {other: level.label for other, level in found.items()}
