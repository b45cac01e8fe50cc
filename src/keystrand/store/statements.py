"""The words of the store's SQL, with `?` for values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple

from keystrand.store.rows import BLOCK_COLUMNS, COPY_COLUMNS, REQUEST_COLUMNS, Row

SELECT_BLOCK: Final = f"SELECT {BLOCK_COLUMNS} FROM blocks"  # noqa: S608
SELECT_COPY: Final = f"SELECT {COPY_COLUMNS}, tenant FROM copies"  # noqa: S608
BLOCK_SEALED: Final = f"SELECT {BLOCK_COLUMNS}, material FROM blocks WHERE block_id = ?"  # noqa: S608
COPY_SEALED: Final = f"""SELECT {COPY_COLUMNS}, tenant, material FROM copies
    WHERE key_id = ? AND recipient = ?"""  # noqa: S608
INSERT_BLOCK: Final = f"INSERT INTO blocks VALUES ({', '.join('?' * 13)})"  # noqa: S608
INSERT_REQUEST: Final = f"INSERT INTO requests VALUES ({', '.join('?' * 10)})"  # noqa: S608
UPSERT_LEDGER: Final = (
    "INSERT INTO ledger VALUES (?, ?, ?) ON CONFLICT (link, account) DO UPDATE SET bits = excluded.bits"
)
PUT_EPOCH: Final = "INSERT INTO site VALUES ('epoch', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
PUT_PEER: Final = """INSERT INTO peers VALUES (?, ?, ?, ?, ?) ON CONFLICT (peer) DO UPDATE SET epoch = excluded.epoch,
    op_sent = excluded.op_sent, op_heard = excluded.op_heard, rolled_back = excluded.rolled_back"""
PUT_TOMBSTONE: Final = """INSERT INTO tombstones VALUES (?, ?, ?)
    ON CONFLICT (peer, request_id) DO UPDATE SET at_s = excluded.at_s"""
PUT_CHECKPOINT: Final = "INSERT INTO checkpoints VALUES (?, ?) ON CONFLICT (size) DO UPDATE SET note = excluded.note"
PUT_WITNESSED: Final = """INSERT INTO witnessed VALUES (?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE SET
    size = excluded.size, head = excluded.head, note = excluded.note"""
# the place of a block never changes; only these columns do, so that the indexes of the others stay untouched
UPDATE_BLOCK: Final = """UPDATE blocks SET state = ?, owner = ?, term = ?, epoch = ?, taken = ?, free_bits = ?,
    material = ? WHERE block_id = ? AND link = ? AND sequence = ? AND piece = ? AND length_bits = ? AND ingested_s = ?"""
EPOCH: Final = "SELECT value FROM site WHERE name = 'epoch'"
HEAD: Final = "SELECT number, head FROM audit ORDER BY number DESC LIMIT 1"
REQUESTS: Final = f"SELECT {REQUEST_COLUMNS} FROM requests ORDER BY peer, op, request_id"  # noqa: S608
# portions of the copies by key ID: the sum keeps the index by age out of it
WAITING_UNTIL: Final = """SELECT max(key_id) FROM (SELECT key_id FROM copies
    WHERE living + 0 = 1 AND key_id > ? ORDER BY key_id LIMIT ?) AS portion"""
BITS_WAITING: Final = """SELECT link, had, sum(length_bits) FROM (
    SELECT link, length_bits, max(CASE WHEN step = 'delivered' THEN 1 ELSE 0 END) AS had FROM copies
    WHERE key_id > ? AND key_id <= ? AND peer <> ? AND segments <> ?
    GROUP BY key_id, link, length_bits HAVING max(living) = 1) AS waiting GROUP BY link, had ORDER BY link, had"""
BURN_WAITING: Final = """UPDATE copies SET step = 'burnt', living = 0, material = NULL
    WHERE living + 0 = 1 AND key_id > ? AND key_id <= ?"""
PUT_DRAW: Final = """INSERT INTO draws VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET
    place = excluded.place, bits = excluded.bits, keys = excluded.keys, own_bits = excluded.own_bits,
    tenant_bits = excluded.tenant_bits, excess_bits = excluded.excess_bits"""
DRAWS_SINCE: Final = """SELECT place, who, bits, keys, own_bits, tenant_bits, excess_bits FROM draws
    WHERE place > ? ORDER BY place"""
BLOCK_GONE: Final = "DELETE FROM blocks WHERE block_id = ?"
BLOCKS_GONE: Final = "DELETE FROM blocks WHERE block_id IN (SELECT value FROM json_each(?))"  # SQLite
BLOCKS_FREE: Final = f"""SELECT {BLOCK_COLUMNS}, material FROM blocks WHERE link = ? AND owner = ?
    AND state = 'confirmed' AND free_bits > 0 ORDER BY sequence, piece LIMIT ?"""  # noqa: S608


_TOGETHER: Final = (64, 16, 4, 1)  # rows in one statement: a handful of statements, each prepared once


def together(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """In portions of few sizes."""
    at = 0
    for size in _TOGETHER:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


class Alike(NamedTuple):
    """An INSERT of rows that share the values of some columns: those are bound once, and the statement runs once."""

    table: str
    shared: tuple[str, ...]
    own: tuple[str, ...]
    end: str = ""

    def writes(self, shared: Row, rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
        """SQL and its values. shared, rows: values of the columns of those names."""
        for part in together(rows):
            yield _insert(self, len(part)), (*shared, *chain.from_iterable(part))


@lru_cache(maxsize=64)
def _insert(alike: Alike, rows: int) -> str:
    into = f"INSERT INTO {alike.table} ({', '.join(alike.shared + alike.own)})"
    shared, own = ", ".join("?" * len(alike.shared)), ", ".join("?" * len(alike.own))
    if rows == 1:
        return f"{into} VALUES ({shared}, {own}){alike.end}"
    each = ", ".join([f"({own})"] * rows)
    return f"{into} SELECT {shared}, part.* FROM (VALUES {each}) AS part WHERE TRUE{alike.end}"  # noqa: S608


@lru_cache(maxsize=8)
def finish_copies(keys: int) -> str:
    """Of one recipient: step, recipient, then so many key IDs."""
    listed = ", ".join("?" * keys)
    return f"UPDATE copies SET step = ?, living = 0, material = NULL WHERE recipient = ? AND key_id IN ({listed})"  # noqa: S608


def any_copy(keys: int) -> str:
    """Whether one of so many keys has a copy."""
    return f"SELECT 1 FROM copies WHERE key_id IN ({', '.join('?' * keys)}) LIMIT 1"  # noqa: S608
