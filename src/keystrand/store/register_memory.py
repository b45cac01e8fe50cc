"""The register of keys in memory: the same contract as the one in SQL, over the tables of a store in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from keystrand.core.errors import IllegalTransition
from keystrand.core.register import KeyRecord, Origin, Scope, Stage, Tally, Use, tallied
from keystrand.core.states import Change, State, Step, sources
from keystrand.store.ledger import LIVING

REGISTER_TABLES: Final = (
    "register",  # key ID -> KeyRecord
    "uses",  # key ID -> tuple of Use
    "origins",  # (link, sequence) -> Origin
    "notices",  # (peer, notice ID) -> (number, frame)
)

Put = Callable[[str, Any, Any], None]
Place = tuple[Any, ...]


class MemoryRegister:
    """Implements KeyRegister. `put` changes a table and remembers how to take it back; `made` and `due` are kept sorted."""

    def __init__(
        self, tables: Callable[[str], dict[Any, Any]], put: Put, index: Callable[[str, Any], list[Place]]
    ) -> None:
        self._table = tables
        self._put = put
        self._index = index

    # keys

    def add(self, record: KeyRecord) -> None:
        if record.key_id not in self._table("register"):
            self._put("register", record.key_id, record)

    def add_alike(self, record: KeyRecord, keys: Sequence[tuple[str, int, int]]) -> None:
        for key_id, first, last in keys:
            self.add(record._replace(key_id=key_id, first_sequence=first, last_sequence=last))

    def get(self, key_id: str) -> KeyRecord | None:
        return self._table("register").get(key_id)

    def put(self, record: KeyRecord) -> None:
        if record.key_id in self._table("register"):
            self._put("register", record.key_id, record)

    def _later(self, after: tuple[float, str] | None) -> Iterator[KeyRecord]:
        made, keys = self._index("made", ""), self._table("register")
        first = 0 if after is None else bisect_right(made, after)
        return (keys[key_id] for _, key_id in made[first:])

    def _earlier(self, before: tuple[float, str] | None) -> Iterator[KeyRecord]:
        made, keys = self._index("made", ""), self._table("register")
        last = len(made) if before is None else bisect_left(made, before)
        return (keys[key_id] for _, key_id in reversed(made[:last]))

    def find(
        self, scope: Scope, after: tuple[float, str] | None, limit: int, *, newest: bool = False
    ) -> list[KeyRecord]:
        records = self._earlier(after) if newest else self._later(after)
        found = (record for record in records if scope.covers(record, self._origins_of))
        return [record for record, _ in zip(found, range(limit), strict=False)]

    def tally(self, scope: Scope) -> list[Tally]:
        return tallied(self.find(scope, None, 2**31))

    def due(self, stage: Stage, before_s: float, limit: int) -> list[KeyRecord]:
        due, keys = self._index("due", stage), self._table("register")
        last = bisect_left(due, (before_s, "\U0010ffff"))
        return [keys[key_id] for _, key_id in due[: min(last, limit)]]

    def changed(self, peer: str, after: tuple[float, str] | None, limit: int) -> list[KeyRecord]:
        found = (
            record
            for record in self._later(after)
            if record.peer == peer
            and (record.turn or record.peer_turn or record.state is not State.ACTIVE)
            and record.actor != "clock"
        )
        return [record for record, _ in zip(found, range(limit), strict=False)]

    def retire_waiting(
        self, after: str, last: str, own: str, *, at_s: float, due_s: float, actor: str, reason: str
    ) -> list[KeyRecord]:
        copies = [copy for copy in self._table("copies").values() if after < copy.key_id <= last]
        waiting = {copy.key_id for copy in copies if copy.step in LIVING and copy.peer != own}
        had = {copy.key_id for copy in copies if copy.step is Step.DELIVERED}
        found = (self.get(key_id) for key_id in sorted(waiting - had))
        retired = [
            record._replace(
                state=State.DEACTIVATED, stage=Stage.COLLECT, due_s=due_s, changed_s=at_s, actor=actor, reason=reason
            )
            for record in found
            if record is not None and record.state in sources(Change.DEACTIVATE)
        ]
        for record in retired:
            self.put(record)
        return retired

    def drop(self, key_id: str) -> None:
        self._put("register", key_id, None)
        self._put("uses", key_id, None)

    def count(self) -> dict[str, int]:
        return dict(Counter(record.state.value for record in self._table("register").values()))

    # who uses them

    def put_use(self, use: Use) -> None:
        others = [one for one in self.uses(use.key_id) if (one.sae, one.consumer) != (use.sae, use.consumer)]
        self._put("uses", use.key_id, tuple(sorted([*others, use], key=lambda one: (one.sae, one.consumer))))

    def uses(self, key_id: str) -> list[Use]:
        return list(self._table("uses").get(key_id, ()))

    # where the bits came from

    def add_origin(self, origin: Origin) -> None:
        place = (origin.link, origin.sequence)
        if place in self._table("origins"):
            raise IllegalTransition(f"block {origin.sequence} of {origin.link} has its origin already")
        self._put("origins", place, origin)

    def origins(self, link: str, first: int, last: int) -> list[Origin]:
        known = self._table("origins")
        if last - first > len(known):
            return sorted((o for o in known.values() if o.link == link and first <= o.sequence <= last), key=_sequence)
        places = ((link, sequence) for sequence in range(first, last + 1))
        return [known[place] for place in places if place in known]

    def _origins_of(self, record: KeyRecord) -> list[Origin]:
        return self.origins(record.link, record.first_sequence, record.last_sequence)

    # what a peer must still hear

    def put_notice(self, peer: str, notice_id: str, frame: bytes) -> None:
        notices = self._table("notices")
        number = 1 + next((number for number, _ in reversed(notices.values())), 0)
        self._put("notices", (peer, notice_id), (number, frame))

    def notices(self, peer: str, limit: int) -> list[tuple[str, bytes]]:
        waiting = sorted(
            (number, key[1], frame) for key, (number, frame) in self._table("notices").items() if key[0] == peer
        )
        return [(notice_id, frame) for _, notice_id, frame in waiting[:limit]]

    def drop_notice(self, peer: str, notice_id: str) -> None:
        self._put("notices", (peer, notice_id), None)


def _sequence(origin: Origin) -> int:
    return origin.sequence
