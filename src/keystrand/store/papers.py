"""Papers of the administration in SQL: proposals, answers that were given, the policy that came into force while running, keys
that were handed to a key manager.

Text by kind and name. None of it is secret; what was done is in the audit log, this is what is still to be done or repeated.
"""

from __future__ import annotations

from typing import Final

from keystrand.store.database import Database

_PUT: Final = """INSERT INTO papers VALUES (?, ?, ?, ?) ON CONFLICT (kind, name) DO UPDATE SET
    made_s = excluded.made_s, content = excluded.content"""


class SqlPapers:
    """Reads see the writes of their transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, kind: str, name: str, made_s: float, content: str) -> None:
        """In a transaction. What had this name is replaced."""
        self._db.write(_PUT, (kind, name, made_s, content))

    def get(self, kind: str, name: str) -> str | None:
        row = self._db.row("SELECT content FROM papers WHERE kind = ? AND name = ?", (kind, name))
        return None if row is None else str(row[0])

    def all(self, kind: str) -> list[str]:
        """Oldest first."""
        rows = self._db.rows("SELECT content FROM papers WHERE kind = ? ORDER BY made_s, name", (kind,))
        return [str(content) for (content,) in rows]

    def drop(self, kind: str, name: str) -> None:
        self._db.write("DELETE FROM papers WHERE kind = ? AND name = ?", (kind, name))

    def drop_before(self, kind: str, made_s: float) -> None:
        self._db.write("DELETE FROM papers WHERE kind = ? AND made_s < ?", (kind, made_s))
