"""Two KMEs of different networks under loss, repetition, reordering and crashes: never released here and void there."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keystrand.core.secret import Secret
from keystrand.testing.interworking import Flight, Kme, key_id_of, sent, url_of
from keystrand.wire.etsi020 import ExtKey, ExtKeys, Parties
from keystrand.wire.handover import Answered, Stage

PARTIES = Parties("sae-a", ("sae-c",))


def container(*numbers: int, callback: bool = True) -> ExtKeys:
    keys = tuple(ExtKey(key_id=key_id_of(n), material=Secret(n.to_bytes(32, "big"))) for n in numbers)
    return ExtKeys(keys=keys, parties=PARTIES, callback_url=url_of("x") if callback else None)


class Interdomain(RuleBasedStateMachine):
    synchronous = False

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y = Kme("x", ("y",), self.synchronous), Kme("y", ("x",), self.synchronous)
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
        self.flights += sent([self.ends[name]], self.now_s)

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
        refused = flight.arrive(self.ends, self.now_s, answer_arrives=answer_arrives)
        # one TLS connection does not repeat a request: a refused one that was heard is over
        if again and not (refused and answer_arrives):
            self.flights.append(Flight(flight.sender, flight.outgoing, waits=False))

    @rule(name=st.sampled_from("xy"))
    def pass_on(self, name: str) -> None:
        """A quiet moment: what one end has to say arrives, and what the receiver holds is relayed."""
        for flight in sent([self.ends[name]], self.now_s):
            flight.arrive(self.ends, self.now_s)
        held = [key for key, record in self.y.disk.saved.items() if record.stage is Stage.HELD]
        self.y.engine.settle(held, relayed=True, now_s=self.now_s)

    @precondition(lambda self: any(flight.waits for flight in self.flights))
    @rule(data=st.data(), lost=st.booleans())
    def time_out(self, data: st.DataObject, lost: bool) -> None:
        waiting = [flight for flight in self.flights if flight.waits]
        flight = data.draw(st.sampled_from(waiting))
        flight.waits = False
        flight.hear(Answered(unclear=True), self.now_s)
        if lost:
            self.flights.remove(flight)

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
            for flight in sent(self.ends.values(), self.now_s):
                flight.arrive(self.ends, self.now_s)
            held = [key for key, record in self.y.disk.saved.items() if record.stage is Stage.HELD]
            self.y.engine.settle(held, relayed=True, now_s=self.now_s)
            self.I2_I6_never_released_at_one_end_and_void_at_the_other()
        for number in range(1, self.made + 1):
            stages = [end.engine.stage(key_id_of(number)) for end in (self.x, self.y)]
            living = [stage in (Stage.READY, Stage.RELEASED) for stage in stages]
            assert living[0] == living[1], (number, stages)
            assert all(living) or set(stages) <= {Stage.VOIDED, None}, (number, stages)
        assert list(sent(self.ends.values(), self.now_s + 1e6)) == []


class SynchronousInterdomain(Interdomain):
    synchronous = True


QUICK = settings(
    max_examples=200, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestAsynchronous = Interdomain.TestCase
TestAsynchronous.settings = QUICK
TestSynchronous = SynchronousInterdomain.TestCase
TestSynchronous.settings = QUICK
