"""How long a caller waits to be refused while a required audit sink hangs: in virtual time, the same on any machine."""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_engine_overlap import Bench, SlowDisk

from keystrand.core.errors import KeystrandError, StoreUnavailable
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.node import engine
from keystrand.observe import sinks
from keystrand.observe.sinks import AuditSink, AuditSinks
from keystrand.observe.sinks_lines import json_line
from keystrand.observe.sinks_ways import FileWay
from keystrand.store.sqlite import SqliteStore

CALLS = 200
DEADLINE_S = 0.25  # of the sink, and of whoever is refused


class JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Never waits: where nothing is ready, the time until something is due has passed."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and timeout:
            self.now_s += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now_s


class HangingFile(FileWay):
    """A file on a disk that answers nothing, until the test is over."""

    def __init__(self, path: Path, over: threading.Event) -> None:
        super().__init__(path)
        self._over = over

    def write(self, lines: list[bytes], last: int) -> None:
        self._over.wait()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = SqliteStore(tmp_path / "state" / "site.db", Sealer(RootKey.generate()))
    bench, over = Bench(store, SlowDisk(store)), threading.Event()
    sink = AuditSink(
        "copy",
        HangingFile(tmp_path / "copy", over),
        lambda row: json_line(row) + b"\n",
        tmp_path / "mark",
        required=True,
        deadline_s=DEADLINE_S,
    )
    bench.engine.gate = AuditSinks([sink], store, lambda name, why: None)
    yield bench
    over.set()
    sink.close()
    store.close()


def refusals_s(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each call waited to be refused; calls come at any instant of a refusal."""
    rng, waited_s = random.Random(7), list[float]()

    async def call(loop: asyncio.AbstractEventLoop, after_s: float) -> None:
        await asyncio.sleep(after_s)
        began_s = loop.time()
        with pytest.raises(KeystrandError, match="audit sink"):
            await bench.note("anything")
        waited_s.append(loop.time() - began_s)

    async def play() -> None:
        loop = asyncio.get_running_loop()
        clock = types.SimpleNamespace(monotonic=loop.time)
        monkeypatch.setattr(engine, "time", clock)
        monkeypatch.setattr(sinks, "time", clock)
        running = asyncio.create_task(bench.engine.run())
        await asyncio.gather(*(call(loop, rng.uniform(0, 2)) for _ in range(CALLS)))
        running.cancel()
        await asyncio.wait([running])

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(play())
    assert bench.sent == [], "I4: nothing leaves whose record the sink does not have"
    burnt = [row for row in bench.store.audit_rows(0, 2**31) if json.loads(row[1])["kind"] == "key.burnt"]
    assert len(bench.let_out) == len(burnt) > 0, "what is in the log is told here, once"
    return waited_s


@pytest.mark.proves("R096", "R098")
def test_I4_a_sink_that_hangs_refuses_everybody_within_its_deadline(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_s = refusals_s(bench, monkeypatch)
    assert len(waited_s) == CALLS
    assert max(waited_s) <= DEADLINE_S
    assert max(waited_s) > 0.0, "somebody waited for the sink"


def test_a_gate_that_waits_for_too_long_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "GATE_SHARE", 1.2)
    assert max(refusals_s(bench, monkeypatch)) > DEADLINE_S


class Moody:
    """A gate that is closed for one reason, then for another, at every try, and opens."""

    def __init__(self) -> None:
        self.reasons = ["hangs"] + 5 * ["is gone"]

    async def written(self, since_s: float) -> KeystrandError | None:
        return StoreUnavailable(f"audit sink copy {self.reasons.pop(0)}") if self.reasons else None


async def test_each_reason_of_a_closed_gate_is_said_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state" / "site.db", Sealer(RootKey.generate()))
    bench = Bench(store, SlowDisk(store))
    bench.engine.gate = Moody()
    running = asyncio.create_task(bench.engine.run())
    for _ in range(2):  # the second time it closes, it is said again
        with pytest.raises(KeystrandError, match="audit sink"):
            await bench.note("anything")
        async with asyncio.timeout(20):
            while bench.engine._refusal is not None:
                await asyncio.sleep(0.02)
        bench.engine.gate.reasons = ["hangs", "hangs"]
    running.cancel()
    await asyncio.wait([running])
    store.close()
    assert bench.failed == ["audit sink copy hangs", "audit sink copy is gone", "audit sink copy hangs"]
