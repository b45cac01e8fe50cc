"""Keys that KMEs carry on, under loss, repetition, reordering and crashes at any of them: the two ends stay apart as two do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from keystrand.core.limits import Limits
from keystrand.core.secret import Secret
from keystrand.testing.handovers import MemoryHandovers
from keystrand.testing.interworking import Flight, Kme, key_id_of, sent, url_of
from keystrand.wire.etsi020 import ExtKey, ExtKeys, Parties
from keystrand.wire.handover import Answered, Handover, Stage
from keystrand.wire.interworking import Interworking

PARTIES = Parties("sae-a", ("sae-z",))
CHAIN = ("o", "c", "w", "t")
ENDS = ("o", "t")


class Carrying(Kme):
    """One of the row: what is not for its own SAE goes on."""

    def __init__(self, name: str, *, synchronous: bool) -> None:
        place = CHAIN.index(name)
        self.after = CHAIN[place + 1] if place + 1 < len(CHAIN) else ""
        super().__init__(name, (*CHAIN[max(0, place - 1) : place], *CHAIN[place + 1 : place + 2]), synchronous)

    def engine_of(self, callbacks: Mapping[str, str | None]) -> Interworking:
        limits = Limits(peer_retry_s=1)
        return Interworking(self.disk, callbacks, limits, passed=lambda way_out: {**way_out.said, self.name: b"1"})

    def taken(self, new: tuple[str, ...], keys: ExtKeys, now_s: float) -> None:
        if self.after:
            self.engine.carry(new, self.after, keys.optional, now_s=now_s, deadline_s=now_s + 20)
        else:
            self.engine.settle(new, relayed=True, now_s=now_s, said={self.name: b"1"})


class Row(RuleBasedStateMachine):
    synchronous = False

    def __init__(self) -> None:
        super().__init__()
        self.kmes = {name: Carrying(name, synchronous=self.synchronous) for name in CHAIN}
        self.now_s, self.made = 1000.0, 0
        self.flights: list[Flight] = []

    @rule(count=st.integers(1, 2), patience_s=st.sampled_from([5, 500]))
    def offer(self, count: int, patience_s: float) -> None:
        numbers = range(self.made + 1, self.made + 1 + count)
        self.made += count
        keys = tuple(ExtKey(key_id=key_id_of(n), material=Secret(n.to_bytes(32, "big"))) for n in numbers)
        body = ExtKeys(keys=keys, parties=PARTIES, callback_url=None if self.synchronous else url_of("o"))
        self.kmes["o"].engine.offer("c", body, now_s=self.now_s, deadline_s=self.now_s + patience_s)

    @rule(seconds=st.sampled_from([0, 1, 3, 30]), name=st.sampled_from(CHAIN))
    def tick(self, seconds: float, name: str) -> None:
        self.now_s += seconds
        self.flights += sent([self.kmes[name]], self.now_s)

    @rule(seconds=st.sampled_from([0, 1]), rounds=st.integers(1, 4))
    def quiet(self, seconds: float, rounds: int) -> None:
        """Nothing is lost for a moment: keys come through."""
        self.now_s += seconds
        for flight in sent(list(self.kmes.values()) * rounds, self.now_s):
            flight.arrive(self.kmes, self.now_s)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), name=st.sampled_from(ENDS))
    def release(self, data: st.DataObject, name: str) -> None:
        self.kmes[name].release(key_id_of(data.draw(st.integers(1, self.made))), self.now_s)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), name=st.sampled_from(ENDS))
    def give_up(self, data: st.DataObject, name: str) -> None:
        """As an end does whose SAE does not come, or that was put back from a backup."""
        key_id = key_id_of(data.draw(st.integers(1, self.made)))
        if self.kmes[name].engine.stage(key_id) is not None:
            self.kmes[name].engine.give_up([key_id], now_s=self.now_s)

    @rule(refuses=st.booleans(), name=st.sampled_from(CHAIN[1:]))
    def change_policy(self, refuses: bool, name: str) -> None:
        self.kmes[name].refuses = refuses

    @rule(name=st.sampled_from(CHAIN))
    def crash(self, name: str) -> None:
        self.kmes[name].start()
        for flight in self.flights:
            flight.waits = flight.waits and flight.sender is not self.kmes[name]

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), answer_arrives=st.booleans(), again=st.booleans())
    def arrive(self, data: st.DataObject, answer_arrives: bool, again: bool) -> None:
        flight = self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))
        refused = flight.arrive(self.kmes, self.now_s, answer_arrives=answer_arrives)
        if again and not (refused and answer_arrives):
            self.flights.append(Flight(flight.sender, flight.outgoing, waits=False))

    @precondition(lambda self: any(flight.waits for flight in self.flights))
    @rule(data=st.data(), lost=st.booleans())
    def time_out(self, data: st.DataObject, lost: bool) -> None:
        flight = data.draw(st.sampled_from([flight for flight in self.flights if flight.waits]))
        flight.waits = False
        flight.hear(Answered(unclear=True), self.now_s)
        if lost:
            self.flights.remove(flight)

    @invariant()
    def I2_I6_never_released_at_one_end_and_void_at_the_other(self) -> None:
        first, last = (self.kmes[name] for name in ENDS)
        for key_id in first.released.keys() | last.released.keys():
            for here, there in ((first, last), (last, first)):
                if key_id in here.released:
                    assert there.engine.stage(key_id) is not Stage.VOIDED, (key_id, here.name)
            if key_id in first.released and key_id in last.released:
                assert first.released[key_id] == last.released[key_id]

    @invariant()
    def I11_an_sae_may_have_only_what_the_far_end_holds(self) -> None:
        for key_id in map(key_id_of, range(1, self.made + 1)):
            if self.kmes["o"].engine.stage(key_id) in (Stage.READY, Stage.RELEASED):
                assert self.kmes["t"].engine.stage(key_id) in (Stage.READY, Stage.RELEASED, Stage.VOIDING), key_id

    @invariant()
    def what_is_saved_is_what_is_so(self) -> None:
        for kme in self.kmes.values():
            for record in kme.disk.saved.values():
                found = kme.engine.onward(record.key_id) if record.onward else kme.engine.record(record.key_id)
                assert found is not None
                assert (found.stage, found.asked, found.kept) == (record.stage, record.asked, record.kept)

    def teardown(self) -> None:
        """I11: once messages arrive again, all agree on each key, and those between keep no material."""
        self.flights.clear()
        for _ in range(16):
            self.now_s += 1000
            for flight in sent(self.kmes.values(), self.now_s):
                flight.arrive(self.kmes, self.now_s)
            self.I2_I6_never_released_at_one_end_and_void_at_the_other()
        for number in range(1, self.made + 1):
            found = [self.kmes[name].engine.stage(key_id_of(number)) for name in ENDS]
            living = [stage in (Stage.READY, Stage.RELEASED) for stage in found]
            assert living[0] == living[1], (number, found)
            assert all(living) or set(found) <= {Stage.VOIDED, None}, (number, found)
        assert list(sent(self.kmes.values(), self.now_s + 1e6)) == []
        for name in ("c", "w"):
            assert not [record for record in self.kmes[name].disk.saved.values() if record.material is not None]


class SynchronousRow(Row):
    synchronous = True


QUICK = settings(
    max_examples=150, stateful_step_count=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestAsynchronous = Row.TestCase
TestAsynchronous.settings = QUICK
TestSynchronous = SynchronousRow.TestCase
TestSynchronous.settings = QUICK


def hasty_void(patch: pytest.MonkeyPatch) -> None:
    """Calls a key void without asking the side that it was carried on to."""
    other, void = Interworking._other, Interworking._void

    def alone(self: Interworking, *words: object) -> object:
        patch.setattr(Interworking, "_other", lambda self, record: None)
        try:
            return void(self, *words)  # type: ignore[arg-type]
        finally:
            patch.setattr(Interworking, "_other", other)

    patch.setattr(Interworking, "_void", alone)


def hasty_word(patch: pytest.MonkeyPatch) -> None:
    """Says relayed once it has sent the key on."""
    carry = Interworking.carry

    def promise(
        self: Interworking, key_ids: tuple[str, ...], peer: str, *rest: object, now_s: float, **more: float
    ) -> None:
        carry(self, key_ids, peer, *rest, now_s=now_s, **more)  # type: ignore[arg-type]
        self.settle(key_ids, relayed=True, now_s=now_s)

    patch.setattr(Interworking, "carry", promise)


def forgetful(patch: pytest.MonkeyPatch) -> None:
    """Does not make it durable that an SAE of the other side has a key."""
    save = MemoryHandovers.save

    def lose(self: MemoryHandovers, record: Handover) -> None:
        if not (record.onward and record.stage is Stage.READY):
            save(self, record)

    patch.setattr(MemoryHandovers, "save", lose)


@pytest.mark.parametrize("bug", [hasty_void, hasty_word, forgetful])
def test_the_judge_sees_a_planted_bug(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    shallow = settings(QUICK, max_examples=150, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Row, settings=shallow)
