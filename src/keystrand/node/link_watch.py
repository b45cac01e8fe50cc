"""The monitor of a link at one of its modules: sees every block before it becomes key, and says what it means."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from keystrand.core.events import Scalar
from keystrand.qkd.distill.estimate import Counts
from keystrand.qkd.end import BlockRejected
from keystrand.qkd.monitor.monitor import Health, Monitor, Verdict
from keystrand.qkd.observables import Observables
from keystrand.qkd.optics_readings import Readings, TransmitterReadings
from keystrand.qkd.profile import LinkProfile

TELLING: Final = {
    Health.ATTACK: "link.attack",
    Health.DEGRADED: "link.degraded",
    Health.NORMAL: "link.normal",
}
Emit = Callable[..., None]


class LinkWatch:
    """Of one end, over all its runs. `instruments` gives what they showed since they were last read.

    `judge` may run in a thread; what is to be told waits for `tell`, on the thread of the sinks.
    """

    def __init__(
        self,
        profile: LinkProfile,
        instruments: Callable[[], tuple[Readings | None, TransmitterReadings | None]],
    ) -> None:
        self.monitor = Monitor(profile)
        self._profile, self._instruments = profile, instruments
        self._told: object = None  # the counts that were judged last
        self._waiting: deque[tuple[Observables, Verdict]] = deque()
        self.detail = ""
        self.standing: dict[str, Any] = {}  # fields of a report: health, cause and confidence of the last change

    def judge(self, pulses: int, counts: Counts) -> None:
        """Raises BlockRejected where this block must not become key."""
        verdict = self.look(pulses, counts)
        if verdict is not None and verdict.reject:
            raise BlockRejected("monitor", verdict.reason)

    def look(self, pulses: int, counts: Counts) -> Verdict | None:
        """The verdict on a block; None where it was judged before."""
        if counts is self._told:
            return None
        self._told = counts
        readings, transmitter = self._instruments()
        seen = Observables(
            pulses=pulses,
            p_key_basis=self._profile.source.p_key_basis,
            counts=counts,
            readings=readings,
            transmitter=transmitter,
        )
        verdict = self.monitor.judge(seen)
        self._waiting.append((seen, verdict))
        return verdict

    def tell(self, emit: Emit) -> None:
        """Events for what was judged since: each block's observables, and changes of health."""
        while self._waiting:
            seen, verdict = self._waiting.popleft()
            emit("link.observed", health=verdict.health.value, rejected=verdict.reject, **seen.fields())
            self.detail = verdict.reason
            if verdict.changed and verdict.health in TELLING:
                facts: dict[str, Scalar] = {"cause": verdict.cause, "confidence": round(verdict.confidence, 3)}
                emit(TELLING[verdict.health], reason=verdict.reason, **facts)
                self.standing = {"health": verdict.health.value, **facts}
