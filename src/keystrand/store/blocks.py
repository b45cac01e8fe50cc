"""The pool blocks of a site in SQL. Bits are taken from them on the way of every key, so what that changes is held back."""

from __future__ import annotations

from typing import Final

from keystrand.core.errors import IllegalTransition
from keystrand.core.pool import BlockState, PoolBlock
from keystrand.core.secret import Secret
from keystrand.crypto.seal import Sealer
from keystrand.store import statements
from keystrand.store.database import Database
from keystrand.store.rows import block_of, block_row, identity
from keystrand.store.working import Journal, Row

BLOCK_COLUMN: Final = "blocks.material"
_CONFIRMED: Final = BlockState.CONFIRMED.value


class SqlBlocks:
    """This part of a store. Where only bits of a block are taken, its place among the others stays, and so nothing that is
    asked of the database has to be written first; other changes are written at once."""

    _db: Database
    _sealer: Sealer
    _journal: Journal
    _free: dict[tuple[str, str], int]  # bits by link and owner
    _read: dict[str, Row]  # blocks as this transaction found them, sealed
    _changed: dict[str, Row | None]  # as it leaves them; None: dropped

    def add_block(self, block: PoolBlock, material: Secret) -> None:
        row = block_row(block)
        sealed = self._sealer.seal(BLOCK_COLUMN, identity(row), material.reveal())
        self._db.write(statements.INSERT_BLOCK, (*row, block.free_bits, sealed))
        self._journal.put(self._changed, block.block_id, (*row, sealed))
        self._recount()

    def block(self, block_id: str) -> PoolBlock | None:
        row = self._block_row(block_id)
        return block_of(row) if row else None

    def _block_row(self, block_id: str) -> Row | None:
        """With its sealed material; within a transaction it is read once."""
        if block_id in self._changed:
            return self._changed[block_id]
        row = self._read.get(block_id)
        if row is None:
            row = self._db.row(statements.BLOCK_SEALED, (block_id,))
            if row is not None and self._db.in_transaction:
                self._read[block_id] = row
        return row

    def block_material(self, block_id: str) -> Secret:
        row = self._block_row(block_id)
        if row is None:
            raise KeyError(block_id)
        return self._sealer.open(BLOCK_COLUMN, identity(row[:-1]), row[-1])

    def put_block(self, block: PoolBlock, material: Secret | None = None) -> None:
        before = self._block_row(block.block_id)
        if before is None:
            raise KeyError(block.block_id)
        # the seal covers the facts, so new facts need a new seal even where the material stays
        plain = self.block_material(block.block_id) if material is None else material
        row = block_row(block)
        if (*row[:5], row[9]) != (*before[:5], before[9]):
            raise IllegalTransition(f"block {block.block_id} cannot change its place")
        sealed = self._sealer.seal(BLOCK_COLUMN, identity(row), plain.reveal())
        values = (*row[5:9], row[10], block.free_bits, sealed, *row[:5], row[9])
        if row[5:7] == before[5:7]:
            self._db.hold("blocks", statements.UPDATE_BLOCK, values)
            self._count(before, block.free_bits)
        else:
            self._db.write(statements.UPDATE_BLOCK, values)
            self._recount()
        self._journal.put(self._changed, block.block_id, (*row, sealed))

    def drop_block(self, block_id: str) -> None:
        before = self._block_row(block_id)
        if before is not None:
            self._db.hold("blocks", statements.BLOCK_GONE, (block_id,))
            self._count(before, 0)
            self._journal.put(self._changed, block_id, None)

    def _count(self, before: Row, free_bits: int) -> None:
        """A block stays where it is with so many free bits."""
        place = (before[1], before[6])
        if before[5] == _CONFIRMED and place in self._free:
            self._journal.put(self._free, place, self._free[place] + free_bits - block_of(before).free_bits)

    def _recount(self) -> None:
        for place in [*self._free]:
            self._journal.drop(self._free, place)

    def _settle_blocks(self) -> None:
        if self._changed:
            self._db.held.settle()

    def blocks(
        self, *, link: str | None = None, sequence: int | None = None, state: BlockState | None = None
    ) -> list[PoolBlock]:
        wanted = {"link": link, "sequence": sequence}
        given = {name: value for name, value in wanted.items() if value is not None}
        # the state as a literal: a partial index serves no parameter
        stated = [f"state = '{state.value}'"] if state is not None else []
        where = " AND ".join([*(f"{name} = ?" for name in given), *stated]) or "TRUE"
        self._settle_blocks()
        sql = f"{statements.SELECT_BLOCK} WHERE {where} ORDER BY link, sequence, piece"
        return [block_of(row) for row in self._db.rows(sql, tuple(given.values()))]

    def free_blocks(self, link: str, owner: str, limit: int) -> list[PoolBlock]:
        """In the order of the rows, which is theirs whatever was taken from them in this transaction."""
        found = self._db.rows(statements.BLOCKS_FREE, (link, owner, limit + len(self._changed)))
        if self._db.in_transaction:
            for row in found:
                self._read.setdefault(row[0], row)
        now = [block_of(row) for row in (self._changed.get(row[0], row) for row in found) if row is not None]
        return [block for block in now if block.free_bits][:limit]

    def free_bits(self, link: str, owner: str) -> int:
        known = self._free.get((link, owner))
        if known is None:
            self._settle_blocks()
            row = self._db.row("SELECT free_bits FROM pools WHERE link = ? AND owner = ?", (link, owner))
            known = int(row[0]) if row else 0
            self._journal.put(self._free, (link, owner), known)
        return known

    def blocks_before(self, ingested_s: float, limit: int) -> list[PoolBlock]:
        self._settle_blocks()
        where = "ingested_s < ? ORDER BY ingested_s, link, sequence, piece LIMIT ?"
        return [block_of(row) for row in self._db.rows(f"{statements.SELECT_BLOCK} WHERE {where}", (ingested_s, limit))]
