"""The next transaction is open while the last one is on its way to the disk, and nothing leaves that is not there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from keystrand.core.errors import KeystrandError, StoreUnavailable
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy
from keystrand.crypto.combine import StrandCombiner
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.kme.service import Kme
from keystrand.kme.site import Effect, Emit, Send, Site
from keystrand.node.engine import Engine
from keystrand.observe.audit import AuditLog
from keystrand.store.sqlite import SqliteStore
from keystrand.testing.clock import SeededEntropy, VirtualClock
from keystrand.testing.kem import ToyKem
from keystrand.testing.patience import until
from keystrand.wire.peer import Heard

DEADLINE_S = 60.0
LOG_PAGES_MAX = 20


class SlowDisk:
    """A store whose syncs wait until the test lets one pass. spoilt, worn: what the next sync, the next move says instead."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._passes = threading.Semaphore(0)
        self.spoilt = self.worn = ""
        self.moved_by: set[int] = set()  # threads
        self.writing_began = 0

    def let_pass(self, syncs: int = 1) -> None:
        self._passes.release(syncs)

    def writing(self) -> AbstractContextManager[None]:
        self.writing_began += 1
        return self._store.writing()

    def sync(self) -> None:
        assert self._passes.acquire(timeout=DEADLINE_S)
        if self.spoilt:
            raise StoreUnavailable(self.spoilt)
        self._store.sync()

    def log_is_long(self) -> bool:
        return self._store.log_is_long()

    def shorten(self) -> None:
        self.moved_by.add(threading.get_ident())
        if self.worn:
            raise StoreUnavailable(self.worn)
        self._store.shorten()


@dataclass
class Bench:
    """An engine over a real file, and what it let out."""

    store: SqliteStore
    disk: SlowDisk
    let_out: list[str] = field(default_factory=list)
    sent: list[Send] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = Engine(
            self._kme, self._perform, lambda error: self.failed.append(str(error)), lambda: None, disk=self.disk
        )

    def _kme(self) -> Kme:
        clock, entropy = VirtualClock(), SeededEntropy("engine")
        site = Site(
            name="alpha",
            kme_id="kme-alpha",
            peer_kme_ids={},
            links=(),
            policy=Policy.of((), {}),
            limits=Limits(),
            store=self.store,
            audit_trail=AuditLog(self.store, clock, "alpha"),
            kem=ToyKem(entropy),
            combiner=StrandCombiner(),
            clock=clock,
            entropy=entropy,
        )
        return Kme(site)

    def _perform(self, effects: list[Effect]) -> None:
        events = [effect.event for effect in effects if isinstance(effect, Emit)]
        self.let_out += [str(event.fields["reason"]) for event in events if event.kind == "key.burnt"]
        self.sent += [effect for effect in effects if isinstance(effect, Send)]

    def note(self, reason: str) -> asyncio.Future[int]:
        """A call that leaves a record, an event, and a message when it is let out; its answer: the records there are then."""

        def operation(kme: Kme) -> int:
            kme.site.note("key.burnt", reason=reason)
            kme.site.send("bravo", Heard(notice_id=reason))
            return self.store.audit_head()[0]

        return self.engine.call(operation)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = SqliteStore(tmp_path / "state" / "site.db", Sealer(RootKey.generate()))
    yield Bench(store, SlowDisk(store))
    store.close()


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Bench]:
    """The same with a log that is soon long."""
    store = SqliteStore(tmp_path / "state" / "site.db", Sealer(RootKey.generate()), log_pages_max=LOG_PAGES_MAX)
    yield Bench(store, SlowDisk(store))
    store.close()


@contextlib.asynccontextmanager
async def running(bench: Bench):  # type: ignore[no-untyped-def]
    task = asyncio.create_task(bench.engine.run())
    try:
        yield task
    finally:
        bench.disk.let_pass(100)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_I3_I4_nothing_leaves_before_its_sync_and_calls_join_meanwhile(bench: Bench) -> None:
    async def play() -> None:
        first_size = bench.store.audit_head()[0]
        async with running(bench):
            first = bench.note("one")
            await until(lambda: bench.engine._landing is not None)
            second = bench.note("two")
            await until(lambda: bench.store.audit_head()[0] == first_size + 2)  # its logic ran already
            third = bench.note("three")
            await until(lambda: bench.store.audit_head()[0] == first_size + 3)
            assert bench.store._db.in_transaction  # and is not committed: the one before it is not durable
            assert not any(call.done() for call in (first, second, third))
            assert not bench.let_out
            bench.disk.let_pass()
            assert await asyncio.wait_for(first, DEADLINE_S) == first_size + 1
            assert bench.let_out == ["one"]
            await until(lambda: not bench.store._db.in_transaction)  # now it may be
            assert not any(call.done() for call in (second, third))
            bench.disk.let_pass()
            assert await asyncio.wait_for(third, DEADLINE_S) == first_size + 3
            assert second.done()
            assert bench.let_out == ["one", "two", "three"]
            assert bench.disk.writing_began == 2

    asyncio.run(play())


