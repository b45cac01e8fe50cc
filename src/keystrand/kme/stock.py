"""Keys agreed with the peer ahead of demand: where an SAE draws often, its next keys are already waiting at both ends.

Nothing else changes. A batch is an ordinary reservation for one pair of SAEs, durable at both ends before it is shelved;
a key leaves the shelf under its own audit record; what nobody drew soon is burnt at both ends. An SAE that draws now and
then has no shelf, so a crash burns no more than its one request.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from keystrand.core.key import Key
from keystrand.core.limits import Limits
from keystrand.core.protection import Strand
from keystrand.kme.ask import Ask
from keystrand.wire.peer import Reserve, WireKey

HORIZON_S = 0.05  # a shelf holds at least so much of the present demand
ANSWERS = 2.0  # and at least what is asked for while the peer answers so often
MEMORY_S = 0.5  # demand is averaged over about so long

Terms = tuple[str, tuple[str, ...], int, int]


def terms_of(ask: Ask) -> Terms:
    """What two requests must have in common to draw from one shelf."""
    return ask.initiator, ask.responders, ask.size_bits, ask.required


@dataclass(slots=True)
class Batch:
    """The keys of one Reserve, in memory until they are released or given up. A crash forgets it; recovery burns its bits.

    ticket: who waits for all of them; None for a batch made ahead of demand.
    """

    ticket: object | None
    ask: Ask
    message: Reserve
    keys: deque[tuple[Key, WireKey]] = field(repr=False)
    asked_s: float
    deadline_s: float
    repeat_s: float

    @property
    def strands(self) -> frozenset[Strand]:
        return frozenset(Strand(name) for name in self.message.strands)

    def wipe(self) -> None:
        for key, _ in self.keys:
            key.material.wipe()
        self.keys.clear()


@dataclass(frozen=True, slots=True)
class Waiter:
    """A request that keys on their way to the shelf will serve: sooner than keys of its own would come."""

    ticket: object
    ask: Ask


@dataclass(slots=True)
class Shelf:
    """Agreed keys of one kind, oldest batch first, and who waits for more of them."""

    batches: deque[Batch] = field(default_factory=deque)
    keys: int = 0
    coming: int = 0  # keys that the peer was asked to agree to
    waiting: deque[Waiter] = field(default_factory=deque)
    promised: int = 0  # keys that those who wait will take
    rate_per_s: float = 0.0
    requests_per_s: float = 0.0
    asked_s: float = 0.0
    answer_s: float = 0.0  # how long the peer takes to agree, about

    def note(self, number: int, now_s: float) -> None:
        """Somebody asked for `number` keys."""
        fading = math.exp((self.asked_s - now_s) / MEMORY_S)
        self.rate_per_s = self.rate_per_s * fading + number / MEMORY_S
        self.requests_per_s = self.requests_per_s * fading + 1 / MEMORY_S
        self.asked_s = now_s

    def missing(self, limits: Limits) -> int:
        """How many keys to agree on now: none while the shelf is half full, and none without a steady demand."""
        if self.requests_per_s < limits.stock_from_per_s:
            return 0
        horizon_s = max(HORIZON_S, ANSWERS * self.answer_s)
        target = min(limits.stock_keys_max, math.ceil(self.rate_per_s * horizon_s))
        return target - self.spare if 2 * self.spare <= target else 0

    @property
    def spare(self) -> int:
        """Keys that are here or coming, and that nobody waits for; negative where what was promised will not come."""
        return self.keys + self.coming - self.promised

    def wait(self, waiter: Waiter) -> None:
        self.waiting.append(waiter)
        self.promised += waiter.ask.number

    def served(self) -> Iterator[Waiter]:
        """Those who wait, first come first served, while there are keys for them; pick these before the next."""
        while self.waiting and self.waiting[0].ask.number <= self.keys:
            yield self._leave(self.waiting.popleft())

    def unserved(self) -> Iterator[Waiter]:
        """Those, last come first, for whom too few keys are on their way now."""
        while self.spare < 0:
            yield self._leave(self.waiting.pop())

    def _leave(self, waiter: Waiter) -> Waiter:
        self.promised -= waiter.ask.number
        return waiter

    def pick(self, number: int) -> list[tuple[Batch, int]]:
        """Whole batches and a part of the last one that make `number` keys; the shelf counts them as gone."""
        self.keys -= number
        picked = []
        while number:
            batch = self.batches[0]
            share = min(number, len(batch.keys))
            picked.append((batch, share))
            number -= share
            if share == len(batch.keys):
                self.batches.popleft()
        return picked


class Stock:
    """All shelves of a site."""

    def __init__(self) -> None:
        self._shelves: dict[Terms, Shelf] = {}

    def shelf(self, ask: Ask) -> Shelf:
        terms = terms_of(ask)
        shelf = self._shelves.get(terms)
        if shelf is None:
            shelf = self._shelves[terms] = Shelf()
        return shelf

    def put(self, batch: Batch, now_s: float) -> Shelf:
        """The peer has agreed to this batch."""
        shelf = self.shelf(batch.ask)
        shelf.answer_s += (now_s - batch.asked_s - shelf.answer_s) / 4
        shelf.batches.append(batch)
        shelf.keys += len(batch.keys)
        shelf.coming -= len(batch.keys)
        return shelf

    @property
    def waiting(self) -> int:
        """Requests that wait for keys on their way."""
        return sum(len(shelf.waiting) for shelf in self._shelves.values())

    def unserved(self) -> Iterator[Waiter]:
        """Those of all shelves for whom too few keys are on their way now; they wait no longer."""
        for shelf in self._shelves.values():
            yield from shelf.unserved()

    def idle(self, asked_before_s: float) -> list[Batch]:
        """Batches that nobody draws from any more; they and their shelves are forgotten here."""
        idle = [terms for terms, shelf in self._shelves.items() if shelf.asked_s <= asked_before_s and not shelf.coming]
        return [batch for terms in idle for batch in self._shelves.pop(terms).batches]

    def of_peer(self, peer: str) -> list[Batch]:
        """All batches agreed with one peer; their shelves are empty afterwards."""
        return self.where(lambda batch: batch.ask.peer == peer)

    def count(self, test: Callable[[Batch], bool]) -> int:
        """How many keys of such batches lie on the shelves."""
        return sum(len(b.keys) for shelf in self._shelves.values() for b in shelf.batches if test(b))

    def where(self, test: Callable[[Batch], bool]) -> list[Batch]:
        """Take batches off their shelves."""
        taken: list[Batch] = []
        for shelf in self._shelves.values():
            kept: deque[Batch] = deque()
            for batch in shelf.batches:
                (taken if test(batch) else kept).append(batch)
            shelf.batches, shelf.keys = kept, sum(len(batch.keys) for batch in kept)
        return taken
