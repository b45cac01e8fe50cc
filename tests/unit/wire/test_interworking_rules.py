"""Two KMEs of different networks under loss, repetition, reordering and crashes: never released here and void there."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keystrand.core.errors import UnknownKey
from keystrand.core.limits import Limits
from keystrand.core.secret import Secret
from keystrand.testing.handovers import MemoryHandovers
from keystrand.wire import etsi020 as wire
from keystrand.wire.etsi020 import Ack, ExtKey, ExtKeys, Parties, ProblemType, Refused, Void
from keystrand.wire.handover import Answered, Outgoing, Stage
from keystrand.wire.interworking import Interworking

PARTIES = Parties("sae-a", ("sae-c",))
URLS = {"x": "https://x.example/kmapi/v1/ext_keys/ack", "y": "https://y.example/kmapi/v1/ext_keys/ack"}
OTHER = {"x": "y", "y": "x"}


def key_id_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def container(*numbers: int, callback: bool = True) -> ExtKeys:
    keys = tuple(ExtKey(key_id=key_id_of(n), material=Secret(n.to_bytes(32, "big"))) for n in numbers)
    return ExtKeys(keys=keys, parties=PARTIES, callback_url=URLS["x"] if callback else None)


@dataclass
class End:
    """One KME: what is in memory, what is on disk, and which SAE got what."""

    name: str
    synchronous: bool = False
    disk: MemoryHandovers = field(default_factory=MemoryHandovers)
    released: dict[str, bytes] = field(default_factory=dict)
    refuses: bool = False

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        other = OTHER[self.name]
        callbacks = {other: None if self.synchronous else URLS[self.name]}
        self.engine = Interworking(self.disk, callbacks, Limits(peer_retry_s=1))

    def release(self, key_id: str, now_s: float) -> None:
        try:
            material = self.engine.release(key_id, now_s=now_s).material.reveal()
        except UnknownKey:
            return
        assert key_id not in self.released, "released twice"
        self.released[key_id] = material

    def serve(self, body: ExtKeys | tuple[Ack, ...] | Void, now_s: float) -> Answered:
        """What this end answers, over the wire's own bytes."""
        try:
            if isinstance(body, tuple):
                self.engine.acknowledge(OTHER[self.name], wire.parse_acks(wire.print_acks(body)), now_s=now_s)
                return Answered()
            if isinstance(body, Void):
                void = wire.parse_void(wire.print_void(body))
                acks = self.engine.void_keys(OTHER[self.name], void, now_s=now_s)
                return Answered() if void.callback_url else Answered(acks=acks)
            return self._take(wire.parse_ext_keys(wire.print_ext_keys(body)), now_s)
        except Refused as problem:
            if problem.status in (408, 503):
                return Answered(unclear=True)
            return Answered(refused=wire.parse_problem(problem.status, wire.print_problem(problem)))

    def _take(self, keys: ExtKeys, now_s: float) -> Answered:
        if self.refuses and all(self.engine.stage(key_id) is None for key_id in keys.key_ids):
            raise Refused(ProblemType.KEY_ROUTING_ERROR, "no such SAE")
        self.engine.receive_keys(OTHER[self.name], keys, now_s=now_s)
        acks = self.engine.outcome(keys.key_ids) if keys.callback_url is None else ()
        return Answered(unclear=True) if acks is None else Answered(acks=acks)


@dataclass
class Flight:
    """A request on its way. waits: its sender still listens for the answer."""

    sender: End
    outgoing: Outgoing
    waits: bool = True


