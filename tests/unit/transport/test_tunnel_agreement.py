"""Two ends of a tunnel under every order of losses, echoes, failures and restarts that the walks reach."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from keystrand.transport.tunnel.agreement import Action, End, Output, Pace, Report, Verb
from keystrand.transport.tunnel.contract import Role
from keystrand.transport.tunnel.messages import Message, decode, encode

PACE = Pace(rotate_s=20.0, repeat_s=1.0, give_up_s=8.0, retry_s=1.0)


@dataclass
class Daemon:
    """The data plane of one end: it outlives the process that steers it."""

    installed: dict[int, str] = field(default_factory=dict)
    in_use: int = 0


@dataclass
class Wire:
    """Two ends, the messages on their way, and what they are doing."""

    rng: random.Random
    failing: float = 0.0
    now_s: float = 0.0
    ends: dict[Role, End] = field(default_factory=dict)
    daemons: dict[Role, Daemon] = field(default_factory=dict)
    on_way: list[tuple[Role, bytes]] = field(default_factory=list)
    doing: dict[Role, Action | None] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    fetched: dict[Role, dict[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role in ("initiator", "responder"):
            self.ends[role] = End("t", role, PACE)
            self.daemons[role] = Daemon()
            self.doing[role] = None
            self.fetched[role] = {}
        for role in ("initiator", "responder"):
            self.take(role, self.ends[role].up(self.now_s))

    def other(self, role: Role) -> Role:
        return "responder" if role == "initiator" else "initiator"

    def take(self, role: Role, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, Action):
                assert self.doing[role] is None
                self.doing[role] = output
            elif isinstance(output, Report):
                self.reports.append(output)
            else:
                self.on_way.append((self.other(role), encode(output)))

    def finish(self, role: Role) -> None:
        action, self.doing[role] = self.doing[role], None
        assert action is not None
        problem, key_id = "", ""
        if self.rng.random() < self.failing and action.verb not in (Verb.RETIRE, Verb.DROP):
            problem = "bad luck"
        else:
            problem, key_id = self.perform(role, action)
        self.check()
        self.take(role, self.ends[role].done(action, self.now_s, key_id=key_id, problem=problem))

    def perform(self, role: Role, action: Action) -> tuple[str, str]:
        daemon, there = self.daemons[role], self.daemons[self.other(role)]
        if action.verb is Verb.DRAW:
            key_id = f"key-{len(self.keys)}"
            self.keys[key_id] = action.number
            self.fetched[role][action.number] = key_id
            return "", key_id
        if action.verb is Verb.FETCH:
            self.fetched[role][action.number] = action.key_id
        elif action.verb is Verb.PREPARE:
            daemon.installed[action.number] = self.fetched[role][action.number]
        elif action.verb is Verb.ACTIVATE:
            if there.installed.get(action.number) != daemon.installed[action.number]:
                return "no handshake", ""
            daemon.in_use = there.in_use = action.number
        elif action.verb is Verb.CONFIRM:
            if daemon.in_use != action.number:
                return "not seen", ""
        elif action.verb is Verb.RETIRE:
            daemon.installed = {n: key for n, key in daemon.installed.items() if n >= action.number}
        elif action.verb is Verb.DROP:
            daemon.installed.pop(action.number, None)
        return "", ""

    def check(self) -> None:
        """Traffic flows: what is in use is held by both ends, as the same key."""
        initiator, responder = self.daemons["initiator"], self.daemons["responder"]
        assert initiator.in_use == responder.in_use
        if initiator.in_use:
            key = initiator.installed.get(initiator.in_use)
            assert key is not None
            assert key == responder.installed.get(initiator.in_use)

    def restart(self, role: Role) -> None:
        """The process is killed and comes back; what it said last may still be on its way."""
        highest = self.ends[role].highest
        self.ends[role] = End("t", role, PACE, highest=highest)
        self.doing[role] = None
        self.fetched[role].clear()
        for each in (role, self.other(role)):
            self.take(each, self.ends[each].down(self.now_s))
        for each in (role, self.other(role)):
            self.take(each, self.ends[each].up(self.now_s))

    def step(self, *, loss: float, restarts: float) -> None:
        busy = [role for role in self.doing if self.doing[role] is not None]
        if busy and self.rng.random() < 0.5:
            self.finish(self.rng.choice(busy))
        elif self.on_way and self.rng.random() < 0.7:
            at = self.rng.randrange(len(self.on_way))
            role, frame = self.on_way.pop(at)
            if self.rng.random() < loss / 2:
                self.on_way.append((role, frame))  # it comes once more
            if self.rng.random() >= loss:
                self.take(role, self.ends[role].hear(decode(frame), self.now_s))
        elif self.rng.random() < restarts:
            self.restart(self.rng.choice(("initiator", "responder")))
        else:
            self.now_s += self.rng.choice((0.1, 1.0, 5.0))
            for role in self.ends:
                self.take(role, self.ends[role].tick(self.now_s))
        self.check()


def walk(seed: int, steps: int, *, loss: float, failing: float, restarts: float) -> Wire:
    wire = Wire(random.Random(seed), failing)
    for _ in range(steps):
        wire.step(loss=loss, restarts=restarts)
    return wire


@pytest.mark.parametrize("seed", range(40))
def test_i7_traffic_never_loses_its_key_and_both_ends_arrive_at_one(seed: int) -> None:
    """Faults for a while, then peace: the last generation is in use at both ends, and nothing older is left."""
    for part in range(12):
        wire = walk(12 * seed + part, 400, loss=0.3, failing=0.15, restarts=0.03)
        wire.failing = 0.0
        for role in ("initiator", "responder"):
            wire.take(role, wire.ends[role].down(wire.now_s))
            wire.take(role, wire.ends[role].up(wire.now_s))
        before = max(end.highest for end in wire.ends.values())
        for _ in range(3000):
            wire.step(loss=0.0, restarts=0.0)
            currents = {end.current for end in wire.ends.values()}
            if len(currents) == 1 and min(currents) > before and not any(end.coming for end in wire.ends.values()):
                break
        else:
            pytest.fail(f"no agreement: {wire.ends}")
        assert wire.daemons["initiator"].in_use in currents
        assert any(report.kind == "rotated" for report in wire.reports)


def test_a_quiet_wire_rotates_in_step_and_on_time() -> None:
    wire = Wire(random.Random(1))
    while wire.now_s < 1000.0:
        for role in [role for role, action in wire.doing.items() if action is not None]:
            wire.finish(role)
        waiting, wire.on_way = wire.on_way, []
        for role, frame in waiting:
            wire.take(role, wire.ends[role].hear(decode(frame), wire.now_s))
        if not wire.on_way and not any(wire.doing.values()):
            wire.now_s += 1.0
            for role in wire.ends:
                wire.take(role, wire.ends[role].tick(wire.now_s))
    assert {report.kind for report in wire.reports} == {"rotated"}
    assert [report.number for report in wire.reports] == [n for n in range(1, 51) for _ in range(2)]


def drive(end: End, outputs: list[Output], problem: dict[Verb, str], now_s: float = 0.0) -> list[Message | Report]:
    """Do at once whatever the end wants; what is left are its words."""
    said: list[Message | Report] = []
    while outputs:
        following: list[Output] = []
        for output in outputs:
            if isinstance(output, Action):
                key_id = "k" if output.verb is Verb.DRAW else ""
                following += end.done(output, now_s, key_id=key_id, problem=problem.get(output.verb, ""))
            else:
                said.append(output)
        outputs = following
    return said


def test_an_old_key_stops_traffic_where_the_policy_says_so() -> None:
    end = End("t", "initiator", Pace(rotate_s=10.0, hold_s=30.0), current=4, highest=4)
    end.connected = True
    assert not drive(end, end.tick(9.0), {Verb.DRAW: "pool empty"}, 9.0)
    assert [s.kind for s in drive(end, end.tick(11.0), {Verb.DRAW: "pool empty"}, 11.0) if isinstance(s, Report)] == [
        "missed"
    ]
    said = drive(end, end.tick(30.0), {Verb.DRAW: "pool empty"}, 30.0)
    assert [s.kind for s in said if isinstance(s, Report)] == ["blocked", "missed"]
    assert end.blocked


def test_a_responder_that_cannot_have_the_key_says_so_and_the_tunnel_stays_as_it_is() -> None:
    wire = Wire(random.Random(3), failing=1.0)
    for _ in range(200):
        wire.step(loss=0.0, restarts=0.0)
    assert wire.daemons["initiator"].in_use == 0
    assert all(report.kind == "missed" for report in wire.reports)
    wire.failing = 0.0
    for _ in range(400):
        wire.step(loss=0.0, restarts=0.0)
    assert wire.ends["responder"].current > 0


def test_a_responder_keeps_what_the_initiator_may_be_using_however_long_it_hears_nothing() -> None:
    wire = Wire(random.Random(4))
    while True:
        for role in [role for role, action in wire.doing.items() if action is not None]:
            wire.finish(role)
        if wire.daemons["initiator"].in_use:
            break  # what it says of that gets lost
        waiting, wire.on_way = wire.on_way, []
        for role, frame in waiting:
            wire.take(role, wire.ends[role].hear(decode(frame), wire.now_s))
    for _ in range(100):
        wire.on_way.clear()
        wire.now_s += 1.0
        for role in wire.ends:
            wire.take(role, wire.ends[role].tick(wire.now_s))
            if wire.doing[role] is not None:
                wire.finish(role)
    assert wire.ends["responder"].current == 0
    assert wire.daemons["responder"].installed
