"""One PostgreSQL database per site, shared by the site's replicas: how it is reached, locked, and what its failures mean.

Every transaction begins by taking the lock of the site's one row, so that replicas take turns and each sees what the others
did. The row's version tells whether anybody else wrote meanwhile; if so, what this process remembers is dropped. A replica
that the others gave up has lost its place in the roster and is refused in the same round trip, so it can never write over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Final, NoReturn

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8BinaryDumper

from keystrand.core.errors import ConfigError, IllegalTransition, StoreUnavailable
from keystrand.store.postgres_address import check_address
from keystrand.store.postgres_schema import migrate
from keystrand.store.postgres_turn import Asked
from keystrand.store.working import Held, Row

VERSION_MIN: Final = 150_000
CONNECT_S: Final = 3
LOCK_S: Final = 4.0  # for the turn of this replica
STATEMENT_S: Final = 5.0
IDLE_S: Final = 3.0  # a replica that stops in the middle of its turn loses it after so long
ANSWER_S: Final = 8.0  # for a server that says nothing at all; above what it is asked to keep by itself
STATEMENTS_PREPARED: Final = 256

_SETTINGS: Final = (
    "synchronous_commit=on",  # acknowledged means durable
    f"lock_timeout={int(1000 * LOCK_S)}",
    f"statement_timeout={int(1000 * STATEMENT_S)}",
    f"idle_in_transaction_session_timeout={int(1000 * IDLE_S)}",
    "timezone=UTC",
    "jit=off",  # no statement of ours is worth compiling
    "enable_seqscan=off",  # a plan made while a table was small is kept while it grows: every question here has an index
)
# One round trip, each statement with a snapshot of its own, so that the last one sees what was done before the lock was had.
# Not a pipeline: after one, PostgreSQL 15 does not count the time that a transaction is idle.
_BEGIN: Final = """BEGIN; SELECT version FROM turn FOR UPDATE; SELECT 1 FROM replicas WHERE incarnation = '{}'"""
_STEP: Final = "UPDATE turn SET version = $1"
# A replica that is frozen within a pipeline is not idle by PostgreSQL's count: whoever waited in vain for its turn ends it.
_END_FROZEN: Final = f"""SELECT pg_terminate_backend(held.pid)
    FROM pg_locks held JOIN pg_stat_activity backend USING (pid)
    WHERE held.relation = 'turn'::regclass AND held.mode = 'RowShareLock' AND held.granted
    AND held.pid <> pg_backend_pid() AND backend.usename = current_user AND backend.wait_event = 'ClientRead'
    AND clock_timestamp() - backend.state_change > interval '{IDLE_S} s'"""  # noqa: S608


@lru_cache(maxsize=512)
def numbered(sql: str) -> str:
    """`?` as PostgreSQL counts them."""
    first, *rest = sql.split("?")
    return first + "".join(f"${place}{part}" for place, part in enumerate(rest, 1))


class _Line(psycopg.Connection[Row]):
    """A connection that never waits for ever, whatever the server and the network do."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        return super().wait(gen, interval, ANSWER_S if timeout is None else timeout)


