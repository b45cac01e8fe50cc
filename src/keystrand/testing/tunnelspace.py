"""The agreement of two tunnel ends, state by state: every order of events within stated bounds, none left out.

`python -m keystrand.testing.tunnelspace --lost 1 --restarted 1`

An event is a word that arrives (in any order), is lost or comes twice; a step that ends well or fails; a process that is
restarted while its daemon goes on; a channel that breaks; a clock that moves on, each end's for itself, so that skew and drift
need no event of their own. Bounds limit how many disturbances one history has, not when they happen. Times are told apart as
far as they matter to an end. From each state that is reached, peace must lead to a fresh key in use at both ends.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from keystrand.transport.tunnel.agreement import Action, End, Output, Pace, Report, Verb
from keystrand.transport.tunnel.contract import Role
from keystrand.transport.tunnel.messages import Message

PACE = Pace(rotate_s=20.0, repeat_s=1.0, give_up_s=8.0, retry_s=1.0)
ROLES: tuple[Role, Role] = ("initiator", "responder")
STEPS_S = (1.0, 8.0)  # until something is said again; until something is given up
HIGHEST_MAX = 3  # generations in one history
PEACE_ROUNDS = 120
AGE_MAX_S = 25.0  # older than that is as old as any
KEEPS = frozenset({Verb.RETIRE, Verb.DROP})


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many of each one history may have."""

    lost: int = 0
    twice: int = 0
    failed: int = 0
    restarted: int = 0
    broken: int = 0
    waited: int = 2

    def less(self, name: str) -> Bounds | None:
        left = getattr(self, name)
        return replace(self, **{name: left - 1}) if left else None


@dataclass(slots=True)
class Space:
    """Both ends, their daemons, what is on its way and what is being done."""

    bounds: Bounds
    ends: dict[Role, End] = field(default_factory=dict)
    now_s: dict[Role, float] = field(default_factory=lambda: {"initiator": 0.0, "responder": 0.0})
    wire: tuple[tuple[Role, Message], ...] = ()
    doing: dict[Role, Action | None] = field(default_factory=dict)
    installed: dict[Role, dict[int, str]] = field(default_factory=lambda: {"initiator": {}, "responder": {}})
    fetched: dict[Role, dict[int, str]] = field(default_factory=lambda: {"initiator": {}, "responder": {}})
    in_use: int = 0
    drawn: int = 0

    def copy(self, bounds: Bounds) -> Space:
        return Space(
            bounds,
            {role: _copy(end) for role, end in self.ends.items()},
            dict(self.now_s),
            self.wire,
            dict(self.doing),
            {role: dict(keys) for role, keys in self.installed.items()},
            {role: dict(keys) for role, keys in self.fetched.items()},
            self.in_use,
            self.drawn,
        )

    def take(self, role: Role, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, Action):
                assert self.doing[role] is None, "one thing at a time"
                self.doing[role] = output
            elif not isinstance(output, Report):
                self.wire = (*self.wire, (_other(role), output))

    def key(self) -> tuple[object, ...]:
        """What makes two histories the same from here on."""
        return (
            self.bounds,
            *(_seen(self.ends[role], self.now_s[role]) for role in ROLES),
            frozenset((item, self.wire.count(item)) for item in self.wire),
            *(self.doing[role] for role in ROLES),
            *(frozenset(self.installed[role].items()) for role in ROLES),
            *(frozenset(self.fetched[role].items()) for role in ROLES),
            self.in_use,
            self.drawn,
        )

    # events ----------------------------------------------------------------------------------------------------------

    def next(self) -> Iterator[Space]:
        for at in range(len(self.wire)):
            if self.wire.index(self.wire[at]) == at:
                yield from self._word(at)
        for role in ROLES:
            if self.doing[role] is not None:
                yield from self._ends_of(role)
            for step_s in STEPS_S:
                if (bounds := self.bounds.less("waited")) is not None:
                    after = self.copy(bounds)
                    after.tick(role, step_s)
                    yield after
            if (bounds := self.bounds.less("restarted")) is not None:
                after = self.copy(bounds)
                after.restart(role)
                yield after
        if (bounds := self.bounds.less("broken")) is not None:
            after = self.copy(bounds)
            after.reconnect()
            yield after

    def _word(self, at: int) -> Iterator[Space]:
        role, message = self.wire[at]
        rest = self.wire[:at] + self.wire[at + 1 :]
        arrived = self.copy(self.bounds)
        arrived.wire = rest
        arrived.take(role, arrived.ends[role].hear(message, arrived.now_s[role]))
        yield arrived
        if (bounds := self.bounds.less("lost")) is not None:
            lost = self.copy(bounds)
            lost.wire = rest
            yield lost
        if (bounds := self.bounds.less("twice")) is not None:
            twice = self.copy(bounds)
            twice.wire = (*self.wire, self.wire[at])
            yield twice

    def _ends_of(self, role: Role) -> Iterator[Space]:
        well = self.copy(self.bounds)
        well.finish(role)
        yield well
        action = self.doing[role]
        assert action is not None
        if action.verb not in KEEPS and (bounds := self.bounds.less("failed")) is not None:
            badly = self.copy(bounds)
            badly.finish(role, problem="bad luck")
            yield badly

    def finish(self, role: Role, problem: str = "") -> None:
        action, self.doing[role] = self.doing[role], None
        assert action is not None
        key_id = ""
        if not problem:
            problem, key_id = self._perform(role, action)
        self.take(role, self.ends[role].done(action, self.now_s[role], key_id=key_id, problem=problem))

    def _perform(self, role: Role, action: Action) -> tuple[str, str]:
        here, there, number = self.installed[role], self.installed[_other(role)], action.number
        match action.verb:
            case Verb.DRAW:
                self.drawn += 1
                self.fetched[role][number] = f"k{self.drawn}"
                return "", f"k{self.drawn}"
            case Verb.FETCH:
                self.fetched[role][number] = action.key_id
            case Verb.PREPARE:
                here[number] = self.fetched[role][number]
            case Verb.ACTIVATE:
                if there.get(number) != here[number]:
                    return "no handshake", ""
                self.in_use = number
            case Verb.CONFIRM if self.in_use != number:
                return "not seen", ""
            case Verb.RETIRE:
                self.installed[role] = {n: key for n, key in here.items() if n >= number}
            case Verb.DROP:
                here.pop(number, None)
        return "", ""

    def tick(self, role: Role, step_s: float) -> None:
        self.now_s[role] += step_s
        self.take(role, self.ends[role].tick(self.now_s[role]))

    def restart(self, role: Role) -> None:
        """The process is killed and comes back with the number that it kept; its daemon goes on."""
        highest = self.ends[role].highest
        self.ends[role] = End("t", role, PACE, highest=highest, since_s=self.now_s[role])
        self.doing[role] = None
        self.fetched[role] = {}
        self.reconnect()

    def reconnect(self) -> None:
        """The channel breaks: what was on its way on it is gone; it is there again."""
        self.wire = ()
        for role in ROLES:
            self.take(role, self.ends[role].down(self.now_s[role]))
        for role in ROLES:
            self.take(role, self.ends[role].up(self.now_s[role]))

    # what must hold --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """I7: what is in use is held by both daemons, as the same key; I1: a key has one number."""
        if self.in_use:
            keys = {self.installed[role].get(self.in_use) for role in ROLES}
            assert len(keys) == 1, (self.in_use, self.installed)
            assert None not in keys, (self.in_use, self.installed)
        for keys_of in self.installed.values():
            assert len(set(keys_of.values())) == len(keys_of), keys_of

    def settles(self) -> bool:
        """In peace: does a fresh key come into use at both ends, and do they know?"""
        before = max(end.highest for end in self.ends.values())
        for _ in range(PEACE_ROUNDS):
            for role in ROLES:
                while self.doing[role] is not None:
                    self.finish(role)
            waiting, self.wire = self.wire, ()
            for role, message in waiting:
                self.take(role, self.ends[role].hear(message, self.now_s[role]))
            self.check()
            if not len(self.wire) + sum(action is not None for action in self.doing.values()):
                currents = {end.current for end in self.ends.values()}
                if currents == {self.in_use} and self.in_use > before:
                    return not any(end.coming for end in self.ends.values())
                for role in ROLES:
                    self.tick(role, 1.0)
        return False


