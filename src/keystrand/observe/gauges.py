"""The numbers a site reads off itself about once a second. Plain values: no handles, no secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from keystrand.core.pool import Account


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkGauge:
    """One QKD link as this end sees it. `ledger` has the names of `core.pool.Account`, in bits.

    time_to_empty_s: free bits over drain minus fill; None where the pool does not shrink. simulated: the photons of
    this link are simulated (the protocol, the pool and every rate computed from it are not).
    """

    link: str
    peer: str
    state: str
    qber: float | None = None
    skr_bps: float | None = None
    sifted_bps: float | None = None
    auth_key_bits: int | None = None
    ledger: Mapping[str, int] = field(default_factory=dict)
    owned_free_bits: int = 0
    fill_bps: float = 0.0
    drain_bps: float = 0.0
    time_to_empty_s: float | None = None
    oldest_block_age_s: float = 0.0
    simulated: bool = True

    @property
    def imbalance_bits(self) -> int:
        """ingested minus the sum of all other accounts: 0, or invariant I9 is broken."""
        return 2 * self.ledger.get(Account.INGESTED.value, 0) - sum(self.ledger.values())

    def plain(self) -> dict[str, Any]:
        """Ready for JSON; the accounts always in the same order."""
        ledger = {str(name): bits for name, bits in self.ledger.items()}
        plain = {name: getattr(self, name) for name in _LINK_FIELDS}
        plain["ledger"] = {name: ledger.get(name, 0) for name in _ACCOUNTS}
        return plain


_LINK_FIELDS: Final = tuple(item.name for item in fields(LinkGauge))
_ACCOUNTS: Final = tuple(account.value for account in Account)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerGauge:
    """Another KME. since_s: Unix time from which it is up or down; of our start, where it never answered since. `group`: the
    TLS key-exchange group that was negotiated, "" while down. requires: the weakest level that the policy asks of keys shared
    with it; "": nobody may draw any. release: what it runs, as it said itself."""

    peer: str
    up: bool
    since_s: float
    group: str = ""
    release: str = ""
    epoch: int = 0
    strand_age_s: float | None = None
    requires: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditGauge:
    """The audit log, in records: written, under the last signed checkpoint, and co-signed by a peer."""

    size: int = 0
    last_checkpoint_size: int = 0
    cosigned_size: int = 0
    cosigned_at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WayGauge:
    """A relayed link that ends here. paths: routes that its terms ask for; routes: as they stand, none where some lack.

    planned: only windows of maintenance keep them away."""

    link: str
    ends: tuple[str, str]
    paths: int
    routes: tuple[tuple[str, ...], ...] = ()
    planned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HopGauge:
    """A hop of the network, as its ends told. state: up, away, or closed (maintenance, barred). bits: that both ends may still

    draw, the smaller figure. used: on a way of ours."""

    one: str
    other: str
    state: str
    bits: int = 0
    used: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceGauge:
    """A site of the network. state: up, away (no hop of it is up), maintenance or barred. missing: what of its documents is

    not there. Where it may carry our links, lapsed: it was documented before; due: it will be so no more within two weeks."""

    site: str
    state: str
    missing: tuple[str, ...] = ()
    lapsed: bool = False
    due: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkGauge:
    """The network of relays as this site knows it. hops: the first of hops_total; those on our ways, then those away."""

    network: str
    places: tuple[PlaceGauge, ...] = ()
    hops: tuple[HopGauge, ...] = ()
    hops_total: int = 0
    ways: tuple[WayGauge, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """All of a site. cert_expiry_s: seconds until the first of the site's certificates expires. network: where it relays."""

    links: tuple[LinkGauge, ...] = ()
    peers: tuple[PeerGauge, ...] = ()
    audit: AuditGauge = AuditGauge()
    cert_expiry_s: float | None = None
    waivers_active: int = 0
    network: NetworkGauge | None = None
