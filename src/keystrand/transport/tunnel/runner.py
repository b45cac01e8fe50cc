"""One end of one tunnel at work: the agreement, the connector, the keys of the KME, the channel, the clock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import KeystrandError, Unavailable
from keystrand.core.events import Event, Scalar, Sink
from keystrand.core.key import Key
from keystrand.core.protection import Protection
from keystrand.transport.tunnel.agreement import Action, End, Output, Pace, Report, Verb
from keystrand.transport.tunnel.contract import Connector, Generation, Health, Place
from keystrand.transport.tunnel.guard import Fallback, Guard
from keystrand.transport.tunnel.messages import Message
from keystrand.transport.tunnel.record import Record, read_record, replace_file
from keystrand.transport.tunnel.usage import KeyUses, Usage
from keystrand.wire.tunnelreport import TunnelReport, one_line

KEY_BITS: Final = 256
TICK_S: Final = 0.05
LOOK_S: Final = 0.5  # between two looks at the daemon
STATUS_S: Final = 1.0
REPORT_TURNS: Final = 5  # every so many of these the KME is told, too
USE_S: Final = 1.0  # between two reports to the KME: so long a tunnel may not know that its key was revoked
LOOK_DEADLINE_S: Final = 5.0
DEADLINE_S: Final = 240.0  # for any one step: a connector has its own, shorter ones
AGAIN_S: Final = 0.5
STOP_S: Final = 2.0  # so long an order to stop traffic waits for another step
WELL: Final = frozenset({"up", "starting", "stopped"})
REPORTED: Final = frozenset(TunnelReport.__struct_fields__) - {"happened", "fresh", "late_s", "took_ms"}
Standing = Literal["none", "good", "fallback", "blocked"]
FORGOTTEN_LOOKS: Final = 2  # a daemon that says so once may be in the middle of a change


class KeySource(Protocol):
    """Blocking calls to the KME, each with its own deadline; see transport.keys.Etsi014Keys."""

    def fresh(self, responder: str, size_bits: int) -> Key: ...
    def pick_up(self, initiator: str, key_id: str) -> Key: ...


class Reports(Protocol):
    """Tells the KME, at once or later; see transport.tunnel.reports."""

    def tell(self, tunnel: str, report: TunnelReport, /) -> None: ...


class Channel(Protocol):
    async def run(self) -> None: ...
    def send(self, message: Message, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the operator wants of a tunnel. rotate_bytes: a fresh key after so many bytes; 0: time alone decides."""

    require: Protection
    pace: Pace
    rotate_bytes: int = 0
    fallback: Fallback | None = None


@dataclass(slots=True)
class Counts:
    """fresh: rotations whose key has quantum bits of its own; keys without hang together by the ML-KEM exchange behind them."""

    rotations_total: int = 0
    rotations_fresh_total: int = 0
    rekey_missed_total: int = 0
    blocks_total: int = 0
    fallbacks_total: int = 0


