"""Keys between networks in SQL: one row per record, its material sealed and bound to the facts beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Final

import msgspec

from keystrand.core.errors import Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.seal import Sealer
from keystrand.store.database import Database
from keystrand.store.rows import identity
from keystrand.wire.etsi020 import AckStatus, Parties
from keystrand.wire.handover import Handover, Stage

COLUMN: Final = "handovers.material"
_PUT: Final = """INSERT INTO handovers VALUES (?, ?, ?) ON CONFLICT (key_id) DO UPDATE SET
    record = excluded.record, material = excluded.material"""


class _Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Handover without its material."""

    key_id: str
    peer: str
    initiator: str
    targets: tuple[str, ...]
    sends: bool
    stage: Stage
    since_s: float
    offer: str
    extension: dict[str, bytes]
    mandatory: dict[str, bytes]
    optional: dict[str, bytes]
    callback_url: str | None
    owes: AckStatus | None
    accepted: bool
    unclear: bool
    alone: bool
    attempts: int
    next_s: float
    deadline_s: float
    onward: bool = False  # from here on: rows of earlier versions do not have them
    asked: bool = False
    kept: bool = False
    said: dict[str, bytes] = {}
    woven: bool = False


_COPIED: Final = tuple(each.name for each in fields(Handover) if each.name not in ("material", "parties"))
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(_Facts).decode


def facts_of(record: Handover) -> bytes:
    """Everything of a record but its material."""
    copied = {name: getattr(record, name) for name in _COPIED}
    return _pack(_Facts(initiator=record.parties.initiator, targets=record.parties.targets, **copied))


def handover_of(facts: bytes, material: Secret | None) -> Handover:
    """Raises Tampered for what `facts_of` did not make."""
    try:
        read = _unpack(facts)
    except msgspec.MsgspecError:
        raise Tampered("a handover cannot be read", hint="restore the store from a backup") from None
    copied = {name: getattr(read, name) for name in _COPIED}
    return Handover(parties=Parties(read.initiator, read.targets), material=material, **copied)


class SqlHandovers:
    """Implements HandoverStore in the transactions of the site's store."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._db = database
        self._sealer = sealer

    def load(self) -> Iterable[Handover]:
        """Raises Tampered."""
        rows = self._db.rows("SELECT key_id, record, material FROM handovers ORDER BY key_id")
        return [handover_of(facts, self._opened(name, facts, sealed)) for name, facts, sealed in rows]

    def _opened(self, name: str, facts: bytes, sealed: bytes | None) -> Secret | None:
        return None if sealed is None else self._sealer.open(COLUMN, identity((name, facts)), sealed)

    def save(self, record: Handover, /) -> None:
        facts, material = facts_of(record), record.material
        place = identity((record.name, facts))
        sealed = None if material is None else self._sealer.seal(COLUMN, place, material.reveal())
        self._db.hold("handovers", _PUT, (record.name, facts, sealed))

    def forget(self, name: str, /) -> None:
        self._db.hold("handovers", "DELETE FROM handovers WHERE key_id = ?", (name,))
