"""What a store needs of a database: transactions with parts that fail alone, and writes held back to their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from keystrand.store.working import Held, Row


class Database(Protocol):
    """One connection. SQL with `?`; text orders by its bytes. Raises StoreUnavailable when it cannot serve."""

    held: Held

    @property
    def in_transaction(self) -> bool: ...
    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]: ...
    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None: ...

    def gather(self, questions: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]: ...  # in one round trip

    # now; how many rows it touched. IllegalTransition outside of a transaction or against a constraint
    def write(self, sql: str, values: Sequence[Any] = ()) -> int: ...

    def change(self, sql: str, values: Sequence[Any]) -> list[Row]: ...  # the same; the rows that it RETURNs

    # with the others at the end of the transaction, or before the next `write` or `held.settle`
    def hold(self, table: str, sql: str, values: Row) -> None: ...
    def hold_all(self, table: str, sql: str, rows: Sequence[Row]) -> None: ...  # the same for many rows

    # flush: holds back the last of it, before the commit. stale: called first where another process wrote meanwhile
    def transaction(self, flush: Callable[[], None], stale: Callable[[], None]) -> AbstractContextManager[None]: ...
    def savepoint(self) -> AbstractContextManager[None]: ...
    def close(self) -> None: ...
