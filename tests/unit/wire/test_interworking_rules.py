"""Two KMEs of different networks under loss, repetition, reordering and crashes: never released here and void there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from interworking_machine import ANY, Row

from keystrand.testing.interworking import Kme, key_id_of
from keystrand.wire.handover import Stage


class Pair(Row):
    """What the second holds reaches its SAE, or does not, some time later."""

    names, patiences_s, keys_max, rounds = ("x", "y"), (0, 5, 500), 3, 12

    def kme(self, name: str) -> Kme:
        return Kme(name, tuple(other for other in self.names if other != name), self.synchronous)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), relayed=st.booleans())
    def settle(self, data: st.DataObject, relayed: bool) -> None:
        key_id = key_id_of(data.draw(st.integers(1, self.made)))
        if self.kmes["y"].engine.stage(key_id) is Stage.HELD:
            self.kmes["y"].engine.settle([key_id], relayed=relayed, now_s=self.now_s)

    @rule(name=ANY)
    def pass_on(self, name: str) -> None:
        """A quiet moment."""
        self.quiet([self.kmes[name]])

    def quiet(self, kmes: Sequence[Any]) -> None:
        """As of Row; and what the receiver holds is relayed."""
        super().quiet(kmes)
        y = self.kmes["y"]
        held = [key for key, record in y.disk.saved.items() if record.stage is Stage.HELD]
        y.engine.settle(held, relayed=True, now_s=self.now_s)


class SynchronousPair(Pair):
    synchronous = True


QUICK = settings(
    max_examples=200, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestAsynchronous = Pair.TestCase
TestAsynchronous.settings = QUICK
TestSynchronous = SynchronousPair.TestCase
TestSynchronous.settings = QUICK
