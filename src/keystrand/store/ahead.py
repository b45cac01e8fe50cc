"""What a transaction will want, read in one round trip: where the database is far away, each question costs one.

A replica that takes its turn knows which calls wait for it. Their rows, and those that its last turn changed, are asked for
together; whatever was not foreseen is read when it is needed, as ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

from keystrand.core.pool import Wants
from keystrand.store.database import Database
from keystrand.store.rows import BLOCK_COLUMNS, COPY_COLUMNS
from keystrand.store.statements import DRAWS_SINCE, EPOCH, HEAD, REQUESTS
from keystrand.store.working import Row

BUSY_MAX: Final = 32  # links and peers that are read ahead because the last turn changed them
NAMES_MAX: Final = 4096  # of each kind: who asks for more waits for more

_COPY: Final = f"SELECT {COPY_COLUMNS}, tenant, material FROM copies"  # noqa: S608
_COPIES: Final = f"{_COPY} WHERE key_id = ANY(?) ORDER BY key_id, recipient"
_NAMED: Final = "(peer, request_id) IN (SELECT * FROM unnest(?::text[], ?::text[]))"
_MADE: Final = f"SELECT {COPY_COLUMNS}, tenant FROM copies WHERE {_NAMED}"  # noqa: S608
_TOMBSTONES: Final = f"SELECT peer, request_id FROM tombstones WHERE {_NAMED}"  # noqa: S608
_BLOCKS: Final = f"SELECT {BLOCK_COLUMNS}, material FROM blocks WHERE block_id = ANY(?)"  # noqa: S608
_PEERS: Final = "SELECT peer, epoch, op_sent, op_heard, rolled_back FROM peers WHERE peer = ANY(?)"
_LEDGER: Final = "SELECT link, account, bits FROM ledger WHERE link = ANY(?)"
_POOLS: Final = "SELECT link, owner, free_bits FROM pools WHERE link = ANY(?)"


@dataclass(frozen=True, slots=True)
class Busy:
    """What the last turn of this process changed."""

    links: list[str]
    peers: list[str]
    draws_place: int | None


@dataclass(slots=True)
class Found:
    """Rows by what they answer. A name that was asked for and has no row is there, and empty."""

    copies: dict[str, list[Row]] = field(default_factory=dict)  # by key ID, in the order of recipients
    sealed: dict[tuple[str, str], Row] = field(default_factory=dict)  # the same with their material
    requests: dict[tuple[str, str], list[Row]] = field(default_factory=dict)  # copies by peer and request ID
    tombstones: dict[tuple[str, str], bool] = field(default_factory=dict)
    blocks: dict[str, Row] = field(default_factory=dict)  # with their material
    open: list[Row] = field(default_factory=list)
    draws: list[Row] | None = None  # None: not asked for
    epoch: list[Row] = field(default_factory=list)
    head: list[Row] = field(default_factory=list)
    peers: dict[str, Row] = field(default_factory=dict)
    ledger: dict[str, dict[str, int]] = field(default_factory=dict)  # by link and account
    pools: dict[tuple[str, str], int] = field(default_factory=dict)  # by link and owner


def merged(wants: Iterable[Wants]) -> Wants:
    """What several operations want, each name once."""
    kinds = zip(*wants, strict=True)
    return Wants(*(tuple(islice(dict.fromkeys(chain.from_iterable(kind)), NAMES_MAX)) for kind in kinds))


def gather(database: Database, wants: Wants, busy: Busy | None) -> Found:
    """busy: whose remembered state was dropped; None where it still holds."""
    asked: dict[str, tuple[str, Row]] = {}
    if wants.key_ids:
        asked["copies"] = (_COPIES, (list(wants.key_ids),))
    if wants.requests:
        names = [list(part) for part in zip(*wants.requests, strict=True)]
        asked["requests"], asked["tombstones"] = (_MADE, tuple(names)), (_TOMBSTONES, tuple(names))
    if wants.block_ids:
        asked["blocks"] = (_BLOCKS, (list(wants.block_ids),))
    if busy is not None:
        asked |= {"epoch": (EPOCH, ()), "head": (HEAD, ()), "open": (REQUESTS, ())}
        asked |= {
            "peers": (_PEERS, (busy.peers,)),
            "ledger": (_LEDGER, (busy.links,)),
            "pools": (_POOLS, (busy.links,)),
        }
        if busy.draws_place is not None:
            asked["draws"] = (DRAWS_SINCE, (busy.draws_place,))
    answers = dict(zip(asked, database.gather(list(asked.values())) if asked else (), strict=True))
    sealed = answers.get("copies", [])
    buried = {(row[0], row[1]) for row in answers.get("tombstones", ())}
    ledger: dict[str, dict[str, int]] = {}
    for link, account, bits in answers.get("ledger", ()):
        ledger.setdefault(link, {})[account] = bits
    return Found(
        copies=_by_key(wants.key_ids, sealed),
        sealed={(row[0], row[1]): row for row in sealed},
        requests=_by_request(wants.requests, answers.get("requests", ())),
        tombstones={name: name in buried for name in wants.requests},
        blocks={row[0]: row for row in answers.get("blocks", ())},
        open=answers.get("open", []),
        draws=answers.get("draws"),
        epoch=answers.get("epoch", []),
        head=answers.get("head", []),
        peers={row[0]: row[1:] for row in answers.get("peers", ())},
        ledger=ledger,
        pools={(row[0], row[1]): row[2] for row in answers.get("pools", ())},
    )


def _by_key(key_ids: Iterable[str], rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {key_id: [] for key_id in key_ids}
    for row in rows:
        found[row[0]].append(row)
    return found


def _by_request(names: Iterable[tuple[str, str]], rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {name: [] for name in names}
    for row in rows:
        found[row[3], row[5]].append(row)
    return found
