"""What of a stopped site may be put into escrow, and how it comes back: both recorded before they are done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keystrand.config.schema import SiteConfig
from keystrand.core.errors import BadRequest, ConfigError, NotPermitted, UnknownKey
from keystrand.core.secret import Secret
from keystrand.crypto.escrow import hand_out
from keystrand.crypto.shares import EscrowRecord, Share, combine
from keystrand.node.stopped import StoppedSite


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is escrowed. kind: "tenant", "key" or "passphrase"; name: the tenant, the key ID, or the site."""

    kind: str
    name: str


def forbidden(config: SiteConfig, tags: Iterable[str]) -> str:
    """The first of these tags (NAME=VALUE) that [escrow] forbids, or ""."""
    return next((tag for tag in tags if tag in config.escrow.forbid), "")


def _tags_of_rules(config: SiteConfig, tenant: str | None) -> list[str]:
    """Tags that keys of `tenant` (None: of anybody) may have."""
    rules = config.rules().rules.values()
    return [f"{name}={value}" for rule in rules if tenant in (None, rule.tenant) for name, value in rule.tags]


def _tags(site: StoppedSite, subject: Subject) -> list[str]:
    if subject.kind == "key":
        record = site.store.register.get(subject.name)
        if record is None:
            hint = "a key is escrowed where it was drawn, within the time that the register keeps it"
            raise UnknownKey(f"no key {subject.name} is known here", hint=hint)
        return list(record.tags)
    return _tags_of_rules(site.config, subject.name if subject.kind == "tenant" else None)


def check_permitted(site: StoppedSite, subject: Subject) -> None:
    """Raises NotPermitted where a tag forbids it; UnknownKey for a key that is not in the register."""
    if tag := forbidden(site.config, _tags(site, subject)):
        words = f"{subject.kind} {subject.name} has keys with {tag}, which must not be escrowed"
        raise NotPermitted(words, hint="see forbid in [escrow]; --waive REASON does it all the same, and is recorded")


def secret_of(site: StoppedSite, subject: Subject, material: bytes | None) -> Secret:
    """What is shared out. material: of a key, as it was delivered. Raises BadRequest where it cannot be that key."""
    if subject.kind == "tenant":
        return site.sealer.tenants.for_escrow(subject.name)
    if subject.kind == "passphrase":
        if site.config.site.root_key_file is None:
            raise ConfigError("this site has no passphrase", hint="back up the token by its vendor's means")
        return Secret(site.config.site.root_key_file.read_bytes())
    record = site.store.register.get(subject.name)
    if material is None or record is None or 8 * len(material) != record.size_bits:
        raise BadRequest(f"the file is not key {subject.name}: the length differs")
    return Secret(material)


def escrow(
    site: StoppedSite,
    subject: Subject,
    secret: Secret,
    threshold: int,
    custodians: Mapping[str, bytes],
    *,
    reason: str,
    waived: str = "",
) -> tuple[EscrowRecord, dict[str, bytes]]:
    """Shares of `secret`, each sealed to its custodian. Raises NotPermitted unless allowed or `waived`."""
    if not waived:
        check_permitted(site, subject)
    record, sealed = hand_out(secret, threshold, custodians)
    site.record(
        "escrow.made",
        escrow_id=record.escrow_id.hex(),
        what=f"{subject.kind} {subject.name}",
        threshold=threshold,
        custodians=sorted(custodians),
        reason=reason,
        waived=waived,
    )
    return record, sealed


def restore_tenant(
    site: StoppedSite, tenant: str, record: EscrowRecord, shares: Iterable[Share], *, reason: str
) -> None:
    """Put a tenant's keys back. Raises Tampered that names a wrong share; BadRequest where they are too few or of others."""
    secret = combine(record, shares)
    site.record("escrow.combined", escrow_id=record.escrow_id.hex(), what=f"tenant {tenant}", reason=reason)
    site.sealer.restore_tenant(tenant, site.sealer.tenants.wrap_escrowed(tenant, secret))
