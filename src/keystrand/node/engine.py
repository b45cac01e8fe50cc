"""The engine of a site: all calls on the KME in batches, one store transaction per batch, effects after the commit.

Logic and commit run on the event loop's thread; only the wait for the disk has a thread of its own. Meanwhile the next
transaction is open, and whatever comes joins it: it is committed when the one before it is durable, and never sooner, so
that a crash finds the same as if there were no overlap. If a commit fails, memory may be ahead of the disk: the service is
built anew from what is durable, as after a crash, and whoever waits is refused. The same happens where a gate (the required
audit sinks) does not open after the commit: nothing of the batch leaves, but this site is told what happened in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from keystrand.core.errors import KeystrandError, StoreUnavailable, Tampered
from keystrand.core.pool import Wants
from keystrand.kme.service import Kme
from keystrand.kme.site import Effect, Emit, Refuse, Reply

T = TypeVar("T")
BATCH_MAX = 64
JOIN_MAX = 1024  # calls of one transaction, however long the one before it takes to reach the disk
TURN_S = (
    0.001  # of calls at a time, then the disk may begin: two sites that take all at once wait for each other in turns
)
RETRY_S = 0.1
# the thread that waited for the disk needs the interpreter's lock to say so: Python's usual 5 ms are many syncs
SWITCH_S = 0.000_2


class Turns(Protocol):
    """Where several processes take turns on one store."""

    async def come(self) -> None: ...  # returns with the next transaction begun; raises StoreUnavailable
    def read_ahead(self, wants: Iterable[Wants], /) -> None: ...  # in that transaction


class Disk(Protocol):
    """A store whose commits can be waited for elsewhere."""

    def writing(self) -> AbstractContextManager[None]: ...  # a transaction that is durable after the next `sync`
    def sync(self) -> None: ...  # blocks, in any thread; raises StoreUnavailable
    def log_is_long(self) -> bool: ...
    def shorten(self) -> None: ...  # the log; as `sync`, and beside a transaction. Begins anew where none is open


class Gate(Protocol):
    """What must have happened after a commit before its effects leave; why it has not, if so. since_s: monotonic."""

    async def written(self, since_s: float, /) -> StoreUnavailable | None: ...


@dataclass(slots=True)
class Call:
    """One operation and who waits for it. `late`: the answer comes as an effect, not as the operation's result."""

    operation: Callable[[Kme], object]
    waiter: asyncio.Future[object] | None = None
    refused: Callable[[Kme, KeystrandError], None] | None = None
    late: bool = False
    wants: Wants | None = None
    since_s: float = 0.0  # monotonic: when it was put


