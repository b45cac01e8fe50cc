"""Where a site's store is kept, for backup and restore: a file, or a PostgreSQL that its replicas share."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from keystrand.config.schema import SiteConfig
from keystrand.core.errors import StoreUnavailable
from keystrand.node.replicas import open_audit
from keystrand.node.rollback import Standing, beside, standing_of
from keystrand.store.sqlite import lock_store, migrate_file

if TYPE_CHECKING:
    from keystrand.node.replicas import AuditPart

STORE: Final = "site.db"
_FILES: Final = (STORE, f"{STORE}-wal", f"{STORE}-shm")


class Keep(Protocol):
    """What backup and restore need of the place. Raises StoreUnavailable where it cannot be reached."""

    def held(self) -> AbstractContextManager[None]: ...  # nobody serves the store; StoreUnavailable names who does
    def snapshot(self, target: Path, /) -> Standing: ...  # one moment of it as a store file, while the site runs
    def standing(self) -> Standing: ...
    def audit(self) -> AuditPart: ...
    def leave(self, at_s: int, /) -> None: ...  # the site has moved away
    def set_aside(self, folder: Path, /) -> None: ...  # what is there now, as a store file
    def take_in(self, store_file: Path, /) -> None: ...  # in its place; all of it or nothing


def kept_in(config: SiteConfig) -> Keep:
    return FileKeep(config) if config.site.store is None else PostgresKeep(config, config.site.store)


class FileKeep:
    """In a file of its own."""

    def __init__(self, config: SiteConfig) -> None:
        self._config = config
        self._file = config.store_file

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self._config.site.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = lock_store(self._file)
        try:
            yield
        finally:
            os.close(lock)

    def snapshot(self, target: Path) -> Standing:
        """By SQLite's backup API: writers are not held up."""
        _new_file(target)
        if not self._file.exists():
            raise StoreUnavailable(f"{self._file}: there is no store yet")
        with beside(self._file) as source, contextlib.closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            return standing_of(copy)

    def standing(self) -> Standing:
        with beside(self._file) as connection:
            return standing_of(connection)

    def audit(self) -> AuditPart:
        return open_audit(self._config)

    def leave(self, at_s: int) -> None:
        with contextlib.closing(sqlite3.connect(self._file)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("INSERT OR REPLACE INTO site VALUES ('moved', ?)", (at_s,))
            connection.commit()

    def set_aside(self, folder: Path) -> None:
        for name in _FILES:
            if (there := self._file.with_name(name)).exists():
                os.rename(there, folder / name)

    def take_in(self, store_file: Path) -> None:
        os.rename(store_file, self._file)


class PostgresKeep:
    """In a PostgreSQL, reached beside the site's replicas."""

    def __init__(self, config: SiteConfig, address: str) -> None:
        self._config = config
        self._address = address

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        from keystrand.store.postgres_copy import beside_replicas, require_idle

        self._config.site.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with beside_replicas(self._address) as line:
            require_idle(line)
        yield

    def snapshot(self, target: Path) -> Standing:
        from keystrand.store.postgres_copy import beside_replicas, copy_out, is_founded

        _new_file(target)
        with beside_replicas(self._address) as line:
            if not is_founded(line):
                raise StoreUnavailable("PostgreSQL: there is no store yet")
            with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy:
                copy.execute("PRAGMA synchronous = OFF")  # a backup syncs what it writes; this file goes away
                migrate_file(copy, target)
                copy_out(line, copy)
                return standing_of(copy)

    def standing(self) -> Standing:
        from keystrand.store.postgres_copy import beside_replicas, is_founded

        with beside_replicas(self._address) as line:
            if not is_founded(line):
                raise StoreUnavailable("PostgreSQL: there is no store yet")
            return standing_of(line)

    def audit(self) -> AuditPart:
        return open_audit(self._config)

    def leave(self, at_s: int) -> None:
        from keystrand.store.postgres_copy import beside_replicas

        put = "INSERT INTO site VALUES ('moved', %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        with beside_replicas(self._address) as line:
            line.execute(put, (at_s,))

    def set_aside(self, folder: Path) -> None:
        with contextlib.suppress(StoreUnavailable):  # a database that was lost has nothing to keep
            self.snapshot(folder / STORE)

    def take_in(self, store_file: Path) -> None:
        from keystrand.store.postgres import PostgresDatabase
        from keystrand.store.postgres_copy import beside_replicas, copy_in

        PostgresDatabase(self._address, self._config.site.name).close()  # it has the schema then
        with beside_replicas(self._address) as line, contextlib.closing(sqlite3.connect(store_file)) as source:
            copy_in(line, source)


def _new_file(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