def _other(role: Role) -> Role:
    return "responder" if role == "initiator" else "initiator"


def _copy(end: End) -> End:
    coming = replace(end.coming) if end.coming is not None else None
    return replace(end, coming=coming, _todo=deque(end._todo), _out=[])


def _seen(end: End, now_s: float) -> tuple[object, ...]:
    def age(then_s: float) -> float:
        return min(now_s - then_s, AGE_MAX_S)

    coming = end.coming
    told = None
    if coming is not None:
        ages = age(coming.since_s), age(coming.said_s), bool(coming.used_s), age(coming.used_s)
        told = (coming.number, coming.stage, coming.key_id, *ages)
    return (
        (end.highest, end.current, age(end.since_s), end.connected, told, tuple(end._todo), end._busy),
        (max(end._retry_s - now_s, 0.0), age(end._joined_s), end._spoilt, end._wanted, end.blocked),
    )


def begin(bounds: Bounds) -> Space:
    space = Space(bounds, {role: End("t", role, PACE) for role in ROLES}, doing=dict.fromkeys(ROLES))
    for role in ROLES:
        space.take(role, space.ends[role].up(0.0))
    return space


def explore(bounds: Bounds, *, share: int) -> tuple[int, int]:
    """How many states there are, and how many of them were brought to peace (each `share`-th). Raises AssertionError."""
    first = begin(bounds)
    seen = {hash(first.key())}
    queue, settled = deque([first]), 0
    while queue:
        space = queue.popleft()
        space.check()
        if len(seen) % share == 0:
            settled += 1
            after = space.copy(Bounds())
            assert after.settles(), f"no agreement from {space}"
        for following in space.next():
            if max(end.highest for end in following.ends.values()) > HIGHEST_MAX:
                continue
            key = hash(following.key())
            if key not in seen:
                seen.add(key)
                queue.append(following)
    return len(seen), settled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, most in (("lost", 1), ("twice", 0), ("failed", 1), ("restarted", 1), ("broken", 0), ("waited", 1)):
        parser.add_argument(f"--{name}", type=int, default=most)
    parser.add_argument("--share", type=int, default=20, help="each so-many-th state is brought to peace")
    words = vars(parser.parse_args())
    share, began_s = words.pop("share"), time.monotonic()
    states, settled = explore(Bounds(**words), share=share)
    print(f"{states} states, {settled} of them brought to peace, 0 violations, {time.monotonic() - began_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
