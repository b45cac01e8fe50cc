"""Copies of the audit log outside of the store, and the rule that nothing leaves before those that are required have it.

A sink receives every record once it is durable in the store, in order and without gaps: what it missed while it was away is
read from the store again. After a fault it may see some records twice, with the same number and the same head. Each sink has
a thread that may hang as long as its disk or its collector does; nobody waits for it longer than its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from keystrand.core.errors import KeystrandError, StoreUnavailable
from keystrand.observe.audit_verify import Row
from keystrand.observe.sinks_ways import Tail, Way

T = TypeVar("T")
RECORDS_PER_WRITE: Final = 1000
# of the deadline: what is left is for refusing whoever waits
GATE_SHARE: Final = 0.6
WAIT_S_MIN: Final = 0.02
RETRY_S: Final = 0.1

Frame = Callable[[Row], bytes]  # a record as the sink wants it, with its end


class AuditRows(Protocol):
    """What a sink needs of the store."""

    def audit_head(self) -> tuple[int, bytes]: ...
    def audit_rows(self, first: int, limit: int) -> list[Row]: ...


class Worker:
    """A thread that does one thing after the other, and keeps nobody from leaving."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.AbstractEventLoop, asyncio.Future[Any]] | None]
        self._jobs = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    async def do(self, job: Callable[[], T]) -> T:
        """Its result, or what it raised."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._jobs.put((job, loop, answer))
        return await answer

    def stop(self) -> None:
        self._jobs.put(None)

    def _serve(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, loop, answer = entry
            try:
                outcome = partial(_tell, answer, job(), None)
            except Exception as error:  # whoever asked gets it, whatever it is
                outcome = partial(_tell, answer, None, error)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(outcome)


def _tell(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


class AuditSink:
    """One sink: how far it is, and why it is not further.

    mark: a file of ours with the number of the next record and the head before it, so that a restart goes on from there.
    """

    def __init__(self, name: str, way: Way, frame: Frame, mark: Path, *, required: bool, deadline_s: float) -> None:
        self.name = name
        self.required = required
        self.deadline_s = deadline_s
        self.failure = ""
        self.next = 0
        self._way = way
        self._frame = frame
        self._mark = mark
        self._is_open = False
        self._worker = Worker(f"audit sink {name}")
        self._running: asyncio.Task[None] | None = None
        self._retry_s = 0.0

    def advance(self, rows: AuditRows) -> asyncio.Task[None] | None:
        """Have it brought up to the end of the log. None: it is there, or it failed so lately that it rests."""
        if self._running is not None and not self._running.done():
            return self._running
        if self._is_open and self.next >= rows.audit_head()[0]:
            return None
        if self.failure and time.monotonic() < self._retry_s:
            return None
        self._running = asyncio.create_task(self._catch_up(rows))
        return self._running

    def has(self, size: int) -> bool:
        return self._is_open and self.next >= size

    async def _catch_up(self, rows: AuditRows) -> None:
        try:
            if not self._is_open:
                await self._open(rows)
            while portion := rows.audit_rows(self.next, RECORDS_PER_WRITE):
                await self._write(portion)
            self.failure = ""
        except (OSError, KeystrandError) as error:
            self._is_open = False
            hangs = isinstance(error, TimeoutError | BlockingIOError)  # a full queue of those who wait to connect
            self.failure = "does not answer" if hangs else f"{type(error).__name__}: {error}"
            self._retry_s = time.monotonic() + RETRY_S

    async def _open(self, rows: AuditRows) -> None:
        tail = await self._worker.do(self._way.open)
        marked = _read_mark(self._mark)
        for last in (tail, marked):
            _check_same(rows, last, self.name)
        known = tail or marked
        self.next = 0 if known is None else known[0] + 1
        self._is_open = True

    async def _write(self, portion: Sequence[Row]) -> None:
        write = partial(self._write_portion, portion)
        try:
            await self._worker.do(write)
        except ConnectionError:  # it was restarted since the last record: one attempt on a fresh connection
            await self._worker.do(self._way.open)
            await self._worker.do(write)
        self.next = portion[-1][0] + 1

    def _write_portion(self, portion: Sequence[Row]) -> None:
        number, _, head = portion[-1]
        self._way.write([self._frame(row) for row in portion], number)
        _write_mark(self._mark, (number, head.hex()))

    def close(self) -> None:
        """After the last `advance`. A thread that hangs is left to itself."""
        if self._running is not None:
            self._running.cancel()
        self._worker.stop()


def _check_same(rows: AuditRows, last: Tail | None, name: str) -> None:
    """A sink that knows records which the log does not have shows that the store is older than it was."""
    if last is None:
        return
    found = rows.audit_rows(last[0], 1)
    if not found or found[0][0] != last[0] or found[0][2].hex() != last[1]:
        hint = "was the store rolled back? start with --restored, or move the old copy of the log away"
        raise StoreUnavailable(f"sink {name} has a record {last[0]} that this audit log does not have", hint=hint)


def _read_mark(path: Path) -> Tail | None:
    try:
        number, head = path.read_text().split()
        return int(number), head
    except (OSError, ValueError):
        return None


def _write_mark(path: Path, last: Tail) -> None:
    """Not synced: at worst some records are sent again after a crash of the machine."""
    fresh = path.with_suffix(".new")
    with contextlib.suppress(OSError):
        fresh.write_text(f"{last[0]} {last[1]}\n")
        os.replace(fresh, path)


class AuditSinks:
    """All sinks of a site. Satisfies node.engine.Gate. tell: hears of a sink that fails, and of one that is back."""

    def __init__(self, sinks: Iterable[AuditSink], rows: AuditRows, tell: Callable[[str, str], None]) -> None:
        self.sinks = tuple(sinks)
        self._rows = rows
        self._tell = tell
        self._told: dict[str, str] = {}

    async def written(self, since_s: float) -> StoreUnavailable | None:
        """Wait until every required sink has all records; why not, when one has not within its deadline.

        since_s: monotonic time since which somebody waits for the answer.
        """
        size = self._rows.audit_head()[0]
        tasks = [(sink, sink.advance(self._rows)) for sink in self.sinks]
        waits = {task for sink, task in tasks if task is not None and sink.required}
        until_s = since_s + GATE_SHARE * min((s.deadline_s for s in self.sinks if s.required), default=0.0)
        if waits:
            await asyncio.wait(waits, timeout=max(until_s - time.monotonic(), WAIT_S_MIN))
        late = [sink for sink in self.sinks if sink.required and not sink.has(size)]
        self._report()
        if not late:
            return None
        words = "; ".join(f"{sink.name}: {sink.failure or 'does not answer'}" for sink in late)
        return StoreUnavailable(f"audit sink {words}", hint="see docs/runbooks/audit-sink.md")

    def _report(self) -> None:
        for sink in self.sinks:
            was, now = self._told.get(sink.name, ""), sink.failure
            if bool(was) != bool(now):
                self._told[sink.name] = now
                self._tell(sink.name, now)

    async def run(self) -> None:
        """Bring along the sinks that nobody waits for, and all of them while nothing else happens."""
        while True:
            for sink in self.sinks:
                sink.advance(self._rows)
            self._report()
            await asyncio.sleep(RETRY_S)

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()
