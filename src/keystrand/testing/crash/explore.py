"""Cut every operation short at every write, in every way that a crash can; judge the lives that follow."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import select
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from keystrand.core.errors import KeystrandError
from keystrand.testing.crash.disk import Loss, Moment, Recording
from keystrand.testing.crash.sitting import DiskSitting
from keystrand.testing.crash.vfs import content_of
from keystrand.testing.crash.world import SOUND, Bug, CrashWorld

HARNESS = "harness: "  # begins what is wrong with the test itself
LIFE_LIMIT_S = 60
LANES = 2  # lives at a time, beside the world that they split off from
WORLD_S = 900.0  # of virtual time per seed
STATES_MAX = 2  # before and after
SEVERAL_TRANSACTIONS = ("found", "open")  # a store in the making holds other times after each crash
LIVES_MORE = 0.05
HEAD_START = 40  # points that any operation may have before it must wait for the others


@dataclass(frozen=True, slots=True)
class Point:
    """One crash: in the operation `occurrence` of its name in this seed, before act `act` of `acts`, losing this much."""

    seed: int
    operation: str
    occurrence: int
    act: int
    acts: int
    loss: Loss

    def __str__(self) -> str:
        place = f"{self.operation} #{self.occurrence} at act {self.act} of {self.acts}"
        return f"seed {self.seed}: {place}, {self.loss.value}"


@dataclass(slots=True)
class Tally:
    """What was tried, and what was found. points: (operation, loss) -> crashes."""

    points: Counter[tuple[str, Loss]] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)  # how often each was cut short, at all of its acts
    lives: Counter[str] = field(default_factory=Counter)  # after how many of these crashes the pair went on living
    found: list[tuple[Point, list[str]]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.points += other.points
        self.operations += other.operations
        self.lives += other.lives
        self.found += other.found

    @property
    def total(self) -> int:
        return self.points.total()

    def of(self, operation: str) -> int:
        return sum(self.points[operation, loss] for loss in Loss)


class Forks:
    """At most `lanes` processes at a time, each a copy of this one that does one thing and says what it found."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._running: dict[int, tuple[int, Point, bytes]] = {}  # pipe -> process, what it tries, what it said so far
        self.done: list[tuple[Point, list[str]]] = []

    def submit(self, point: Point, work: Callable[[], list[str]]) -> None:
        while len(self._running) >= self._lanes:
            self._collect()
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            _child(writing, work)
        os.close(writing)
        self._running[reading] = (process, point, b"")

    def _collect(self) -> None:
        for pipe in select.select(list(self._running), [], [])[0]:
            process, point, said = self._running[pipe]
            if part := os.read(pipe, 65_536):
                self._running[pipe] = (process, point, said + part)
                continue
            del self._running[pipe]
            os.close(pipe)
            _, status = os.waitpid(process, 0)
            violations = json.loads(said) if said else [f"{HARNESS}ended with status {status} and said nothing"]
            self.done.append((point, violations))

    def finish(self) -> None:
        while self._running:
            self._collect()


def _child(writing: int, work: Callable[[], list[str]]) -> None:
    """Never returns."""
    gc.disable()
    signal.alarm(LIFE_LIMIT_S)
    try:
        said = work()
    except BaseException:
        said = [f"{HARNESS}{traceback.format_exc()}"]
    with contextlib.suppress(OSError), open(writing, "w") as pipe:
        pipe.write(json.dumps(said[:20]))
    os._exit(0)


class Enough(Exception):
    """As many points as were wanted."""


class Explorer:
    """Chooses what to cut short, so that no operation is left behind. wanted: points. first_only: or the first violation."""

    def __init__(self, tally: Tally, *, wanted: int, first_only: bool = False) -> None:
        self.tally = tally
        self.wanted = wanted
        self._first_only = first_only
        self._forks = Forks(LANES)
        self._seen: Counter[str] = Counter()
        self.world: CrashWorld | None = None
        self.seed = 0

    def explore(self, sitting: DiskSitting, operation: str, recording: Recording) -> None:
        self._seen[operation] += 1
        if self._is_ahead(operation):
            return
        self.tally.operations[operation] += 1
        contents: set[bytes] = set()
        for number in range(len(recording.acts) + 1):
            moment = recording.moment(number)
            for loss in moment.losses():
                point = Point(self.seed, operation, self._seen[operation], number, len(recording.acts), loss)
                self._try(sitting.name, point, moment, contents)
        self._take()

    def _try(self, name: str, point: Point, moment: Moment, contents: set[bytes]) -> None:
        """One crash. What the store holds after it is the state before the operation or the state after it, nothing else.

        Lives are the same after crashes that leave the same, so that one is lived for each, and a few more to be sure.
        """
        chance = random.Random(str(point))  # noqa: S311
        image = moment.after(point.loss, chance)
        self.tally.points[point.operation, point.loss] += 1
        try:
            content = content_of(image)
        except KeystrandError as error:
            self.tally.found.append((point, [f"I3: the store does not open: {error}"]))
            return
        several = point.operation in SEVERAL_TRANSACTIONS
        is_new = content not in contents and not several
        contents.add(content)
        if len(contents) > STATES_MAX and not several:
            self.tally.found.append((point, ["I3: a part of the transaction is there, and a part is not"]))
        if is_new or chance.random() < LIVES_MORE:
            self.tally.lives[point.operation] += 1
            self._forks.submit(point, lambda: self._life(name, image))

    def _is_ahead(self, operation: str) -> bool:
        """Whether this operation has had its share: as many points as all have on average, and some more."""
        kinds = max(1, len(self._seen))
        return self.tally.of(operation) > self.tally.total / kinds + HEAD_START

    def _life(self, name: str, image: dict[str, bytearray]) -> list[str]:
        assert self.world is not None
        return self.world.crash_into(name, image)

    def _take(self) -> None:
        done, self._forks.done = self._forks.done, []
        for point, said in done:
            if said and said[0].startswith(HARNESS):
                raise RuntimeError(f"{point}: {said[0]}")
        self.tally.found += [(point, said) for point, said in done if said]
        if self.tally.total >= self.wanted or (self._first_only and self.tally.found):
            raise Enough

    def run(self, seed: int, bug: Bug = SOUND) -> None:
        """One seed. Raises Enough."""
        self.seed = seed
        self._seen.clear()
        self.world = CrashWorld(seed, explore=self.explore, bug=bug)
        try:
            self.world.live(WORLD_S)
        finally:
            self._forks.finish()
            self.world.end()
            with contextlib.suppress(Enough):
                self._take()
        if violations := self.world.judge.violations:
            self.tally.found.append((Point(seed, "life", 0, 0, 0, Loss.EXIT), list(violations)))


def crash_points(wanted: int, seed: int = 0, *, step: int = 1) -> Tally:
    """Try `wanted` crash points in the worlds of `seed`, `seed + step` and so on."""
    tally = Tally()
    explorer = Explorer(tally, wanted=wanted)
    with contextlib.suppress(Enough):
        while True:
            explorer.run(seed)
            seed += step
    return tally
