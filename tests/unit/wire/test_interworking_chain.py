"""Keys that KMEs carry on, under loss, repetition, reordering and crashes at any of them: the two ends stay apart as two do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test
from interworking_machine import Row

from keystrand.core.limits import Limits
from keystrand.testing.handovers import MemoryHandovers
from keystrand.testing.interworking import Kme, key_id_of
from keystrand.wire.etsi020 import ExtKeys
from keystrand.wire.handover import Handover, Stage
from keystrand.wire.interworking import Interworking

CHAIN = ("o", "c", "w", "t")


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


class Chain(Row):
    """Each KME between carries keys on to the next."""

    names, patiences_s, keys_max, rounds = CHAIN, (5, 500), 2, 16

    def kme(self, name: str) -> Kme:
        return Carrying(name, synchronous=self.synchronous)

    @rule(seconds=st.sampled_from([0, 1]), times=st.integers(1, 4))
    def come_through(self, seconds: float, times: int) -> None:
        """Nothing is lost for a moment."""
        self.now_s += seconds
        self.quiet([*self.kmes.values()] * times)

    @invariant()
    def I11_an_sae_may_have_only_what_the_far_end_holds(self) -> None:
        for key_id in map(key_id_of, range(1, self.made + 1)):
            if self.kmes["o"].engine.stage(key_id) in (Stage.READY, Stage.RELEASED):
                assert self.kmes["t"].engine.stage(key_id) in (Stage.READY, Stage.RELEASED, Stage.VOIDING), key_id

    def teardown(self) -> None:
        """As of Row; and those between keep no material."""
        super().teardown()
        for name in CHAIN[1:-1]:
            assert not [record for record in self.kmes[name].disk.saved.values() if record.material is not None]


class SynchronousChain(Chain):
    synchronous = True


QUICK = settings(
    max_examples=150, stateful_step_count=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestAsynchronous = Chain.TestCase
TestAsynchronous.settings = QUICK
TestSynchronous = SynchronousChain.TestCase
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
        run_state_machine_as_test(Chain, settings=shallow)
