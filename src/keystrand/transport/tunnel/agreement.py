"""Which key is next: two ends of a tunnel go through generations in step, with no secret of their own and no race.

initiator                                                   responder
draw a key ── Propose(n, key ID) ─────────────────────────▶ fetch it, prepare
prepare    ◀───────────────────────────────── Prepared(n) ─┘
activate: n is in use
           ── Active(n) ──────────────────────────────────▶ confirm: n is in use; retire n-1
retire n-1 ◀──────────────────────────────── Confirmed(n) ─┘

Both ends hold n before anybody sends under it; n-1 goes last, at the initiator after the responder. Before `activate` has
succeeded a generation can be given up by either end, and traffic stays on n-1; afterwards it cannot. Every message may be lost,
repeated or late. No I/O: an end hears messages, results and the clock, and says what to do.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from keystrand.transport.tunnel.contract import Role
from keystrand.transport.tunnel.messages import Abort, Active, Confirmed, Hello, Message, Prepared, Propose, Refused


class Verb(StrEnum):
    DRAW = "draw"  # a fresh key from the KME; the result names its ID
    FETCH = "fetch"  # the key of this ID
    PREPARE = "prepare"
    ACTIVATE = "activate"
    CONFIRM = "confirm"
    RETIRE = "retire"
    DROP = "drop"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Action:
    """Something that this end has to do, and report by `End.done`. One at a time, in order."""

    verb: Verb
    number: int
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Something that people want to know. kind: rotated, missed, blocked, unblocked (blocking failed)."""

    kind: str
    number: int
    reason: str = ""
    took_s: float = 0.0
    use_s: float = 0.0  # of that, since the key was there


Output = Action | Message | Report


class Stage(StrEnum):
    """Where a generation stands that is not yet in use at both ends."""

    DRAWING = "drawing"
    OFFERED = "offered"
    FETCHING = "fetching"
    PREPARING = "preparing"
    PREPARED = "prepared"  # at the responder, which waits for Active
    ACTIVATING = "activating"
    ACTIVE = "active"  # at the initiator, which waits for Confirmed
    CONFIRMING = "confirming"


STEPS = frozenset({Verb.DRAW, Verb.FETCH, Verb.PREPARE, Verb.ACTIVATE, Verb.CONFIRM})
RETRY_DOUBLED_MAX = 5
REPEATED = frozenset({Stage.OFFERED, Stage.ACTIVE})
FINAL = frozenset({Stage.ACTIVE, Stage.CONFIRMING})  # in use already: cannot be given up
KEPT = FINAL | {
    Stage.ACTIVATING,
    Stage.PREPARED,
}  # about to be in use, or perhaps in use at the other end: no clock ends it


