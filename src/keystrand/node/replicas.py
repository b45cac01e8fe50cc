"""One process among the replicas of its site: it tells that it lives, and burns what those who do not have left behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from keystrand.config.schema import SiteConfig
from keystrand.core.errors import ConfigError, KeystrandError
from keystrand.core.events import Event, Sink
from keystrand.core.pool import Wants
from keystrand.crypto.seal import Sealer
from keystrand.kme.service import Kme
from keystrand.kme.site import Site
from keystrand.node.engine import Disk, Engine, Turns
from keystrand.store.sql import SqlStore
from keystrand.store.sqlite import SqliteAuditFile, SqliteStore

if TYPE_CHECKING:
    from keystrand.store.postgres import PostgresAudit

BEAT_S: Final = 1.0


class OneProcess:
    """A site in a file of its own has no replicas. disk: that file."""

    turns = None

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def enter(self, site: Site) -> None:
        """Nobody else's requests are there to be left alone."""

    def leads(self, job: str) -> bool:
        return True

    async def run(self, engine: Engine, sink: Sink) -> None:
        """Nobody needs to know."""

    def leave(self) -> None:
        """Nobody waits."""


class Replica:
    """This process among those that share the site's database."""

    def __init__(self, address: str, config: SiteConfig, sealer: Sealer) -> None:
        try:
            from keystrand.store.postgres import PostgresDatabase
            from keystrand.store.roster import Roster
        except ImportError:
            raise _without_driver() from None
        self._database = PostgresDatabase(address, config.site.name)
        self.store = SqlStore(self._database, sealer)
        self._roster = Roster(self._database, config.site.replica or _name_of(config))

    disk = None

    @property
    def turns(self) -> Turns:
        return self

    async def come(self) -> None:
        await self._database.turn()

    def read_ahead(self, wants: Iterable[Wants]) -> None:
        """Together, what the calls of this turn will read."""
        self.store.read_ahead(wants)

    def enter(self, site: Site) -> None:
        """A new life of this process: requests of the last one are over, those of other replicas are theirs."""
        site.incarnation = self._roster.join()
        site.living = self._roster.living

    def leads(self, job: str) -> bool:
        """Whether only this replica may do `job` in the present transaction."""
        return self._roster.leads(job)

    async def run(self, engine: Engine, sink: Sink) -> None:
        """Tell of ourselves, and look who does not any more."""
        while True:
            with contextlib.suppress(KeystrandError):  # the engine has said what it is, and tries anew
                for gone in await engine.call(self._look):
                    sink.emit(Event("replica.lost", engine.kme.site.clock.now_s(), {"replica": gone}))
            await asyncio.sleep(BEAT_S)

    def _look(self, kme: Kme) -> list[str]:
        self._roster.beat()
        gone = self._roster.give_up()
        if gone:
            kme.site.record("replica.lost", replicas=gone, burnt=kme.burn_abandoned("replica lost"))
        return gone

    def leave(self) -> None:
        with contextlib.suppress(KeystrandError):
            self._roster.leave()


def _without_driver() -> ConfigError:
    return ConfigError("the store is in PostgreSQL, and psycopg is not installed", hint="install keystrand[postgres]")


if TYPE_CHECKING:
    AuditPart = SqliteAuditFile | PostgresAudit


def open_audit(config: SiteConfig) -> AuditPart:
    """The audit part of a site's store, without the root key and beside the running site."""
    if config.site.store is None:
        return SqliteAuditFile(config.store_file)
    try:
        from keystrand.store.postgres import PostgresAudit
    except ImportError:
        raise _without_driver() from None
    return PostgresAudit(config.site.store)


def _name_of(config: SiteConfig) -> str:
    return f"{socket.gethostname()}:{config.etsi014.listen.port}"


def open_place(config: SiteConfig, sealer: Sealer) -> tuple[SqlStore, Replica | OneProcess]:
    """The store of a site as its configuration names it, and this process's place beside others over it."""
    if config.site.store is None:
        store = SqliteStore(config.store_file, sealer)
        return store, OneProcess(store)
    replica = Replica(config.site.store, config, sealer)
    return replica.store, replica