def test_I3_a_sync_that_fails_lets_nothing_out_and_takes_back_what_joined(bench: Bench) -> None:
    async def play() -> None:
        size = bench.store.audit_head()[0]
        async with running(bench):
            first = bench.note("one")
            await until(lambda: bench.engine._landing is not None)
            second = bench.note("two")
            await until(lambda: bench.store.audit_head()[0] == size + 2)
            bench.disk.spoilt = "the disk is gone"
            bench.disk.let_pass()
            for refused in (first, second):
                with pytest.raises(StoreUnavailable, match="the disk is gone"):
                    await asyncio.wait_for(refused, DEADLINE_S)
            assert not bench.let_out
            assert bench.failed == ["the disk is gone"]
            bench.disk.spoilt = ""
            bench.disk.let_pass()
            await until(lambda: bench.engine._refusal is None)
            await asyncio.wait_for(bench.note("three"), DEADLINE_S)
            records = [msgspec.json.decode(raw) for _, raw, _ in bench.store.audit_rows(0, 100)]
            # the first one reached the file, which nobody may rely on; the second one never was
            assert [record["reason"] for record in records if record["kind"] == "key.burnt"] == ["one", "three"]

    asyncio.run(play())


def test_a_refused_call_joins_and_is_taken_back_alone(bench: Bench) -> None:
    def refuse(kme: Kme) -> None:
        kme.site.note("key.burnt", reason="refused")
        raise KeystrandError("no")

    async def play() -> None:
        size = bench.store.audit_head()[0]
        async with running(bench):
            bench.disk.let_pass(100)
            calls = [bench.note("one"), bench.engine.call(refuse), bench.note("two")]
            done = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), DEADLINE_S)
            assert done[0] == size + 1
            assert str(done[1]) == "no"
            assert done[2] == size + 2
            assert bench.let_out == ["one", "two"]

    asyncio.run(play())


def test_the_end_waits_for_what_is_on_its_way_and_refuses_what_joined(bench: Bench) -> None:
    async def play() -> None:
        async with running(bench) as task:
            first = bench.note("one")
            await until(lambda: bench.engine._landing is not None)
            second = bench.note("two")
            await until(lambda: bench.disk.writing_began == 2)
            task.cancel()
            await until(second.done)
            with pytest.raises(StoreUnavailable, match="stopping"):
                second.result()
            assert not first.done()
            bench.disk.let_pass()
            await asyncio.wait_for(first, DEADLINE_S)
            assert bench.let_out == ["one"]

    asyncio.run(play())


def test_I4_what_is_on_its_way_still_leaves_where_the_next_transaction_fails(bench: Bench) -> None:
    def fail(kme: Kme) -> None:
        raise StoreUnavailable("the file is full")

    async def play() -> None:
        async with running(bench):
            first = bench.note("one")
            await until(lambda: bench.engine._landing is not None)
            second, third = bench.note("two"), bench.engine.call(fail)
            await until(lambda: bench.disk.writing_began == 2)
            bench.disk.let_pass()
            await asyncio.wait_for(first, DEADLINE_S)
            for refused in (second, third):
                with pytest.raises(StoreUnavailable, match="the file is full"):
                    await asyncio.wait_for(refused, DEADLINE_S)
            assert bench.let_out == ["one"]
            bench.disk.let_pass(100)
            await until(lambda: bench.engine._refusal is None)
            await asyncio.wait_for(bench.note("four"), DEADLINE_S)
            records = [msgspec.json.decode(raw) for _, raw, _ in bench.store.audit_rows(0, 100)]
            assert [record["reason"] for record in records if record["kind"] == "key.burnt"] == ["one", "four"]

    asyncio.run(play())


async def fill(bench: Bench) -> None:
    """Many times what the log may hold: each call writes a page at least."""
    for _ in range(20 * LOG_PAGES_MAX):
        await bench.note("anything")


def test_the_log_is_moved_off_the_loop_while_calls_are_served_and_begins_anew(short: Bench, tmp_path: Path) -> None:
    log = tmp_path / "state" / "site.db-wal"

    async def play() -> None:
        async with running(short):
            short.disk.let_pass(10_000)
            await fill(short)
        assert short.disk.moved_by
        assert threading.get_ident() not in short.disk.moved_by

    asyncio.run(play())
    assert log.stat().st_size < 10 * LOG_PAGES_MAX * 4096, "the log of a busy site is bounded"


def test_a_log_that_cannot_be_moved_refuses_until_the_service_stands_anew(short: Bench) -> None:
    async def play() -> None:
        async with running(short):
            short.disk.let_pass(10_000)
            short.disk.worn = "the file is gone"
            with pytest.raises(StoreUnavailable, match="the file is gone"):
                await fill(short)
            assert short.failed == ["the file is gone"]
            short.disk.worn = ""
            assert await again(short) > 0

    asyncio.run(play())


async def again(bench: Bench) -> int:
    """What a call says once the engine has begun again."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await bench.note("after")
            await asyncio.sleep(0.01)
