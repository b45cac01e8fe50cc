"""Which replicas of a site live, and which of them does what only one may do.

A replica joins under a fresh incarnation with every start, tells of itself once a second, and is given up by the others when
it has not done so for a while, by the clock of the database. From then on its transactions are refused (see postgres.py),
so a job that it believes to hold can do no harm: the check is made under the same lock that the job's writes need.
"""

from __future__ import annotations

import secrets
from typing import Final

from keystrand.store.postgres import PostgresDatabase

GONE_S: Final = 5.0

_JOIN: Final = """INSERT INTO replicas VALUES (?, ?, extract(epoch FROM clock_timestamp()))
    ON CONFLICT (replica) DO UPDATE SET incarnation = excluded.incarnation, seen_s = excluded.seen_s"""
_BEAT: Final = "UPDATE replicas SET seen_s = extract(epoch FROM clock_timestamp()) WHERE incarnation = ?"
_GIVE_UP: Final = """DELETE FROM replicas WHERE seen_s < extract(epoch FROM clock_timestamp()) - ?
    AND incarnation <> ? RETURNING replica"""
_TAKE: Final = """INSERT INTO leases VALUES (?, ?, 1) ON CONFLICT (job) DO UPDATE
    SET incarnation = excluded.incarnation, term = leases.term + 1
    WHERE leases.incarnation NOT IN (SELECT incarnation FROM replicas)"""


class Roster:
    """The place of one replica among those of its site. replica: its name, the same after a restart."""

    def __init__(self, database: PostgresDatabase, replica: str) -> None:
        self._database = database
        self.replica = replica

    def join(self) -> str:
        """Begin a new life: an earlier one of the same name is over. Its incarnation."""
        incarnation = secrets.token_hex(8)
        self._database.note(_JOIN, (self.replica, incarnation))
        self._database.incarnation = incarnation
        return incarnation

    def leave(self) -> None:
        """The others need not wait to notice."""
        self._database.note("UPDATE replicas SET seen_s = 0 WHERE incarnation = ?", (self._database.incarnation,))

    def beat(self) -> None:
        self._database.note(_BEAT, (self._database.incarnation,))

    def give_up(self) -> list[str]:
        """Strike the replicas that were not heard of for GONE_S; their names. In a transaction."""
        assert self._database.in_transaction, "under the lock, so that no transaction of theirs is under way"
        return [row[0] for row in self._database.rows(_GIVE_UP, (GONE_S, self._database.incarnation))]

    def living(self) -> frozenset[str]:
        """Incarnations."""
        return frozenset(row[0] for row in self._database.rows("SELECT incarnation FROM replicas"))

    def names(self) -> list[str]:
        return [row[0] for row in self._database.rows("SELECT replica FROM replicas ORDER BY replica")]

    def leads(self, job: str) -> bool:
        """Whether `job` is this replica's; takes it over where nobody living has it. In a transaction."""
        assert self._database.in_transaction, "a lease is good for one transaction"
        self._database.note(_TAKE, (job, self._database.incarnation))
        found = self._database.row("SELECT incarnation FROM leases WHERE job = ?", (job,))
        return found is not None and found[0] == self._database.incarnation