class Interdomain(RuleBasedStateMachine):
    synchronous = False

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y = End("x", self.synchronous), End("y", self.synchronous)
        self.ends = {"x": self.x, "y": self.y}
        self.now_s, self.made = 1000.0, 0
        self.flights: list[Flight] = []

    # what the ends do of their own

    @rule(count=st.integers(1, 3), patience_s=st.sampled_from([0, 5, 500]))
    def offer(self, count: int, patience_s: float) -> None:
        numbers = range(self.made + 1, self.made + 1 + count)
        self.made += count
        keys = container(*numbers)
        self.x.engine.offer("y", keys, now_s=self.now_s, deadline_s=self.now_s + patience_s)

    @rule(seconds=st.sampled_from([0, 1, 3, 30]), name=st.sampled_from("xy"))
    def tick(self, seconds: float, name: str) -> None:
        self.now_s += seconds
        end = self.ends[name]
        self.flights += [Flight(end, outgoing) for outgoing in end.engine.due(self.now_s)]

    @precondition(lambda self: self.made)
    @rule(data=st.data(), relayed=st.booleans())
    def settle(self, data: st.DataObject, relayed: bool) -> None:
        key_id = key_id_of(data.draw(st.integers(1, self.made)))
        if self.y.engine.stage(key_id) is Stage.HELD:
            self.y.engine.settle([key_id], relayed=relayed, now_s=self.now_s)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), name=st.sampled_from("xy"))
    def release(self, data: st.DataObject, name: str) -> None:
        self.ends[name].release(key_id_of(data.draw(st.integers(1, self.made))), self.now_s)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), name=st.sampled_from("xy"))
    def give_up(self, data: st.DataObject, name: str) -> None:
        key_id = key_id_of(data.draw(st.integers(1, self.made)))
        if self.ends[name].engine.stage(key_id) is not None:
            self.ends[name].engine.give_up([key_id], now_s=self.now_s)

    @rule(refuses=st.booleans())
    def change_policy(self, refuses: bool) -> None:
        self.y.refuses = refuses

    @rule(name=st.sampled_from("xy"))
    def crash(self, name: str) -> None:
        self.ends[name].start()
        for flight in self.flights:
            flight.waits = flight.waits and flight.sender is not self.ends[name]

    # what the network does

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), answer_arrives=st.booleans(), again=st.booleans())
    def arrive(self, data: st.DataObject, answer_arrives: bool, again: bool) -> None:
        flight = self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))
        refused = self._serve(flight, answer_arrives)
        # one TLS connection does not repeat a request: a refused one that was heard is over
        if again and not (refused and answer_arrives):
            self.flights.append(Flight(flight.sender, flight.outgoing, waits=False))

    @rule(name=st.sampled_from("xy"))
    def pass_on(self, name: str) -> None:
        """A quiet moment: what one end has to say arrives, and what the receiver holds is relayed."""
        for outgoing in self.ends[name].engine.due(self.now_s):
            self._serve(Flight(self.ends[name], outgoing), answer_arrives=True)
        held = [key for key, record in self.y.disk.saved.items() if record.stage is Stage.HELD]
        self.y.engine.settle(held, relayed=True, now_s=self.now_s)

    @precondition(lambda self: any(flight.waits for flight in self.flights))
    @rule(data=st.data(), lost=st.booleans())
    def time_out(self, data: st.DataObject, lost: bool) -> None:
        waiting = [flight for flight in self.flights if flight.waits]
        flight = data.draw(st.sampled_from(waiting))
        flight.waits = False
        flight.sender.engine.answered(flight.outgoing, Answered(unclear=True), now_s=self.now_s)
        if lost:
            self.flights.remove(flight)

    def _serve(self, flight: Flight, answer_arrives: bool) -> bool:
        receiver = self.ends[flight.outgoing.peer]
        answer = receiver.serve(flight.outgoing.body, self.now_s)
        if flight.waits:
            heard = answer if answer_arrives else Answered(unclear=True)
            flight.sender.engine.answered(flight.outgoing, heard, now_s=self.now_s)
        return answer.refused is not None

    # what must hold

    @invariant()
    def I2_I6_never_released_at_one_end_and_void_at_the_other(self) -> None:
        for key_id in self.x.released.keys() | self.y.released.keys():
            for here, there in ((self.x, self.y), (self.y, self.x)):
                if key_id in here.released:
                    assert there.engine.stage(key_id) is not Stage.VOIDED
            if key_id in self.x.released and key_id in self.y.released:
                assert self.x.released[key_id] == self.y.released[key_id]

    @invariant()
    def what_is_saved_is_what_is_so(self) -> None:
        for end in self.ends.values():
            assert {key: record.stage for key, record in end.disk.saved.items()} == {
                key: end.engine.stage(key) for key in end.disk.saved
            }

    def teardown(self) -> None:
        """I11: once messages arrive again, both ends agree on each key."""
        self.flights.clear()
        for _ in range(12):
            self.now_s += 1000
            for end in self.ends.values():
                for outgoing in end.engine.due(self.now_s):
                    self._serve(Flight(end, outgoing), answer_arrives=True)
            held = [key for key, record in self.y.disk.saved.items() if record.stage is Stage.HELD]
            self.y.engine.settle(held, relayed=True, now_s=self.now_s)
            self.I2_I6_never_released_at_one_end_and_void_at_the_other()
        for number in range(1, self.made + 1):
            stages = [end.engine.stage(key_id_of(number)) for end in (self.x, self.y)]
            living = [stage in (Stage.READY, Stage.RELEASED) for stage in stages]
            assert living[0] == living[1], (number, stages)
            assert all(living) or set(stages) <= {Stage.VOIDED, None}, (number, stages)
        assert [outgoing for end in self.ends.values() for outgoing in end.engine.due(self.now_s + 1e6)] == []


class SynchronousInterdomain(Interdomain):
    synchronous = True


QUICK = settings(
    max_examples=200, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestAsynchronous = Interdomain.TestCase
TestAsynchronous.settings = QUICK
TestSynchronous = SynchronousInterdomain.TestCase
TestSynchronous.settings = QUICK
