"""The numbers a site reads off itself about once a second. Plain values: no handles, no secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

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
        names = {str(name): bits for name, bits in self.ledger.items()}
        spent = sum(bits for name, bits in names.items() if name != Account.INGESTED.value)
        return names.get(Account.INGESTED.value, 0) - spent

    def plain(self) -> dict[str, Any]:
        """Ready for JSON; the accounts always in the same order."""
        ledger = {str(name): bits for name, bits in self.ledger.items()}
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        plain["ledger"] = {account.value: ledger.get(account.value, 0) for account in Account}
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerGauge:
    """Another KME. `group`: the TLS key-exchange group that was negotiated, "" while down."""

    peer: str
    up: bool
    group: str = ""
    epoch: int = 0
    strand_age_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditGauge:
    """The audit log, in records: written, under the last signed checkpoint, and co-signed by a peer."""

    size: int = 0
    last_checkpoint_size: int = 0
    cosigned_size: int = 0
    cosigned_at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """All of a site. cert_expiry_s: seconds until the first of the site's certificates expires."""

    links: tuple[LinkGauge, ...] = ()
    peers: tuple[PeerGauge, ...] = ()
    audit: AuditGauge = AuditGauge()
    cert_expiry_s: float | None = None
    waivers_active: int = 0
