"""What a site remembers of makers' devices, in SQL: keys that were used, and pushed keys that wait for the other end.

A claim is a key's name and its mark, a keyed digest from which nothing of the key can be found. It is written in the
transaction that takes the key in (`sequence`: of the block), or burns it (BURNT), so that a key is used once, whatever crashes,
and by one replica of the site. The last CLAIMS_MAX of each link are known. Keys that wait are sealed as all material is.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from keystrand.core.errors import BadRequest, Unavailable
from keystrand.core.secret import Secret
from keystrand.crypto.seal import Sealer
from keystrand.store.database import Database
from keystrand.store.rows import identity
from keystrand.store.working import Row

CLAIMS_MAX: Final = 65_536
BURNT: Final = -1
MARK_BYTES: Final = 16
AT_ONCE: Final = 1024  # keys of one statement
COLUMN: Final = "pushed.material"
Claim = tuple[str, bytes]

_CLAIM: Final = "INSERT INTO claims VALUES (?, ?, ?, ?, ?)"
_PUSH: Final = "INSERT INTO pushed VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_WAITING: Final = "SELECT name, material FROM pushed WHERE link = ?"


class SqlSources:
    """In the transactions of the site's store. link: of [sources]."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._db = database
        self._sealer = sealer

    # keys that were used ---------------------------------------------------------------------------------------------

    def came_before(self, link: str, claims: Sequence[Claim], *, but_under: int = BURNT) -> list[str]:
        """The names of those that came before, by their name or their mark, here or among `claims`.

        but_under: the same key claimed for the block of this sequence does not count.
        """
        names, marks = set[str](), set[bytes]()
        for name, mark, sequence in self._alike(link, claims):
            if sequence == BURNT or sequence != but_under or (name, mark) not in claims:
                names.add(name)
                marks.add(mark)
        stale = []
        for name, mark in claims:
            if name in names or mark in marks:
                stale.append(name)
            names.add(name)
            marks.add(mark)
        return stale

    def claim(self, link: str, sequence: int, claims: Sequence[Claim]) -> None:
        """These keys are used; what waited of them does so no more. Raises BadRequest where one came before."""
        if stale := self.came_before(link, claims, but_under=sequence):
            raise BadRequest(f"the device gave key {stale[0][:64]} before, by its name or by its bits")
        self.adopt(link, sequence, claims)

    def adopt(self, link: str, sequence: int, claims: Sequence[Claim]) -> None:
        """As `claim`; those that are known stay as they are."""
        stale = set(self.came_before(link, claims))
        fresh = [claim for claim in claims if claim[0] not in stale]
        (last,) = self._db.row("SELECT coalesce(max(number), -1) FROM claims WHERE link = ?", (link,)) or (-1,)
        rows = [(link, number, name, mark, sequence) for number, (name, mark) in enumerate(fresh, last + 1)]
        self._db.hold_all("claims", _CLAIM, rows)
        self._db.held.settle()
        names = [name for name, _ in claims]
        self._db.write(f"DELETE FROM pushed WHERE link = ? AND name IN ({_places(names)})", (link, *names))  # noqa: S608
        self._db.write("DELETE FROM claims WHERE link = ? AND number <= ?", (link, last + len(rows) - CLAIMS_MAX))

    def burn(self, link: str, claims: Sequence[Claim]) -> None:
        """These keys will never be used."""
        self.adopt(link, BURNT, claims)

    def refuse(self, link: str, names: Sequence[str]) -> None:
        """Keys of these names, which were not there when the other end offered them, will not be used when they come."""
        self.burn(link, [(name, secrets.token_bytes(MARK_BYTES)) for name in names])

    def last_name(self, link: str) -> str:
        """Of the newest claim; "" before the first."""
        row = self._db.row("SELECT name FROM claims WHERE link = ? ORDER BY number DESC LIMIT 1", (link,))
        return "" if row is None else str(row[0])

    def known(self, link: str, names: Sequence[str]) -> frozenset[str]:
        """Those of these names that were claimed."""
        return frozenset(name for name, _ in self._named(link, names))

    def kept_under(self, link: str, names: Sequence[str]) -> int:
        """The sequence of the block that just these keys were claimed for together; BURNT where there is none."""
        found = self._named(link, names)
        sequences = {sequence for _, sequence in found}
        return sequences.pop() if len(found) == len(names) and len(sequences) == 1 else BURNT

    def _named(self, link: str, names: Sequence[str]) -> list[tuple[str, int]]:
        sql = f"SELECT name, sequence FROM claims WHERE link = ? AND name IN ({_places(names)})"  # noqa: S608
        return [(name, sequence) for name, sequence in self._db.rows(sql, (link, *names))] if names else []

    def _alike(self, link: str, claims: Sequence[Claim]) -> list[tuple[str, bytes, int]]:
        if not claims:
            return []
        names, marks = zip(*claims, strict=True)
        either = f"name IN ({_places(names)}) OR mark IN ({_places(marks)})"
        rows = self._db.rows(
            f"SELECT name, mark, sequence FROM claims WHERE link = ? AND ({either})",  # noqa: S608
            (link, *names, *marks),
        )
        return [(name, bytes(mark), sequence) for name, mark, sequence in rows]

    # keys that wait --------------------------------------------------------------------------------------------------

    def push(self, link: str, keys: Sequence[tuple[Claim, Secret]], *, at_s: float, bits_max: int) -> int:
        """Let these keys wait, all or none; how many bits wait then. One that is here already, or was taken in, is no fault:
        its device did not hear so. Raises BadRequest for another key of a known name or known bits, Unavailable without room.
        """
        fresh = [(claim, material) for claim, material in keys if not self._is_here(link, claim)]
        if stale := self.came_before(link, [claim for claim, _ in fresh]):
            raise BadRequest(f"key {stale[0]} came before, by its name or by its bits")
        bits = self.waiting_bits(link)
        more = sum(material.length_bits for _, material in fresh)
        if fresh and bits + more > bits_max:
            raise Unavailable(f"{bits} bits wait here already", retry_after_s=1.0)
        (last,) = self._db.row("SELECT coalesce(max(number), -1) FROM pushed WHERE link = ?", (link,)) or (-1,)
        rows: list[Row] = []
        for number, ((name, mark), material) in enumerate(fresh, last + 1):
            sealed = self._sealer.seal(COLUMN, identity((link, name)), material.reveal())
            rows.append((link, number, name, mark, material.length_bits, at_s, 0, sealed))
        self._db.hold_all("pushed", _PUSH, rows)
        self._db.held.settle()
        return bits + more

    def _is_here(self, link: str, claim: Claim) -> bool:
        """Whether this very key waits or was taken in. Raises BadRequest for another one of its name or bits that waits."""
        name, mark = claim
        for found, its in self._db.rows(
            "SELECT name, mark FROM pushed WHERE link = ? AND (name = ? OR mark = ?)", (link, name, mark)
        ):
            if (found, bytes(its)) != claim:
                raise BadRequest(f"key {name} came before, by its name or by its bits")
            return True
        return any(alike[:2] == claim and alike[2] != BURNT for alike in self._alike(link, [claim]))

    def waiting_bits(self, link: str) -> int:
        row = self._db.row("SELECT coalesce(sum(bits), 0) FROM pushed WHERE link = ?", (link,))
        return 0 if row is None else int(row[0])

    def offer(self, link: str, limit: int) -> list[tuple[str, Secret]]:
        """The oldest that wait; the same ones again until they are claimed, so that an offer can be repeated after a crash."""
        if not self._db.row("SELECT 1 FROM pushed WHERE link = ? AND offered = 1 LIMIT 1", (link,)):
            sql = "SELECT number FROM pushed WHERE link = ? ORDER BY number LIMIT ?"
            numbers = [number for (number,) in self._db.rows(sql, (link, limit))]
            if not numbers:
                return []
            self._db.write("UPDATE pushed SET offered = 1 WHERE link = ? AND number <= ?", (link, numbers[-1]))
        rows = self._db.rows(f"{_WAITING} AND offered = 1 ORDER BY number", (link,))
        return [(name, self._opened(link, name, sealed)) for name, sealed in rows]

    def waiting(self, link: str, names: Sequence[str]) -> list[tuple[str, Secret]]:
        """Those of these names that wait, in this order."""
        found = self._db.rows(f"{_WAITING} AND name IN ({_places(names)})", (link, *names))
        rows: dict[str, bytes] = {row[0]: row[1] for row in found}
        return [(name, self._opened(link, name, rows[name])) for name in names if name in rows]

    def burn_older(self, link: str, before_s: float) -> int:
        """What has waited since before then is burnt; how many bits."""
        rows = self._db.rows("SELECT name, mark, bits FROM pushed WHERE link = ? AND since_s < ?", (link, before_s))
        for start in range(0, len(rows), AT_ONCE):
            self.burn(link, [(name, bytes(mark)) for name, mark, _ in rows[start : start + AT_ONCE]])
        return sum(bits for *_, bits in rows)

    def burn_waiting(self) -> int:
        """After a restore: what waited when the backup was taken may have been used since (invariant I14). How many bits."""
        links = [link for (link,) in self._db.rows("SELECT DISTINCT link FROM pushed ORDER BY link")]
        return sum(self.burn_older(link, float("inf")) for link in links)

    def _opened(self, link: str, name: str, sealed: bytes) -> Secret:
        return self._sealer.open(COLUMN, identity((link, name)), bytes(sealed))


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
