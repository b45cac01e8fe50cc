"""Is every row of the store the latest that was written? A keyed hash of the set of rows, kept in the same transaction.

The seal of a row shows that the row is ours; it does not show that the row is still the valid one: an old row with its old
seal, put back, fits itself. So each table has a sum: of PRF(table, row) over its rows, modulo 2^256 (a multiset hash as
MSet-Add-Hash of Clarke et al., Asiacrypt 2003, with keyed BLAKE2b as PRF). A row that comes is added and one that goes is
subtracted, whatever the number of rows. Sum and count are kept sealed, bound to the audit log at that moment: whoever sees
the store before and after a change must not learn PRF values, from which a sum for an old row could be made; and a sum of
another time does not open.

An old row that is put back, a row that is deleted or copied, shows at the next check of all rows. The store as a whole put
back does not: that is for the mark beside it and for the neighbours.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

import msgspec

from keystrand.core.errors import Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.seal import Sealer
from keystrand.store.rows import identity

COLUMN: Final = "seal_set.sums"
KEY_BYTES: Final = 32

_DIGEST_BYTES: Final = 32
_MODULUS_MASK: Final = (1 << (8 * _DIGEST_BYTES)) - 1
_SUM: Final = struct.Struct(">Q32s")
_unpack: Final = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_pack: Final = msgspec.msgpack.Encoder(order="deterministic").encode

Row = tuple[Any, ...]


class SealSet:
    """Sums of the rows of some tables. key: 32 bytes. Not for several threads.

    `add` and `remove` follow the writes of a transaction; `mark` and `undo` its parts that fail alone.
    """

    __slots__ = ("_counts", "_journal", "_prfs", "_sums")

    def __init__(self, key: Secret, tables: Iterable[str]) -> None:
        assert len(key) == KEY_BYTES
        # one state per table, keyed and personalised once: copying it costs less than keying anew
        self._prfs = {t: blake2b(key=key.reveal(), digest_size=_DIGEST_BYTES, person=_person(t)) for t in tables}
        self._sums = dict.fromkeys(self._prfs, 0)
        self._counts = dict.fromkeys(self._prfs, 0)
        self._journal: list[tuple[str, int, int]] = []

    def add(self, table: str, row: Row) -> None:
        """A row that is there from now on, as it stands in the file, sealed columns included."""
        self._move(table, row, 1)

    def remove(self, table: str, row: Row) -> None:
        """A row that was there, just as it was."""
        self._move(table, row, -1)

    def _move(self, table: str, row: Row, sign: int) -> None:
        prf = self._prfs[table].copy()
        prf.update(identity(row))
        change = sign * int.from_bytes(prf.digest(), "big")
        self._sums[table] = (self._sums[table] + change) & _MODULUS_MASK
        self._counts[table] += sign
        self._journal.append((table, change, sign))

    def mark(self) -> int:
        """For `undo`."""
        return len(self._journal)

    def undo(self, mark: int = 0) -> None:
        """Take back what came since `mark`; since the last `settle` by default."""
        while len(self._journal) > mark:
            table, change, sign = self._journal.pop()
            self._sums[table] = (self._sums[table] - change) & _MODULUS_MASK
            self._counts[table] -= sign

    def settle(self) -> None:
        """The transaction is durable: it cannot be taken back any more."""
        self._journal.clear()

    # kept ----------------------------------------------------------------------------------------------------------

    def sealed(self, sealer: Sealer, bound: bytes) -> bytes:
        """For the site's row, once per transaction. bound: size and head of the audit log after it."""
        sums = {t: _SUM.pack(self._counts[t], self._sums[t].to_bytes(_DIGEST_BYTES, "big")) for t in self._prfs}
        return sealer.seal(COLUMN, bound, _pack(sums))

    def load(self, sealer: Sealer, bound: bytes, sealed: bytes) -> None:
        """Go on from what was kept. Raises Tampered unless it was made here, at this very moment of the audit log."""
        try:
            kept = _unpack(sealer.open(COLUMN, bound, sealed).reveal())
            found = {table: _SUM.unpack(kept[table]) for table in self._prfs}
        except (msgspec.MsgspecError, KeyError, struct.error):
            raise Tampered("the sums of the store's rows cannot be read", hint=_HINT) from None
        for table, (count, total) in found.items():
            self._counts[table], self._sums[table] = count, int.from_bytes(total, "big")
        self._journal.clear()

    def check(self, table: str, rows: Iterable[Row]) -> int:
        """Compare with all rows that the file has now; how many there are. Raises Tampered."""
        prf, total, count = self._prfs[table], 0, 0
        for row in rows:
            one = prf.copy()
            one.update(identity(row))
            total += int.from_bytes(one.digest(), "big")
            count += 1
        if (count, total & _MODULUS_MASK) != (self._counts[table], self._sums[table]):
            words = f"{count} rows, {self._counts[table]} were written"
            raise Tampered(f"table {table} is not what was written last: {words}", hint=_HINT)
        return count


_HINT: Final = "an old row was put back, or one was deleted or copied: restore the store from a backup"


def _person(table: str) -> bytes:
    name = table.encode()
    assert len(name) <= blake2b.PERSON_SIZE, "names of tables are short"
    return name