@dataclass(slots=True)
class Coming:
    number: int
    stage: Stage
    since_s: float
    said_s: float
    key_id: str = ""
    used_s: float = 0.0  # since when it is in use here
    had_s: float = 0.0  # since when both KMEs have the key


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds. rotate_s: a fresh key this often; hold_s: a key in use for longer must not carry traffic (0: no end).

    give_up_s: a generation that is not in use after this long is dropped; retry_s: pause before the next try, doubled
    (up to RETRY_DOUBLED_MAX times) for each one in a row that cost a key.
    """

    rotate_s: float = 60.0
    hold_s: float = 0.0
    repeat_s: float = 1.0
    give_up_s: float = 15.0
    retry_s: float = 2.0


@dataclass(slots=True)
class End:
    """One end of one tunnel. `highest`: the last number that was ever used here, kept over restarts by the runner."""

    tunnel: str
    role: Role
    pace: Pace
    highest: int = 0
    current: int = 0  # generation in use, 0: none that we know of
    since_s: float = 0.0  # since when; where none is known: when the last one ended
    blocked: bool = False  # the connector has said that nothing passes
    connected: bool = False
    coming: Coming | None = None
    _todo: deque[Action] = field(default_factory=deque)
    _busy: Action | None = None
    _out: list[Output] = field(default_factory=list)
    _retry_s: float = 0.0
    _joined_s: float = 0.0  # since when the channel stands
    _spoilt: int = 0  # generations in a row that cost a key and came to nothing
    _wanted: bool = False  # somebody asked for a rotation before its time

    @property
    def stopping(self) -> bool:
        """Traffic has to stop, and the order waits behind what is being done."""
        return any(action.verb is Verb.BLOCK for action in self._todo)

    @property
    def halting(self) -> bool:
        """Traffic has to stop, and nobody has said yet that it has: the order waits, or is being carried out."""
        return self.stopping or (self._busy is not None and self._busy.verb is Verb.BLOCK)

    # what happens --------------------------------------------------------------------------------------------------

    def up(self, now_s: float) -> list[Output]:
        """The channel to the other end stands."""
        self.connected, self._joined_s = True, now_s
        self._say(Hello(tunnel=self.tunnel, number=self.highest, current=self.current))
        if self.coming is not None:
            self.coming.said_s = now_s - self.pace.repeat_s
        return self._end(now_s)

    def down(self, now_s: float) -> list[Output]:
        self.connected = False
        return self._end(now_s)

    def want(self, now_s: float) -> list[Output]:
        """Rotate now: bytes under the key, a revocation, a person."""
        self._wanted = True
        return self._end(now_s)

    def lost(self, now_s: float) -> list[Output]:
        """The daemon has forgotten what was in use, as after its restart."""
        self.current = 0
        self._say(Hello(tunnel=self.tunnel, number=self.highest, current=0))
        return self._end(now_s)

    def hear(self, message: Message, now_s: float) -> list[Output]:
        """What does not fit the present state is an echo of an earlier one and changes nothing."""
        match message:
            case Hello():
                self._hear_hello(message, now_s)
            case Propose():
                self._hear_propose(message, now_s)
            case Active():
                self._hear_active(message, now_s)
            case Abort():
                if self._is_coming(message.number) and self.role == "responder":
                    self._drop(f"the initiator gave up: {message.reason or 'see there'}", now_s)
            case Prepared():
                if self._at(Stage.OFFERED, message.number):
                    self._step(Stage.PREPARING, Verb.PREPARE)
            case Refused():
                if self._at(Stage.OFFERED, message.number):
                    self._drop(f"the responder refused: {message.reason}", now_s)
            case Confirmed():
                if self._at(Stage.ACTIVE, message.number):
                    self._finish(now_s)
        return self._end(now_s)

    def done(self, action: Action, now_s: float, *, key_id: str = "", problem: str = "") -> list[Output]:
        """The action that was given out has ended. problem: why it failed."""
        assert action == self._busy, "actions end in the order in which they were given out"
        self._busy = None
        coming = self.coming
        if action.verb is Verb.BLOCK:
            self._hear_of_block(action, problem)
        elif coming is not None and action.number == coming.number and action.verb in STEPS:
            self._advance(coming, action.verb, key_id, problem, now_s)
        return self._end(now_s)

    def tick(self, now_s: float) -> list[Output]:
        coming = self.coming
        if coming is not None:
            if coming.stage not in KEPT and now_s - coming.since_s >= self.pace.give_up_s:
                self._drop("not in use in time", now_s)
            elif self._is_unseen(coming, now_s):
                self._begin_anew(coming, now_s)
            elif coming.stage in REPEATED and now_s - coming.said_s >= self.pace.repeat_s:
                self._repeat(coming, now_s)
        return self._end(now_s)

    def _hear_of_block(self, action: Action, problem: str) -> None:
        """A block that failed is tried again at the next tick."""
        self.blocked = not problem
        why = f"traffic could not be stopped: {problem}" if problem else "no key is young enough to carry traffic"
        self._out.append(Report("unblocked" if problem else "blocked", action.number, why))

    # messages ------------------------------------------------------------------------------------------------------

    def _hear_hello(self, message: Hello, now_s: float) -> None:
        self.highest = max(self.highest, message.number)
        if self._at(Stage.PREPARED, message.current):
            self._follow(now_s)
        elif self.role == "initiator" and message.current != self.current and not self._is_coming(message.current):
            self._wanted = True  # one of us has lost its memory: begin a generation that both know

    def _hear_propose(self, message: Propose, now_s: float) -> None:
        if self.role != "responder":
            return
        coming = self.coming
        if coming is not None and coming.number == message.number:
            if coming.stage is Stage.PREPARED:
                self._say(Prepared(tunnel=self.tunnel, number=coming.number))
            return
        if message.number <= self.highest:
            return  # an echo: it was used or dropped before
        if coming is not None:
            self._overtake(coming)
        self.highest = message.number
        self.coming = Coming(message.number, Stage.FETCHING, now_s, now_s, message.key_id)
        self._do(Verb.FETCH)

    def _overtake(self, coming: Coming) -> None:
        """The initiator has begun anew. It may be using what it forgot: that stays until the next one is in use."""
        self._todo = deque(action for action in self._todo if action.number != coming.number)
        self.coming = None
        self._out.append(Report("missed", coming.number, "the initiator began anew"))

    def _hear_active(self, message: Active, now_s: float) -> None:
        if self._at(Stage.PREPARED, message.number):
            self._follow(now_s)
        elif message.number == self.current and self.role == "responder":
            self._say(Confirmed(tunnel=self.tunnel, number=message.number))
        elif self.role == "responder" and self.coming is None and message.number > self.current:
            # we were restarted in between; our daemon was not: it can tell
            self.highest = max(self.highest, message.number)
            self.coming = Coming(message.number, Stage.CONFIRMING, now_s, now_s, used_s=now_s)
            self._do(Verb.CONFIRM)

    def _follow(self, now_s: float) -> None:
        assert self.coming is not None
        self.coming.used_s = now_s
        self._step(Stage.CONFIRMING, Verb.CONFIRM)

    def _repeat(self, coming: Coming, now_s: float) -> None:
        coming.said_s = now_s
        if coming.stage is Stage.OFFERED:
            self._say(Propose(tunnel=self.tunnel, number=coming.number, key_id=coming.key_id))
        else:
            self._say(Active(tunnel=self.tunnel, number=coming.number))

    # steps ---------------------------------------------------------------------------------------------------------

    def _advance(self, coming: Coming, verb: Verb, key_id: str, problem: str, now_s: float) -> None:
        if problem and coming.stage is Stage.CONFIRMING:
            self._do(Verb.CONFIRM)  # the initiator is on it: look again until it is seen here
        elif problem:
            self._refuse(problem, now_s)
        elif verb is Verb.DRAW:
            coming.key_id, coming.stage, coming.had_s = key_id, Stage.OFFERED, now_s
            self._repeat(coming, now_s)
        elif verb is Verb.FETCH:
            self._step(Stage.PREPARING, Verb.PREPARE)
        elif verb is Verb.PREPARE and self.role == "initiator":
            self._step(Stage.ACTIVATING, Verb.ACTIVATE)
        elif verb is Verb.PREPARE:
            coming.stage = Stage.PREPARED
            self._say(Prepared(tunnel=self.tunnel, number=coming.number))
        elif verb is Verb.ACTIVATE:
            coming.stage, coming.used_s = Stage.ACTIVE, now_s
            self._lift()
            self._repeat(coming, now_s)
        elif verb is Verb.CONFIRM:
            self._lift()
            self._finish(now_s)
            self._say(Confirmed(tunnel=self.tunnel, number=coming.number))

    def _refuse(self, problem: str, now_s: float) -> None:
        assert self.coming is not None
        if self.role == "responder":
            self._say(Refused(tunnel=self.tunnel, number=self.coming.number, reason=problem[:200]))
        self._drop(problem, now_s)

    def _lift(self) -> None:
        """A fresh key is in use: traffic may pass, and an order to stop it that still waits is out of date."""
        self._todo = deque(action for action in self._todo if action.verb is not Verb.BLOCK)
        self.blocked = False

    def _finish(self, now_s: float) -> None:
        """The coming generation is in use at both ends: what was before goes."""
        coming = self.coming
        assert coming is not None
        self._todo.append(Action(Verb.RETIRE, coming.number))
        self.current, self.since_s, self.coming = coming.number, coming.used_s or now_s, None
        self._spoilt = 0
        since_s = coming.had_s or coming.since_s
        self._out.append(Report("rotated", coming.number, took_s=now_s - coming.since_s, use_s=now_s - since_s))

    def _drop(self, reason: str, now_s: float) -> None:
        """Give up the coming generation; traffic stays on the present one."""
        coming = self.coming
        assert coming is not None
        self._todo = deque(action for action in self._todo if action.number != coming.number)
        if self.role == "initiator" and coming.key_id:
            self._say(Abort(tunnel=self.tunnel, number=coming.number, reason=reason[:200]))
        if coming.stage not in (Stage.DRAWING, Stage.FETCHING):
            self._todo.append(Action(Verb.DROP, coming.number))
        self._retry_s = now_s + self.pace.retry_s * 2 ** min(self._spoilt, RETRY_DOUBLED_MAX)
        self._spoilt += bool(coming.key_id)
        self.coming = None
        self._out.append(Report("missed", coming.number, reason))

    def _is_unseen(self, coming: Coming, now_s: float) -> bool:
        """In use here for long, and the other end, which is there, has not said that it follows."""
        since_s = max(coming.used_s, self._joined_s)
        return coming.stage is Stage.ACTIVE and self.connected and now_s - since_s >= self.pace.give_up_s

    def _begin_anew(self, coming: Coming, now_s: float) -> None:
        """The other end's daemon may have lost it, and will never see it. It stays in use here, nothing older goes, and the
        next one is due.
        """
        self.current, self.since_s, self.coming = coming.number, coming.used_s, None
        self._retry_s = now_s + self.pace.retry_s * 2 ** min(self._spoilt, RETRY_DOUBLED_MAX)
        self._spoilt += 1
        self._wanted = True
        self._out.append(Report("missed", coming.number, "the other end does not see it in use"))

    # the end of every turn -----------------------------------------------------------------------------------------

    def _end(self, now_s: float) -> list[Output]:
        """Begin what is due, give out the next action, and return what this turn has said."""
        if self._is_due(now_s):
            self._wanted = False
            self.highest += 1
            self.coming = Coming(self.highest, Stage.DRAWING, now_s, now_s)
            self._do(Verb.DRAW)
        if self._is_too_old(now_s):
            self._todo.appendleft(Action(Verb.BLOCK, self.current))  # nothing that may take long goes before it
        if self._busy is None and self._todo:
            self._busy = self._todo.popleft()
            self._out.append(self._busy)
        out, self._out = self._out, []
        return out

    def _is_due(self, now_s: float) -> bool:
        if self.role != "initiator" or self.coming is not None or not self.connected or now_s < self._retry_s:
            return False
        return self._wanted or not self.current or now_s - self.since_s >= self.pace.rotate_s

    def _is_too_old(self, now_s: float) -> bool:
        """Judged by what carries traffic here, also while the other end has not yet said that it follows."""
        if not self.pace.hold_s or self.blocked or self.halting:
            return False
        coming = self.coming
        since_s = coming.used_s if coming is not None and coming.stage in FINAL else self.since_s
        return now_s - since_s >= self.pace.hold_s

    def _step(self, stage: Stage, verb: Verb) -> None:
        assert self.coming is not None
        self.coming.stage = stage
        self._do(verb)

    def _do(self, verb: Verb) -> None:
        assert self.coming is not None
        self._todo.append(Action(verb, self.coming.number, self.coming.key_id))

    def _say(self, message: Message) -> None:
        if self.connected:
            self._out.append(message)

    def _is_coming(self, number: int) -> bool:
        return self.coming is not None and self.coming.number == number

    def _at(self, stage: Stage, number: int) -> bool:
        return self.coming is not None and self.coming.stage is stage and self.coming.number == number