class Engine:
    """Serialises one site's KME. `build` makes the service over the store; `perform` lets effects out."""

    def __init__(
        self,
        build: Callable[[], Kme],
        perform: Callable[[list[Effect]], None],
        failed: Callable[[KeystrandError], None],
        reloaded: Callable[[], None],
        gate: Gate | None = None,
        turns: Turns | None = None,
        disk: Disk | None = None,
    ) -> None:
        """disk: the store of the service, where the wait for it may overlap with the next transaction."""
        self._build = build
        self._perform = perform
        self._failed, self._complaint = failed, ""
        self._reloaded = reloaded
        self._calls: deque[Call] = deque()
        self._wake = asyncio.Event()
        self._tickets: set[asyncio.Future[object]] = set()
        self._stopping = False
        self._refusal: StoreUnavailable | None = None  # while nothing can be released
        self.gate = gate
        self._turns = turns
        self._disk = disk
        self._landing: asyncio.Task[None] | None = None  # what is committed, on its way to the disk
        self._syncs = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._moving: asyncio.Future[None] | None = None  # the log of the disk, into its file
        self._moves = ThreadPoolExecutor(1, thread_name_prefix="log")
        self.kme = self._fresh()

    def _fresh(self) -> Kme:
        kme = self._build()
        with kme.site.store.transaction():
            kme.recover()
        return kme

    # asking --------------------------------------------------------------------------------------------------------

    def call(
        self,
        operation: Callable[[Kme], T],
        *,
        refused: Callable[[Kme, KeystrandError], None] | None = None,
        wants: Wants | None = None,
    ) -> asyncio.Future[T]:
        """The operation's result, once what it did is durable. Raises what it raised; then it did nothing."""
        waiter: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._put(Call(operation, waiter, refused, wants=wants))
        return waiter  # type: ignore[return-value]

    def ask(
        self,
        operation: Callable[[Kme, object], None],
        *,
        refused: Callable[[Kme, KeystrandError], None] | None = None,
    ) -> asyncio.Future[object]:
        """As `call`, for an operation that is answered later by a Reply or Refuse to the ticket that it is given."""
        ticket: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._put(Call(lambda kme: operation(kme, ticket), ticket, refused, late=True))
        self._tickets.add(ticket)
        ticket.add_done_callback(self._tickets.discard)
        return ticket

    def post(self, operation: Callable[[Kme], object], wants: Wants | None = None) -> None:
        """Do it with the next batch; nobody waits, so a refusal is dropped, and so is what comes after the end."""
        if not self._stopping:
            self._put(Call(operation, wants=wants))

    @property
    def backlog(self) -> int:
        """Operations that wait for their batch."""
        return len(self._calls)

    def _put(self, call: Call) -> None:
        if self._stopping:
            raise StoreUnavailable("the site is stopping")
        if self._refusal is not None and call.waiter is not None:
            raise self._refusal
        call.since_s = time.monotonic()
        self._calls.append(call)
        self._wake.set()

    # doing ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled."""
        sys.setswitchinterval(SWITCH_S)
        try:
            while True:
                await self._woken()
                while self._calls:
                    await self._next()
                try:
                    self._has_landed()
                except StoreUnavailable as error:
                    await self._reload([], error)
        finally:
            self._stopping = True
            await self._landed()
            if self._moving is not None:
                await asyncio.wait([self._moving])
            self._syncs.shutdown(wait=False)
            self._moves.shutdown(wait=False)
            self._refuse_all(StoreUnavailable("the site is stopping"))

    async def _woken(self) -> None:
        await self._wake.wait()
        self._wake.clear()
        await asyncio.sleep(0)  # let everything that this turn of the loop has read join the batch

    async def _next(self) -> None:
        """The next batch. Where a turn has to be waited for, whatever comes meanwhile joins it."""
        # a gate reads what is committed: nothing may be under way then
        if self._disk is not None and self.gate is None:
            await self._overlapping(self._disk)
            return
        if self._turns is not None:
            try:
                await self._turns.come()
            except StoreUnavailable as error:
                await self._reload([], error)
                return
        await self._batch([self._calls.popleft() for _ in range(min(BATCH_MAX, len(self._calls)))])

    async def _batch(self, calls: list[Call]) -> None:
        try:
            with self.kme.site.store.transaction():
                if self._turns is not None:
                    self._turns.read_ahead(call.wants for call in calls if call.wants is not None)
                results = [self._attempt(call) for call in calls]
        except (StoreUnavailable, Tampered) as error:
            await self._reload(calls, error)
            return
        if self.gate is not None and (closed := await self.gate.written(min(call.since_s for call in calls))):
            self._tell()
            await self._reload(calls, closed)
            return
        for call, result in zip(calls, results, strict=True):
            self._settle(call, result)
        self._release(self.kme.drain())

    async def _overlapping(self, disk: Disk) -> None:
        """One transaction: what was called, and what is called until the one before it is durable."""
        calls: list[Call] = []
        results: list[object] = []
        try:
            await self._keep_short(disk)
            with disk.writing():
                self._take_in(calls, results)
                while not self._has_landed():
                    await self._woken()
                    self._take_in(calls, results)
        except (StoreUnavailable, Tampered) as error:
            await self._landed()
            await self._reload(calls, error)
            return
        except asyncio.CancelledError:
            for call in calls:
                self._settle(call, StoreUnavailable("the site is stopping"))
            raise
        self._landing = asyncio.create_task(self._land(disk, calls, results, self.kme.drain()))
        self._landing.add_done_callback(lambda _: self._wake.set())

    async def _keep_short(self, disk: Disk) -> None:
        """Move a long log beside the transactions; then, between two of them, the little that they added, so that it ends."""
        if self._moving is None:
            if disk.log_is_long():
                self._moving = self._move(disk)
        elif self._moving.done():
            self._moved()
            while not self._has_landed():
                await self._woken()
            self._moving = self._move(disk)
            await asyncio.wait([self._moving])
            self._moved()

    def _moved(self) -> None:
        assert self._moving is not None
        moving, self._moving = self._moving, None
        moving.result()

    def _move(self, disk: Disk) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self._moves, disk.shorten)

    def _take_in(self, calls: list[Call], results: list[object]) -> None:
        until_s = time.monotonic() + TURN_S
        while self._calls and len(calls) < JOIN_MAX and time.monotonic() < until_s:
            calls.append(self._calls.popleft())
            results.append(self._attempt(calls[-1]))

    async def _land(self, disk: Disk, calls: list[Call], results: list[object], effects: list[Effect]) -> None:
        """Wait for the disk, then let everything out. Raises StoreUnavailable where it does not get there."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._syncs, disk.sync)
        except StoreUnavailable as error:
            for call in calls:
                self._settle(call, error)
            raise
        for call, result in zip(calls, results, strict=True):
            self._settle(call, result)
        self._release(effects)

    async def _landed(self) -> None:
        """Wait for what is on its way to the disk; where it did not get there, its callers know."""
        landing, self._landing = self._landing, None
        if landing is not None:
            await asyncio.wait([landing])  # and not `await landing`, which would take a cancellation there
            with contextlib.suppress(StoreUnavailable):
                landing.result()

    def _has_landed(self) -> bool:
        """Whether nothing is on its way to the disk. Raises StoreUnavailable, once, for what did not get there."""
        if self._landing is None:
            return True
        if not self._landing.done():
            return False
        landing, self._landing = self._landing, None
        landing.result()
        return True

    def _attempt(self, call: Call) -> object:
        """The operation's value, or the error that refused it. What the store itself cannot do fails the whole batch."""
        try:
            return self.kme.attempt(lambda: call.operation(self.kme))
        except StoreUnavailable:
            raise
        except KeystrandError as error:
            refusal = error
        if (note := call.refused) is not None:
            self.kme.attempt(lambda: note(self.kme, refusal))
        return refusal

    def _settle(self, call: Call, result: object) -> None:
        if call.waiter is None or call.waiter.done():
            return
        if isinstance(result, KeystrandError):
            call.waiter.set_exception(result)
        elif not call.late:
            call.waiter.set_result(result)

    def _release(self, effects: list[Effect]) -> None:
        others: list[Effect] = []
        for effect in effects:
            if not isinstance(effect, Reply | Refuse):
                others.append(effect)
                continue
            ticket = effect.ticket
            assert isinstance(ticket, asyncio.Future)
            if ticket.done():
                continue  # the caller went away: its keys are delivered by the books and wiped here
            if isinstance(effect, Reply):
                ticket.set_result(effect.keys)
            else:
                ticket.set_exception(effect.error)
        self._perform(others)

    # failing -------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """What is durable has happened, even where nothing may leave: metrics and alarms of this site agree with its log."""
        self._perform([effect for effect in self.kme.drain() if isinstance(effect, Emit)])

    async def _reload(self, calls: list[Call], error: KeystrandError) -> None:
        """Begin again from what is durable; refuse whoever waits until that works."""
        self._complain(error)
        self._refusal = StoreUnavailable(
            f"nothing was released: {error}", hint=error.hint or "see the log; is the disk full?"
        )
        for call in calls:
            self._settle(call, self._refusal)
        while not await self._begin_again(self._refusal):
            await asyncio.sleep(RETRY_S)
        self._refusal, self._complaint = None, ""
        self._release(self.kme.drain())
        self._reloaded()

    async def _begin_again(self, refusal: StoreUnavailable) -> bool:
        """Whether the service stands anew, and everything that it recorded while it rose may be known."""
        self._refuse_all(refusal)
        try:
            if self.gate is not None and (closed := await self.gate.written(time.monotonic())):
                raise closed
            self.kme = self._fresh()
            if self.gate is not None and (closed := await self.gate.written(time.monotonic())):
                self._tell()
                raise closed
        except KeystrandError as again:
            self._complain(again)
            return False
        return True

    def _complain(self, error: KeystrandError) -> None:
        """Said once for each reason, not at every try."""
        if str(error) != self._complaint:
            self._complaint = str(error)
            self._failed(error)

    def _refuse_all(self, refusal: KeystrandError) -> None:
        while self._calls:
            self._settle(self._calls.popleft(), refusal)
        for ticket in list(self._tickets):
            if not ticket.done():
                ticket.set_exception(refusal)
