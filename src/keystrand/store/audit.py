"""The audit log of a site in SQL, with its checkpoints and what was witnessed of other logs."""

from __future__ import annotations

from keystrand.core.errors import IllegalTransition
from keystrand.store import statements
from keystrand.store.database import Database
from keystrand.store.rows import head_of
from keystrand.store.working import Journal


class SqlAudit:
    """This part of a store: it satisfies AuditStore of observe.audit."""

    _db: Database
    _journal: Journal
    _audit: dict[str, tuple[int, bytes]]  # "head": records, and the head after them

    def audit_append(self, number: int, record: bytes, head: bytes) -> None:
        if not self._db.in_transaction or number != self.audit_head()[0]:
            raise IllegalTransition(f"audit record {number} is out of place")
        self._db.hold("audit", "INSERT INTO audit VALUES (?, ?, ?)", (number, record, head))
        self._journal.put(self._audit, "head", (number + 1, head))

    def audit_head(self) -> tuple[int, bytes]:
        if "head" not in self._audit:
            self._audit["head"] = head_of(self._db.rows(statements.HEAD))
        return self._audit["head"]

    def audit_rows(self, first: int, limit: int) -> list[tuple[int, bytes, bytes]]:
        self._db.held.settle()
        sql = "SELECT number, record, head FROM audit WHERE number >= ? ORDER BY number LIMIT ?"
        return [(number, record, head) for number, record, head in self._db.rows(sql, (first, limit))]

    def put_checkpoint(self, size: int, note: str) -> None:
        self._db.write(statements.PUT_CHECKPOINT, (size, note))

    def checkpoints(self, first: int = 0) -> list[tuple[int, str]]:
        rows = self._db.rows("SELECT size, note FROM checkpoints WHERE size >= ? ORDER BY size", (first,))
        return [(size, note) for size, note in rows]

    def witnessed(self, origin: str) -> tuple[int, bytes, str] | None:
        row = self._db.row("SELECT size, head, note FROM witnessed WHERE origin = ?", (origin,))
        return (row[0], row[1], row[2]) if row else None

    def put_witnessed(self, origin: str, size: int, head: bytes, note: str) -> None:
        self._db.write(statements.PUT_WITNESSED, (origin, size, head, note))