@dataclass
class Runner:
    """Joins the parts of one end. channel: is set before `run`, as it needs the runner to listen."""

    place: Place
    kind: str
    terms: Terms
    connector: Connector
    keys: KeySource
    sink: Sink
    clock: Clock = field(default_factory=SystemClock)
    channel: Channel | None = None
    uses: KeyUses | None = None
    reports: Reports | None = None
    counts: Counts = field(default_factory=Counts)
    health: Health = Health(up=False)  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        now_s, at_s, terms = self.clock.monotonic_s(), self.clock.now_s(), self.terms
        self.record = read_record(self.record_file)
        hold_s = terms.pace.hold_s
        self.guard = Guard(
            require=terms.require,
            hold_s=hold_s,
            fallback=terms.fallback,
            good_s=self._then(self.record.good_at_s, now_s, at_s, hold_s),
        )
        since_s = self._then(self.record.used_at_s, now_s, at_s, hold_s)
        self.end = End(self.place.tunnel, self.place.role, self._pace(since_s), self.record.highest, since_s=since_s)
        if hold_s and not self.record.used_at_s:
            self.end.pace = replace(terms.pace, hold_s=0.001)  # nothing passes, also not in clear, before the first key
        self._held: dict[int, Generation] = {}
        self._known: dict[int, tuple[str, Protection]] = {}  # what is or may be in use: key ID and protection
        self._used = (
            {self.record.current: since_s} if self.record.current else {}
        )  # generations that may carry traffic, and since when
        self._actions: asyncio.Queue[Action] = asyncio.Queue()
        self._failure: tuple[float, str] = (0.0, "")
        self._forgotten = 0
        self._step: asyncio.Task[str] | None = None
        self._stopping_s = 0.0  # since when an order to stop traffic waits
        self._took_s = 0.0
        self._standing: Standing = "none"
        self._ever = bool(self.record.used_at_s)  # there has been a key

    @staticmethod
    def _then(then_s: float, now_s: float, at_s: float, long_ago_s: float) -> float:
        """A moment of the last run, as today's monotonic clock says it; what is not known is just too long ago."""
        return now_s - (max(0.0, at_s - then_s) if then_s else long_ago_s)

    @property
    def record_file(self) -> Path:
        return self.place.state_dir / "record.json"

    @property
    def status_file(self) -> Path:
        return self.place.state_dir / "status.json"

    # running -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; the tunnel itself stays as it is then."""
        assert self.channel is not None
        self.place.state_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            async with asyncio.TaskGroup() as tasks:
                for job in (self._act(), self._tick(), self._look(), self._account(), self._tell(), self.channel.run()):
                    tasks.create_task(job)
        finally:
            for generation in self._held.values():
                generation.material.wipe()
            self._publish({**self.status(), "state": "stopped"})
            self._tell_kme("status", state="stopped")
            await self.connector.close()

    async def _tick(self) -> None:
        while True:
            now_s = self.clock.monotonic_s()
            self._take(self.end.tick(now_s))
            self._judge(now_s)
            self._stopping_s = self._stopping_s or now_s if self.end.stopping else 0.0
            if self._stopping_s and now_s - self._stopping_s >= STOP_S and self._step is not None:
                self._step.cancel()  # fail closed is not put off by a step that takes long
            await asyncio.sleep(TICK_S)

    async def _act(self) -> None:
        while True:
            action = await self._actions.get()
            problem, key_id = "", ""
            try:
                key_id = await self._attempt(action)
            except TimeoutError:
                problem = f"{action.verb} took too long"
            except KeystrandError as error:
                problem = str(error)
            except Exception as error:  # a connector may be anybody's: its fault costs a rotation, not the tunnel
                problem = f"{type(error).__name__}: {error}"
            if problem and action.verb in (Verb.RETIRE, Verb.DROP):
                self._emit("tunnel.fault", number=action.number, reason=f"{action.verb}: {problem}"[:300])
            if problem and action.verb in (Verb.BLOCK, Verb.CONFIRM):
                await asyncio.sleep(AGAIN_S)  # they are wanted again at once
            self._take(self.end.done(action, self.clock.monotonic_s(), key_id=key_id, problem=problem))

    async def _attempt(self, action: Action) -> str:
        self._step = asyncio.get_running_loop().create_task(self._perform(action))
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._step
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is None or this.cancelling():
                raise  # we are told to end, not the step
            raise Unavailable(f"{action.verb} was given up: traffic has to stop") from None
        finally:
            self._step = None

    async def _look(self) -> None:
        """Watch the daemon: is it up, how much went under the key, does it still have it."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                async with asyncio.timeout(LOOK_DEADLINE_S):
                    health = await self.connector.health()
            except Exception as error:  # as above
                health = Health(up=False, facts={"problem": f"{type(error).__name__}: {error}"[:200]})
            self._compare(health)

    async def _account(self) -> None:
        """Tell the KME which key carries the tunnel, and go on with another one where it says that this one must go."""
        if self.uses is None:
            return
        usage = Usage(self.uses, f"tunnel {self.place.tunnel}")
        while True:
            await asyncio.sleep(USE_S)
            number, health = self.end.current, self.health
            key_id, _ = self._known.get(number, ("", None))
            if not key_id or self.end.coming is not None:
                continue
            used_bytes = (health.bytes_used or 0) if health.number in (None, number) else 0
            why = await usage.tell(key_id, used_bytes)
            if why and self.end.current == number and self.end.coming is None:
                self._note(why)
                self._take(self.end.want(self.clock.monotonic_s()))

    async def _tell(self) -> None:
        for turn in itertools.count():
            self._publish(self.status())
            if turn % REPORT_TURNS == 0:
                self._tell_kme("status")
            await asyncio.sleep(STATUS_S)

    def _publish(self, status: Mapping[str, Any]) -> None:
        """For whoever may look into the site's state: the key manager runs as another user, perhaps."""
        with contextlib.suppress(KeystrandError):
            replace_file(self.status_file, msgspec.json.encode(status), durable=False, mode=0o644)

    # the channel's listener ------------------------------------------------------------------------------------------

    def joined(self) -> None:
        self._take(self.end.up(self.clock.monotonic_s()))

    def heard(self, message: Message) -> None:
        self._take(self.end.hear(message, self.clock.monotonic_s()))

    def parted(self, reason: str) -> None:
        self._note(f"channel: {reason}")
        self._take(self.end.down(self.clock.monotonic_s()))

    # what the end wants ----------------------------------------------------------------------------------------------

    def _take(self, outputs: list[Output]) -> None:
        durable = self.end.highest == self.record.highest or self._save()
        for output in outputs:
            if isinstance(output, Action):
                self._actions.put_nowait(output)
            elif isinstance(output, Report):
                self._report(output)
            elif self.channel is not None and durable:  # a number that may be forgotten is told to nobody
                self.channel.send(output)

    async def _perform(self, action: Action) -> str:
        """Returns the ID of a key that was drawn. Raises what stands in the way."""
        number, connector, peer = action.number, self.connector, self.place.peer_sae
        match action.verb:
            case Verb.DRAW:
                return self._hold(number, await asyncio.to_thread(self.keys.fresh, peer, KEY_BITS))
            case Verb.FETCH:
                self._hold(number, await asyncio.to_thread(self.keys.pick_up, peer, action.key_id))
            case Verb.PREPARE:
                await connector.prepare(self._held[number])
            case Verb.ACTIVATE | Verb.CONFIRM:
                await (connector.activate if action.verb is Verb.ACTIVATE else connector.confirm)(number)
                self._wipe(number)
                self._use(number)
            case Verb.RETIRE:
                await connector.retire(number)
                self._used = {n: since_s for n, since_s in self._used.items() if n >= number}
            case Verb.DROP:
                self._wipe(number)
                self._known.pop(number, None)
                await connector.drop(number)
            case Verb.BLOCK:
                await connector.block()
                self._used.clear()
        return ""

    def _hold(self, number: int, key: Key) -> str:
        try:
            self.guard.check(key.protection, self.clock.monotonic_s())
        except KeystrandError:
            key.material.wipe()
            raise
        for other in list(self._held):
            self._wipe(other)
        self._held = {
            number: Generation(number=number, key_id=key.key_id, material=key.material, protection=key.protection)
        }
        self._known[number] = key.key_id, key.protection
        return key.key_id

    def _wipe(self, number: int) -> None:
        if (generation := self._held.pop(number, None)) is not None:
            generation.material.wipe()

    def _use(self, number: int) -> None:
        """It carries traffic here from now on."""
        now_s = self.clock.monotonic_s()
        self._used[number], self._ever = now_s, True
        self._known = {n: facts for n, facts in self._known.items() if n >= number}
        if number not in self._known:
            return  # of a run before this one
        key_id, protection = self._known[number]
        self.guard.took(protection, now_s)
        self.end.pace = self._pace(now_s)
        if self.guard.below:
            self.counts.fallbacks_total += 1
            self._emit("tunnel.fallback", number=number, key_id=key_id, protection=protection.label)

    def _judge(self, now_s: float) -> None:
        """Say when the tunnel begins to run below what it should, and when it has that back."""
        before, self._standing = self._standing, self._stands(now_s)
        if self._standing == "fallback" != before and not self.guard.below:
            self.counts.fallbacks_total += 1
            self._emit(
                "tunnel.fallback", number=self.end.current, reason="no fresh key came: the last one stays in use"
            )
        elif self._standing == "good" and before in ("blocked", "fallback"):
            self._emit("tunnel.restored", number=self.end.current, reason=f"it was in {before}")

    def _stands(self, now_s: float) -> Standing:
        if not self._ever or not (self._used or self.end.blocked):
            return "none"
        if self.end.blocked:
            return "blocked"
        return "fallback" if self.guard.falls_back_s(now_s) else "good"

    def _pace(self, since_s: float) -> Pace:
        return replace(self.terms.pace, hold_s=self.guard.hold_from(since_s))

    # the daemon ------------------------------------------------------------------------------------------------------

    def _compare(self, health: Health) -> None:
        before, self.health = self.health, health
        if before.up != health.up:
            self._emit("tunnel.up" if health.up else "tunnel.down", number=health.number or 0)
        end, now_s = self.end, self.clock.monotonic_s()
        if end.coming is not None or not end.current:
            self._forgotten = 0
            return
        carries = not (end.blocked or end.halting)
        forgotten = carries and health.number is not None and health.number != end.current
        self._forgotten = self._forgotten + 1 if forgotten else 0
        if self._forgotten >= FORGOTTEN_LOOKS:
            self._note("the daemon has lost the key in use")
            self._take(end.lost(now_s))
        elif health.due or 0 < self.terms.rotate_bytes <= (health.bytes_used or 0):
            self._take(end.want(now_s))

    # reports ---------------------------------------------------------------------------------------------------------

    def _report(self, report: Report) -> None:
        counts = self.counts
        fields: dict[str, Scalar] = {"number": report.number}
        if report.kind == "rotated":
            counts.rotations_total += 1
            counts.rotations_fresh_total += self._is_fresh(report.number)
            self._took_s = report.took_s
            self._save()
            key_id, protection = self._known.get(report.number, ("", self.terms.require))
            fields |= {"key_id": key_id, "protection": protection.label, "took_ms": round(1e3 * report.took_s, 1)}
            fields["use_ms"] = round(1e3 * report.use_s, 2)
        elif report.kind == "blocked":  # the last failure stays what it was: why no key came
            counts.blocks_total += 1
            fields["reason"] = "; ".join(filter(None, (report.reason, self._cause())))[:300]
        else:
            counts.rekey_missed_total += report.kind == "missed"
            self._note(report.reason)
            fields["reason"] = report.reason[:300]
        self._emit(f"tunnel.{report.kind}", **fields)

    def _is_fresh(self, number: int) -> bool:
        return self._known.get(number, ("", Protection.NONE))[1] >= Protection.QKD

    def _cause(self) -> str:
        """What has failed since the key in use came."""
        at_s, reason = self._failure
        return reason if at_s >= self.record.used_at_s else ""

    def _note(self, reason: str) -> None:
        self._failure = self.clock.now_s(), reason[:300]

    def _emit(self, kind: str, **fields: Scalar) -> None:
        of = {"tunnel": self.place.tunnel, "kind_of_tunnel": self.kind, "peer_sae": self.place.peer_sae}
        self.sink.emit(Event(kind, self.clock.now_s(), of | fields))
        self._tell_kme(kind.removeprefix("tunnel."), number=fields.get("number"), reason=fields.get("reason"))

    def _tell_kme(self, happened: str, **said: Any) -> None:
        """What the tunnel is now, and what has just happened to it."""
        if self.reports is None:
            return
        status = dict(self.status())
        if status["state"] not in WELL:
            status["reason"] = status["facts"].get("problem") or self._cause()
        status |= {name: value for name, value in said.items() if value is not None}
        fields = {name: status[name] for name in REPORTED if status.get(name) is not None}
        number = fields.setdefault("number", status["generation"])
        fields["reason"] = one_line(str(fields.get("reason", "")))
        fields["fresh"], fields["took_ms"] = self._is_fresh(number), status["rotation_took_ms"]
        fields["suite"] = str(status["facts"].get("suite", ""))[:128]
        self.reports.tell(self.place.tunnel, TunnelReport(happened=happened, **fields))  # type: ignore[arg-type]

    def _save(self) -> bool:
        """Durably; False where that cannot be done now."""
        now_s, at_s, end = self.clock.monotonic_s(), self.clock.now_s(), self.end
        record = Record(
            highest=end.highest,
            current=end.current,
            used_at_s=at_s - (now_s - end.since_s) if end.current else self.record.used_at_s,
            good_at_s=at_s - (now_s - self.guard.good_s) if end.current else self.record.good_at_s,
        )
        try:
            replace_file(self.record_file, msgspec.json.encode(record))
        except KeystrandError as error:
            self._note(str(error))
            return False
        self.record = record
        return True

    def status(self) -> Mapping[str, Any]:
        """For `keystrand tunnel list`: no secret, JSON values only."""
        now_s, end = self.clock.monotonic_s(), self.end
        number = max(self._used, default=0)
        key_id, protection = self._known.get(number, ("", Protection.NONE))
        age_s = now_s - self._used[number] if number else None
        next_s = max(0.0, self.terms.pace.rotate_s - (now_s - end.since_s)) if end.current else None
        return {
            "tunnel": self.place.tunnel,
            "kind": self.kind,
            "role": self.place.role,
            "peer_sae": self.place.peer_sae,
            "at_s": round(self.clock.now_s(), 3),
            "state": self._state(),
            "up": self.health.up,
            "connected": end.connected,
            "blocked": end.blocked,
            "generation": number,
            "key_id": key_id,
            "protection": protection.label if key_id else "",
            "key_age_s": _rounded(age_s),
            "next_rotation_s": _rounded(next_s),
            "exposure_s": _rounded(max((now_s - since_s for since_s in self._used.values()), default=None)),
            "bytes_under_key": self.health.bytes_used,
            "rotation_took_ms": round(1e3 * self._took_s, 1),
            "fallback_s": round(self.guard.falls_back_s(now_s) if self._stands(now_s) == "fallback" else 0.0, 3),
            **asdict(self.counts),
            "last_failure_at_s": round(self._failure[0], 3),
            "last_failure": self._failure[1],
            "facts": dict(self.health.facts),
        }

    def _state(self) -> str:
        if self.end.blocked:
            return "blocked"
        if not self._used:
            return "starting"
        if self._stands(self.clock.monotonic_s()) == "fallback":
            return "fallback"
        return "up" if self.health.up else "down"


def _rounded(span_s: float | None) -> float | None:
    return None if span_s is None else round(span_s, 3)
