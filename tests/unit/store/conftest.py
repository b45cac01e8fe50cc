"""A store that can be opened again, on either database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from keystrand.crypto.seal import RootKey, Sealer
from keystrand.store.sql import SqlStore
from keystrand.store.sqlite import SqliteStore
from keystrand.testing.postgres import postgres_server, why_not

Opening = Callable[[], SqlStore]


@pytest.fixture(params=["sqlite", "postgres"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """Opens the same store again each time it is called."""
    root = RootKey.generate()
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "site.db", Sealer(root))
    if reason := why_not():
        pytest.skip(reason)
    from keystrand.store.postgres import PostgresDatabase

    address = postgres_server().new_database()
    return lambda: SqlStore(PostgresDatabase(address, "alpha"), Sealer(root))
