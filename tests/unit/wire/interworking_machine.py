"""What befalls KMEs of several networks in a row, whatever they do with keys: loss, repetition, reordering, crashes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keystrand.core.secret import Secret
from keystrand.testing.interworking import Flight, Kme, key_id_of, sent, url_of
from keystrand.wire.etsi020 import ExtKey, ExtKeys, Parties
from keystrand.wire.handover import Answered, Stage

ANY: st.SearchStrategy[str] = st.runner().flatmap(lambda machine: st.sampled_from(machine.names))
END: st.SearchStrategy[str] = st.runner().flatmap(lambda machine: st.sampled_from(machine.ends))


class Row(RuleBasedStateMachine):
    """names: the KMEs in their order; keys begin at the first, for an SAE of the last. patiences_s: of whoever offers."""

    names: ClassVar[tuple[str, ...]]
    patiences_s: ClassVar[Sequence[float]]
    keys_max: ClassVar[int]
    rounds: ClassVar[int]  # after which all is settled once messages arrive again
    synchronous: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.kmes = {name: self.kme(name) for name in self.names}
        self.now_s, self.made = 1000.0, 0
        self.flights: list[Flight] = []

    def kme(self, name: str) -> Kme:
        raise NotImplementedError

    @property
    def ends(self) -> tuple[str, str]:
        return self.names[0], self.names[-1]

    @rule(data=st.data())
    def offer(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, self.keys_max))
        numbers = range(self.made + 1, self.made + 1 + count)
        self.made += count
        keys = tuple(ExtKey(key_id=key_id_of(n), material=Secret(n.to_bytes(32, "big"))) for n in numbers)
        callback_url = None if self.synchronous else url_of(self.names[0])
        body = ExtKeys(keys=keys, parties=Parties("sae-a", ("sae-z",)), callback_url=callback_url)
        deadline_s = self.now_s + data.draw(st.sampled_from(self.patiences_s))
        self.kmes[self.names[0]].engine.offer(self.names[1], body, now_s=self.now_s, deadline_s=deadline_s)

    @rule(seconds=st.sampled_from([0, 1, 3, 30]), name=ANY)
    def tick(self, seconds: float, name: str) -> None:
        self.now_s += seconds
        self.flights += sent([self.kmes[name]], self.now_s)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), name=END)
    def release(self, data: st.DataObject, name: str) -> None:
        self.kmes[name].release(key_id_of(data.draw(st.integers(1, self.made))), self.now_s)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), name=END)
    def give_up(self, data: st.DataObject, name: str) -> None:
        """As an end does whose SAE does not come, or that was put back from a backup."""
        key_id = key_id_of(data.draw(st.integers(1, self.made)))
        if self.kmes[name].engine.stage(key_id) is not None:
            self.kmes[name].engine.give_up([key_id], now_s=self.now_s)

    @rule(name=ANY)
    def crash(self, name: str) -> None:
        self.kmes[name].start()
        for flight in self.flights:
            flight.waits = flight.waits and flight.sender is not self.kmes[name]

    @rule(refuses=st.booleans(), name=ANY)
    def change_policy(self, refuses: bool, name: str) -> None:
        self.kmes[name].refuses = refuses

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), answer_arrives=st.booleans(), again=st.booleans())
    def arrive(self, data: st.DataObject, answer_arrives: bool, again: bool) -> None:
        flight = self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))
        refused = flight.arrive(self.kmes, self.now_s, answer_arrives=answer_arrives)
        # one TLS connection does not repeat a request: a refused one that was heard is over
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

    def quiet(self, kmes: Sequence[Any]) -> None:
        """What these have to say arrives."""
        for flight in sent(kmes, self.now_s):
            flight.arrive(self.kmes, self.now_s)

    @invariant()
    def I2_I6_never_released_at_one_end_and_void_at_the_other(self) -> None:
        first, last = (self.kmes[name] for name in self.ends)
        for key_id in first.released.keys() | last.released.keys():
            for here, there in ((first, last), (last, first)):
                if key_id in here.released:
                    assert there.engine.stage(key_id) is not Stage.VOIDED, (key_id, here.name)
            if key_id in first.released and key_id in last.released:
                assert first.released[key_id] == last.released[key_id]

    @invariant()
    def what_is_saved_is_what_is_so(self) -> None:
        for kme in self.kmes.values():
            for record in kme.disk.saved.values():
                found = kme.engine.onward(record.key_id) if record.onward else kme.engine.record(record.key_id)
                assert found is not None
                assert (found.stage, found.asked, found.kept) == (record.stage, record.asked, record.kept)

    def teardown(self) -> None:
        """I11: once messages arrive again, both ends agree on each key."""
        self.flights.clear()
        for _ in range(self.rounds):
            self.now_s += 1000
            self.quiet([*self.kmes.values()])
            self.I2_I6_never_released_at_one_end_and_void_at_the_other()
        for number in range(1, self.made + 1):
            found = [self.kmes[name].engine.stage(key_id_of(number)) for name in self.ends]
            living = [stage in (Stage.READY, Stage.RELEASED) for stage in found]
            assert living[0] == living[1], (number, found)
            assert all(living) or set(found) <= {Stage.VOIDED, None}, (number, found)
        assert list(sent(self.kmes.values(), self.now_s + 1e6)) == []
