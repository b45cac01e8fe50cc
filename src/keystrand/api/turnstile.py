"""Who has drawn its quota is sent away at the door until there is something again: a flood costs neither the reading of
bodies nor a place in the engine's batches, where the requests of others would wait behind it.

Only what the engine has said is repeated, only for as long as not even the smallest key could be had, and never for long: the
policy may change meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from keystrand.core.clock import Clock
from keystrand.core.errors import QuotaExceeded
from keystrand.core.events import Event, Sink

SHUT_S_MAX: Final = 1.0
PAIRS_MAX: Final = 10_000


@dataclass(slots=True)
class Turnstile:
    clock: Clock
    sink: Sink
    _shut: dict[tuple[str, str], tuple[float, QuotaExceeded]] = field(default_factory=dict, init=False)

    def check(self, caller: str, other: str) -> None:
        """Raises QuotaExceeded, as the engine did for this pair a moment ago. Counted like a refusal of the engine."""
        found = self._shut.get((caller, other))
        if found is None:
            return
        until_s, said = found
        if self.clock.monotonic_s() >= until_s:
            del self._shut[caller, other]
            return
        now_s = self.clock.now_s()
        pair = {"sae": caller, "other": other}
        self.sink.emit(Event("key.refused", now_s, {**pair, "reason": QuotaExceeded.__name__}))
        self.sink.emit(Event("quota.denied", now_s, dict(pair)))
        raise QuotaExceeded(str(said), hint=said.hint, retry_after_s=said.retry_after_s)

    def shut(self, caller: str, other: str, error: QuotaExceeded) -> None:
        """The engine has refused this pair."""
        if error.empty_s <= 0:
            return
        if len(self._shut) >= PAIRS_MAX:
            self._shut.clear()
        self._shut[caller, other] = self.clock.monotonic_s() + min(SHUT_S_MAX, error.empty_s), error
