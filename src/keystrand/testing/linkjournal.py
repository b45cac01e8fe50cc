"""The journal of a source over a real store, without a site around it: each call is a transaction of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from keystrand.crypto.seal import RootKey, Sealer
from keystrand.node.engine import Engine
from keystrand.node.journal import LinkJournal
from keystrand.store.sql import SqlStore
from keystrand.store.sqlite import SqliteStore

T = TypeVar("T")


@dataclass
class DirectEngine:
    """What LinkJournal asks of an engine and its KME. records: what went into the audit log."""

    store: SqlStore
    now_s: float = 0.0
    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def site(self) -> DirectEngine:
        return self

    @property
    def clock(self) -> DirectEngine:
        return _Clock(self)  # type: ignore[return-value]

    def record(self, kind: str, **fields: Any) -> None:
        self.records.append((kind, fields))

    def call(self, operation: Callable[[Any], T]) -> asyncio.Future[T]:
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self.store.transaction():
            waiter.set_result(operation(self))
        return waiter


@dataclass
class _Clock:
    engine: DirectEngine

    def now_s(self) -> float:
        return self.engine.now_s


@dataclass
class JournalRig:
    """One link's journal in a store in `folder`. holds: whether the source is ours; lost: what was told of."""

    folder: Path
    link: str = "fibre"
    holds: bool = True
    lost: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.store = SqliteStore(self.folder / "site.db", Sealer(RootKey.generate()))
        self.engine = DirectEngine(self.store)
        self.journal = LinkJournal(
            self.link,
            cast(Engine, self.engine),
            self.store.sources,
            lambda: self.holds,
            lambda bits, reason: self.lost.append((bits, reason)),
        )
