"""The register of keys in SQL: who shares which key, where its life stands, who uses it, and what the peers must still hear.

Rows are added with the other writes that every request makes, held back until the end of the transaction; they are read
only for operators, for notices of the peer and for jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from keystrand.core.errors import IllegalTransition
from keystrand.core.protection import Strand, names_of
from keystrand.core.register import KeyRecord, Origin, Scope, Stage, Tally, Use
from keystrand.core.states import Change, State, sources
from keystrand.store.database import Database
from keystrand.store.schema import SHARED
from keystrand.store.statements import Alike
from keystrand.store.working import Row

FIXED: Final = (
    "key_id, initiator, responders, peer, link, first_sequence, last_sequence, strands, size_bits, tenant, tags, "
    "created_s, activated_s, expires_s"
)
CHANGING: Final = (
    "stage, due_s, state, turn, peer_turn, changed_s, actor, reason, compromised_s, destroyed_n, rotation_due_s, "
    "uses, used_bytes"
)

# a peer that uses a key ID again finds the record of the first key in its place
_INSERT: Final = f"INSERT INTO register VALUES ({', '.join('?' * len(KeyRecord._fields))}) ON CONFLICT DO NOTHING"  # noqa: S608
# a key that is new: what can change of it is as the table has it by default
_OWN: Final = ("key_id", "first_sequence", "last_sequence")
_SHARED: Final = (*(name for name in FIXED.split(", ") if name not in _OWN), "stage", "due_s", "state")
_INSERT_NEW: Final = Alike("register", _SHARED, _OWN, " ON CONFLICT DO NOTHING")
_SELECT: Final = f"SELECT {FIXED}, {CHANGING} FROM register"  # noqa: S608
_UPDATE: Final = f"UPDATE register SET {' = ?, '.join(CHANGING.split(', '))} = ? WHERE key_id = ?"  # noqa: S608
_RETIRE: Final = f"""UPDATE register SET state = ?, stage = ?, due_s = ?, changed_s = ?, actor = ?, reason = ?
    WHERE key_id > ? AND key_id <= ? AND state IN ({", ".join("?" * len(sources(Change.DEACTIVATE)))})
    AND EXISTS (SELECT 1 FROM copies c WHERE c.key_id = register.key_id AND c.living = 1 AND c.peer <> ?)
    AND NOT EXISTS (SELECT 1 FROM copies c WHERE c.key_id = register.key_id AND c.step = 'delivered')
    RETURNING {FIXED}, {CHANGING}"""  # noqa: S608
# an enumeration takes a microsecond to find its member, and an operator's search reads a million rows
_STATES: Final = {state.value: state for state in State}
_STAGES: Final = {stage.value: stage for stage in Stage}
_CAME_FROM: Final = """EXISTS (SELECT 1 FROM origins o WHERE o.link = register.link
    AND o.sequence BETWEEN register.first_sequence AND register.last_sequence"""


def listed(words: Iterable[str], mark: str) -> str:
    """Words in one column, so that each can be found whole: `mark` stands before and after every one."""
    return "".join(f"{mark}{word}" for word in words) + mark


def unlisted(text: str, mark: str) -> tuple[str, ...]:
    return tuple(text.split(mark)[1:-1])


def key_row(record: KeyRecord) -> Row:
    return (
        record[0],
        record[1],
        listed(record[2], " "),
        *record[3:7],
        " ".join(names_of(record[7])),
        record[8],
        record[9],
        listed(record[10], "\n"),
        *record[11:14],
        *changing_row(record),
    )


def changing_row(record: KeyRecord) -> Row:
    return (int(record[14]), record[15], record[16].value, *record[17:])


@lru_cache(maxsize=64)
def _strands_of(text: str) -> frozenset[Strand]:
    return frozenset(Strand(word) for word in text.split())


def key_of(row: Row) -> KeyRecord:
    responders, tags = unlisted(row[2], " "), unlisted(row[10], "\n")
    facts = (*row[:2], responders, *row[3:7], _strands_of(row[7]), *row[8:10], tags, *row[11:14])
    return KeyRecord._make((*facts, _STAGES[row[14]], row[15], _STATES[row[16]], *row[17:]))


def where_of(scope: Scope, open_sources: Sequence[str] = ()) -> tuple[list[str], list[Any]]:
    """Conditions and their values, but for the SAE; open_sources: those that `scope.relay` could have seen. `replace`
    instead of a pattern: names may hold what patterns give a meaning to."""
    parts: list[tuple[str, Sequence[Any]]] = []
    for column, wanted in (
        ("key_id", scope.key_ids),
        ("state", sorted(state.value for state in scope.states)),
    ):
        if wanted:
            parts.append((f"{column} IN ({', '.join('?' * len(wanted))})", wanted))
    for tag in scope.tags:
        parts.append(("replace(tags, ?, '') <> tags", (listed((tag,), "\n"),)))
    for column, value in (("tenant", scope.tenant), ("peer", scope.peer), ("link", scope.link)):
        if value is not None:
            parts.append((f"{column} = ?", (value,)))
    if scope.source is not None:
        parts.append((f"{_CAME_FROM} AND o.source = ?)", (scope.source,)))
    if scope.relay is not None:
        listing = ", ".join("?" * len(open_sources)) or "NULL"
        parts.append((f"(peer = ? OR {_CAME_FROM} AND o.source IN ({listing})))", (scope.relay, *open_sources)))
    if scope.since_s is not None or scope.until_s is not None:
        parts.append(_window(scope))
    return [sql for sql, _ in parts], [value for _, values in parts for value in values]


def ways_of(sae: str | None) -> list[tuple[str, list[Any]]]:
    """Which keys are an SAE's, as conditions that exclude each other and have an index each: what it draws, what it alone
    fetches, what it fetches with others."""
    if sae is None:
        return [("TRUE", [])]
    name = listed((sae,), " ")
    return [
        ("initiator = ?", [sae]),
        (f"responders = ? AND initiator <> ? AND NOT {SHARED}", [name, sae]),
        (f"replace(responders, ?, '') <> responders AND initiator <> ? AND {SHARED}", [name, sae]),
    ]


def _window(scope: Scope) -> tuple[str, Sequence[Any]]:
    limits = [("{} >= ?", scope.since_s), ("{} < ?", scope.until_s)]
    given = [(sql, at_s) for sql, at_s in limits if at_s is not None]
    made, came = (" AND ".join(sql.format(column) for sql, _ in given) for column in ("created_s", "o.ingested_s"))
    return f"(({made}) OR {_CAME_FROM} AND {came}))", [at_s for _, at_s in given] * 2


def _union(
    sae: str | None,
    columns: str,
    conditions: Sequence[str],
    values: Sequence[Any],
    ordered: str = "",
    limit: Sequence[int] = (),
) -> tuple[str, list[Any]]:
    """Rows of the register, each way of `ways_of` on its own, so that none of them reads more than it gives."""
    parts, given = [], []
    for way, names in ways_of(sae):
        where = " AND ".join((way, *conditions))
        parts.append(f"SELECT * FROM (SELECT {columns} FROM register WHERE {where} {ordered}) AS part")  # noqa: S608
        given += [*names, *values, *limit]
    return " UNION ALL ".join(parts), given


class SqlRegister:
    """Implements KeyRegister over a database of the site."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        self._db.held.settle()
        return self._db.rows(sql, values)

    # keys

    def add(self, record: KeyRecord) -> None:
        self._db.hold("register", _INSERT, key_row(record))

    def add_alike(self, record: KeyRecord, keys: Sequence[tuple[str, int, int]]) -> None:
        row = key_row(record)
        for sql, values in _INSERT_NEW.writes((*row[1:5], *row[7:17]), keys):
            self._db.hold("register", sql, values)

    def get(self, key_id: str) -> KeyRecord | None:
        rows = self._rows(f"{_SELECT} WHERE key_id = ?", (key_id,))
        return key_of(rows[0]) if rows else None

    def put(self, record: KeyRecord) -> None:
        self._db.hold("register", _UPDATE, (*changing_row(record), record.key_id))

    def find(
        self, scope: Scope, after: tuple[float, str] | None, limit: int, *, newest: bool = False
    ) -> list[KeyRecord]:
        conditions, values = where_of(scope, self._open_to(scope.relay))
        later, order = ("<", "DESC") if newest else (">", "ASC")
        if after is not None:
            conditions.append(f"(created_s, key_id) {later} (?, ?)")
            values += after
        ordered = f"ORDER BY created_s {order}, key_id {order} LIMIT ?"
        sql, values = _union(scope.sae, f"{FIXED}, {CHANGING}", conditions, values, ordered, [limit])
        return [key_of(row) for row in self._rows(f"{sql} {ordered}", (*values, limit))]

    def tally(self, scope: Scope) -> list[Tally]:
        conditions, values = where_of(scope, self._open_to(scope.relay))
        columns = "link, peer, strands, size_bits, used_bytes, created_s"
        meant, values = _union(scope.sae, columns, conditions, values)
        sql = f"""SELECT link, peer, strands, count(*), sum(size_bits), sum(used_bytes), min(created_s), max(created_s)
            FROM ({meant}) AS meant GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""  # noqa: S608
        return [
            Tally(link, peer, frozenset(map(Strand, strands.split())), int(keys), int(bits), int(used), first_s, last_s)
            for link, peer, strands, keys, bits, used, first_s, last_s in self._rows(sql, values)
        ]

    def _open_to(self, relay: str | None) -> list[str]:
        """The sources of blocks that this relay could have seen: few, as they are routes."""
        if relay is None:
            return []
        sources = self._rows("SELECT DISTINCT source FROM origins WHERE source LIKE 'relay %'")
        return [source for (source,) in sources if Origin("", 0, source, 0.0).is_open_to(relay)]

    def due(self, stage: Stage, before_s: float, limit: int) -> list[KeyRecord]:
        sql = f"{_SELECT} WHERE stage = ? AND due_s <= ? ORDER BY due_s, key_id LIMIT ?"
        return [key_of(row) for row in self._rows(sql, (int(stage), before_s, limit))]

    def changed(self, peer: str, after: tuple[float, str] | None, limit: int) -> list[KeyRecord]:
        sql = f"{_SELECT} WHERE peer = ? AND (turn > 0 OR peer_turn > 0 OR state <> ?) AND actor <> ?"
        at_s, key_id = after or (-1.0, "")
        sql += " AND (created_s, key_id) > (?, ?) ORDER BY created_s, key_id LIMIT ?"
        return [key_of(row) for row in self._rows(sql, (peer, State.ACTIVE.value, "clock", at_s, key_id, limit))]

    def retire_waiting(
        self, after: str, last: str, own: str, *, at_s: float, due_s: float, actor: str, reason: str
    ) -> list[KeyRecord]:
        fate = (State.DEACTIVATED.value, int(Stage.COLLECT), due_s, at_s, actor, reason)
        states = sorted(state.value for state in sources(Change.DEACTIVATE))
        return [key_of(row) for row in self._db.change(_RETIRE, (*fate, after, last, *states, own))]

    def drop(self, key_id: str) -> None:
        self._db.hold("register", "DELETE FROM register WHERE key_id = ?", (key_id,))
        self._db.hold("uses", "DELETE FROM uses WHERE key_id = ?", (key_id,))

    def count(self) -> dict[str, int]:
        return {
            str(state): number for state, number in self._rows("SELECT state, count(*) FROM register GROUP BY state")
        }

    # who uses them

    def put_use(self, use: Use) -> None:
        sql = """INSERT INTO uses VALUES (?, ?, ?, ?)
            ON CONFLICT (key_id, sae, consumer) DO UPDATE SET last_s = excluded.last_s"""
        self._db.hold("uses", sql, (use.key_id, use.sae, use.consumer, use.last_s))

    def uses(self, key_id: str) -> list[Use]:
        sql = "SELECT key_id, sae, consumer, last_s FROM uses WHERE key_id = ? ORDER BY sae, consumer"
        return [Use(*row) for row in self._rows(sql, (key_id,))]

    # where the bits came from

    def add_origin(self, origin: Origin) -> None:
        values = (origin.link, origin.sequence, origin.source, origin.ingested_s)
        try:
            self._db.write("INSERT INTO origins VALUES (?, ?, ?, ?)", values)
        except IllegalTransition:
            raise IllegalTransition(f"block {origin.sequence} of {origin.link} has its origin already") from None

    def origins(self, link: str, first: int, last: int) -> list[Origin]:
        sql = """SELECT link, sequence, source, ingested_s FROM origins
            WHERE link = ? AND sequence BETWEEN ? AND ? ORDER BY sequence"""
        return [Origin(*row) for row in self._rows(sql, (link, first, last))]

    # what a peer must still hear

    def put_notice(self, peer: str, notice_id: str, frame: bytes) -> None:
        self._db.hold(
            "notices", "INSERT INTO notices (peer, notice_id, frame) VALUES (?, ?, ?)", (peer, notice_id, frame)
        )

    def notices(self, peer: str, limit: int) -> list[tuple[str, bytes]]:
        sql = "SELECT notice_id, frame FROM notices WHERE peer = ? ORDER BY number LIMIT ?"
        return [(notice_id, frame) for notice_id, frame in self._rows(sql, (peer, limit))]

    def drop_notice(self, peer: str, notice_id: str) -> None:
        self._db.hold("notices", "DELETE FROM notices WHERE peer = ? AND notice_id = ?", (peer, notice_id))
