"""A site that does not run, held so that it cannot start meanwhile: for orders that need its root key."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from keystrand.config.schema import SiteConfig
from keystrand.core.clock import SystemClock
from keystrand.core.errors import BadRequest, ConfigError
from keystrand.crypto.seal import Sealer
from keystrand.kme.ports import AuditValue
from keystrand.node.sealing import sealer_of
from keystrand.observe.audit import AuditLog
from keystrand.store.sql import SqlStore
from keystrand.store.sqlite import SqliteDatabase


@dataclass(frozen=True, slots=True)
class StoppedSite:
    """Its store and what seals it."""

    config: SiteConfig
    store: SqlStore
    sealer: Sealer

    def record(self, kind: str, **fields: AuditValue) -> None:
        """Into the site's audit log, durable when this returns. An order is recorded before it is carried out."""
        log = AuditLog(self.store, SystemClock(), self.config.site.name)
        with self.store.transaction():
            log.append(kind, {"actor": f"shell {getpass.getuser()}", **fields})


@contextmanager
def stopped(config: SiteConfig) -> Iterator[StoppedSite]:
    """Raises StoreUnavailable while the site runs; ConfigError, Unavailable where its root key is not to be had."""
    if getattr(config.site, "store", None) is not None:
        hint = "stop the replicas, and keep one tenants.keys for all of them"
        raise BadRequest("whether replicas on a shared database run cannot be told from here", hint=hint)
    if not config.store_file.exists():
        raise ConfigError("the site has no store yet", path=str(config.store_file), hint="start the site once")
    with closing(SqliteDatabase(config.store_file)) as database:
        sealer = sealer_of(config)
        yield StoppedSite(config, SqlStore(database, sealer), sealer)