class PostgresDatabase:
    """The connection of one replica. Used from one thread at a time.

    address: a libpq URI without password. site: refused where the database is another site's. Raises ConfigError for an
    address or a server that is not safe, StoreUnavailable where nobody answers; later whenever a turn cannot be had or kept.
    """

    def __init__(self, address: str, site: str) -> None:
        check_address(address)
        self._address = address
        self._site = site
        self._doomed: str | None = None
        self._open = False
        self._wrote = False
        self._late: list[str] = []  # RELEASEs that nothing has needed yet
        self._asked: Asked | None = None  # for the turn
        self._version = -1
        self.incarnation = ""  # hexadecimal, of this process's place in the roster; "": it has none
        self.held = Held(self._write_many, self._control)
        self._line: _Line | None = None
        self._connected()

    # the connection ------------------------------------------------------------------------------------------------

    def _connected(self) -> _Line:
        line = self._line
        if line is None or line.closed:
            line = self._line = self._connect()
        return line

    def _connect(self) -> _Line:
        try:
            line = _Line.connect(
                self._address,
                autocommit=True,
                cursor_factory=psycopg.RawCursor,
                prepare_threshold=0,
                connect_timeout=CONNECT_S,
                tcp_user_timeout=int(1000 * ANSWER_S),
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
                application_name="keystrand",
                options=" ".join(f"-c {setting}" for setting in _SETTINGS),
            )
        except psycopg.Error as error:
            raise StoreUnavailable(f"PostgreSQL: {_words(error)}", hint="see the address in [site] store") from None
        try:
            line.prepared_max = STATEMENTS_PREPARED
            line.adapters.register_dumper(int, Int8BinaryDumper)
            _check_server(line)
            migrate(line, self._site)
        except psycopg.Error as error:
            line.close()
            raise StoreUnavailable(f"PostgreSQL: {_words(error)}", hint="see the log of the server") from None
        except BaseException:
            line.close()
            raise
        return line

    def close(self) -> None:
        """Idempotent. An open transaction is rolled back by the server."""
        if self._line is not None:
            self._line.close()

    # reading and writing -------------------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        return self._open

    def _run(self, sql: str, values: Sequence[Any]) -> psycopg.Cursor[Row]:
        if self._asked is not None:
            self._await_turn()  # one connection, one question at a time
        line = self._line if self._open else self._connected()
        if line is None or line.closed:
            self._fail(psycopg.OperationalError("the connection was lost"))
        try:
            return line.execute(numbered(sql), values, binary=True)
        except errors.IntegrityError as error:
            raise IllegalTransition(f"the store refuses: {_words(error)}") from None
        except psycopg.Error as error:
            self._fail(error)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._run(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        return self._run(sql, values).fetchone()

    def gather(self, questions: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        """The rows of each, in one round trip."""
        line = self._sound()
        try:
            with line.pipeline():
                asked = [line.execute(numbered(sql), values, binary=True) for sql, values in questions]
            return [cursor.fetchall() for cursor in asked]
        except psycopg.Error as error:
            self._fail(error)

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Now; how many rows it touched. Raises IllegalTransition outside of a transaction or against a constraint.

        Against a constraint the savepoint around it is lost, or the transaction where there is none.
        """
        return self._written(sql, values).rowcount

    def change(self, sql: str, values: Sequence[Any]) -> list[Row]:
        return self._written(sql, values).fetchall()

    def _written(self, sql: str, values: Sequence[Any]) -> psycopg.Cursor[Row]:
        self._require_transaction()
        self._settle()
        self._wrote = True
        return self._run(sql, values)

    def _settle(self) -> None:
        """In one round trip; the statement that follows is a plain one."""
        if not self.held.is_settled:
            try:
                with self._sound().pipeline():
                    self.held.settle()
            except psycopg.Error as error:
                self._fail(error)

    def hold(self, table: str, sql: str, values: Row) -> None:
        """With the others at the end of the transaction, or before the next `write` or `settle`."""
        self._require_transaction()
        self.held.add(table, sql, (values,))

    def hold_all(self, table: str, sql: str, rows: Sequence[Row]) -> None:
        """The same for many rows."""
        self._require_transaction()
        self.held.add(table, sql, rows)

    def note(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Write what no replica remembers, in or out of a turn: it makes nobody forget."""
        return self._run(sql, values).rowcount

    def _require_transaction(self) -> None:
        if not self._open:
            raise IllegalTransition("write outside of a transaction")

    def _write_many(self, sql: str, rows: list[Row]) -> None:
        self._wrote = True
        try:
            with self._sound().cursor(binary=True) as cursor:
                cursor.executemany(numbered(sql), rows)
        except psycopg.Error as error:
            self._fail(error)

    def _control(self, sql: str) -> None:
        """A word on savepoints, all of which have one name: the innermost is meant. RELEASE waits until it matters."""
        if sql.startswith("RELEASE"):
            self._late.append(sql)
            return
        line, late = self._sound(), self._late
        if sql.startswith("ROLLBACK"):  # after an error the server hears nothing else
            late = [word for _ in late for word in (sql, "RELEASE part")]
        self._late = []
        try:
            for word in (*late, sql):
                line.execute(word, prepare=False)
        except psycopg.Error as error:
            self._fail(error)

    def _sound(self) -> _Line:
        if self._line is None or self._line.closed:
            self._fail(psycopg.OperationalError("the connection was lost"))
        return self._line

    # transactions --------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, flush: Callable[[], None], stale: Callable[[], None]) -> Iterator[None]:
        """This replica's turn. `stale` drops what is remembered, `flush` holds back the last of it.

        Whatever raises, everything is rolled back. A commit whose answer is lost counts as failed: what it did is found
        when the store is read anew.
        """
        assert not self._open, "a transaction is open already"
        found = self._begin()
        if found != self._version:
            stale()
            self._version = found
        try:
            yield
            self._check_sound()
            flush()
            self._commit()
        except BaseException:
            self._version = -1
            self.held.clear()
            self._roll_back()
            raise

    async def turn(self) -> None:
        """Wait for this replica's turn while the loop goes on; the next `transaction` has it. Raises StoreUnavailable."""
        try:
            if self._asked is None:
                self._ask_turn()
            if (asked := self._asked) is not None:
                await asked.come()
        except psycopg.Error as error:
            self._lose_turn(error)
        except BaseException:
            self._asked = None
            self.close()  # nobody would end what was begun; the next question connects anew
            raise

    def _ask_turn(self) -> None:
        self._doomed, self._wrote, self._late = None, False, []
        self._asked = Asked(self._connected(), _BEGIN.format(self.incarnation), ANSWER_S)

    def _await_turn(self) -> None:
        try:
            assert self._asked is not None
            self._asked.wait()
        except psycopg.Error as error:
            self._lose_turn(error)

    def _lose_turn(self, error: psycopg.Error) -> NoReturn:
        self._asked = None
        self._roll_back()
        if isinstance(error, errors.LockNotAvailable):
            self._end_frozen()
        self._fail(error)

    def _begin(self) -> int:
        """Have the lock; the version that is found."""
        if self._asked is None:
            self._ask_turn()
        self._await_turn()
        asked, self._asked, self._open = self._asked, None, True
        assert asked is not None
        try:
            _, found, place = asked.rows()
            if not found:
                raise StoreUnavailable("the database has lost its site", hint="restore it from a backup")
            if self.incarnation and not place:
                raise StoreUnavailable("the other replicas have given this one up", hint="it joins them anew by itself")
        except psycopg.Error as error:
            self._lose_turn(error)
        except BaseException:
            self._roll_back()
            raise
        return int(found[0][0])

    def _end_frozen(self) -> None:
        """End the connection of a replica that has not moved in its turn for long; the next try finds the turn free."""
        with suppress(psycopg.Error, StoreUnavailable):
            self._connected().execute(_END_FROZEN)

    def _commit(self) -> None:
        line = self._sound()
        try:
            with line.pipeline():
                self.held.settle()
                if self._wrote:
                    line.execute(_STEP, (self._version + 1,))
                else:  # the lock alone need not reach the disk
                    line.execute("SET LOCAL synchronous_commit TO off")
                line.execute("COMMIT")
        except psycopg.Error as error:
            self._fail(error)
        self._version += self._wrote
        self._open = False

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of the transaction that can fail alone. Nests."""
        assert self._open, "a savepoint lives inside a transaction"
        self.held.begin_part()
        try:
            yield
        except BaseException:
            self.held.undo_part()
            raise
        self.held.end_part()

    def _check_sound(self) -> None:
        """A failure may have been swallowed on the way; the server would turn COMMIT into ROLLBACK without a word."""
        if self._doomed or self._sound().info.transaction_status != TransactionStatus.INTRANS:
            raise StoreUnavailable(f"the store failed within the transaction: {self._doomed}")

    def _roll_back(self) -> None:
        self._open = False
        line = self._line
        if line is None or line.closed:
            return
        try:
            line.execute("ROLLBACK")
        except psycopg.Error:
            line.close()  # whatever state it is in, the server rolls back; the next turn connects anew

    def _fail(self, error: psycopg.Error) -> NoReturn:
        self._doomed = _words(error)
        raise StoreUnavailable(f"PostgreSQL: {self._doomed}", hint=_hint(error)) from None


def _words(error: psycopg.Error) -> str:
    """One line, without the values that a server repeats in its DETAIL."""
    primary = error.diag.message_primary
    return primary or str(error).strip().partition("\n")[0] or type(error).__name__


def _hint(error: psycopg.Error) -> str:
    if isinstance(error, errors.LockNotAvailable):
        return "another replica holds the site's turn; see pg_stat_activity for what it does"
    if isinstance(error, errors.QueryCanceled):
        return "the server is too slow; see its load"
    return "is the server there, and does it have disk space?"


def _check_server(line: psycopg.Connection[Row]) -> None:
    """Raises ConfigError for a server that does not keep what it acknowledges."""
    for name in ("fsync", "full_page_writes"):
        found = line.execute(f"SHOW {name}").fetchone()
        if found != ("on",):
            raise ConfigError(f"PostgreSQL runs with {name} = off", hint=f"set {name} = on in postgresql.conf")
    if line.info.server_version < VERSION_MIN:
        raise ConfigError(f"PostgreSQL {line.info.server_version // 10_000} is too old", hint="use 15 or later")


class PostgresAudit:
    """The audit part of a site's database, read without the root key and beside its replicas: for offline verification."""

    def __init__(self, address: str) -> None:
        check_address(address)
        try:
            self._line = _Line.connect(
                address, autocommit=True, cursor_factory=psycopg.RawCursor, connect_timeout=CONNECT_S
            )
            self._line.read_only = True
            self._line.execute("SELECT 1 FROM audit LIMIT 1")
        except psycopg.Error as error:
            raise StoreUnavailable(f"PostgreSQL: {_words(error)}", hint="see the address in [site] store") from None

    def _rows(self, sql: str, values: Sequence[Any]) -> list[Row]:
        try:
            return self._line.execute(sql, values, binary=True).fetchall()
        except psycopg.Error as error:
            raise StoreUnavailable(f"PostgreSQL: {_words(error)}", hint=_hint(error)) from None

    def audit_rows(self, first: int, limit: int) -> list[tuple[int, bytes, bytes]]:
        sql = "SELECT number, record, head FROM audit WHERE number >= $1 ORDER BY number LIMIT $2"
        return [(number, record, head) for number, record, head in self._rows(sql, (first, limit))]

    def checkpoints(self, first: int = 0) -> list[tuple[int, str]]:
        rows = self._rows("SELECT size, note FROM checkpoints WHERE size >= $1 ORDER BY size", (first,))
        return [(size, note) for size, note in rows]

    def close(self) -> None:
        self._line.close()
