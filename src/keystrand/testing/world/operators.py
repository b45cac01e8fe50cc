"""The operators of the simulation: they suspend, resume, revoke, compromise and destroy keys at either site, at any time.

What they were told is done goes to the judge; after that, nothing of it may leave that site.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from keystrand.core.errors import IllegalTransition, KeystrandError, UnknownKey
from keystrand.core.register import Scope
from keystrand.core.states import Change, State
from keystrand.kme.lifecycle import Affected
from keystrand.kme.service import Kme
from keystrand.testing.world.judge import Judge
from keystrand.testing.world.saes import SITE_OF
from keystrand.testing.world.schedule import Schedule
from keystrand.testing.world.sitting import Sitting

KEYS_REMEMBERED = 40
USES_TOLD = 0.1  # of the keys that SAEs get
CHANGES = (
    Change.SUSPEND,
    Change.SUSPEND,
    Change.RESUME,
    Change.RESUME,
    Change.DEACTIVATE,
    Change.COMPROMISE,
    Change.DESTROY,
)


@dataclass(slots=True, kw_only=True)
class Operators:
    """All operators of the world."""

    schedule: Schedule
    rng: random.Random
    sites: dict[str, Sitting]
    judge: Judge
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=KEYS_REMEMBERED))  # key IDs on their way to SAEs
    suspended: deque[str] = field(default_factory=lambda: deque(maxlen=KEYS_REMEMBERED))
    done: int = 0

    def act(self) -> None:
        """One operator does one thing."""
        sitting = self.sites[self.rng.choice(sorted(self.sites))]
        change = self.rng.choice(CHANGES)
        scope = self._scope(sitting, change)
        self._do(sitting, change, scope)

    def _scope(self, sitting: Sitting, change: Change) -> Scope:
        """Mostly keys that somebody is about to fetch, now and then whole classes of them."""
        now_s = sitting.clock.now_s()
        whim = self.rng.random()
        known = self.suspended if change is Change.RESUME and self.rng.random() < 0.8 else self.recent
        if whim < 0.7 and known:
            return Scope(key_ids=(self.rng.choice(known),))
        if whim < 0.8:
            return Scope(sae=self.rng.choice(sorted(SITE_OF)), since_s=now_s - self.rng.uniform(0, 60))
        if whim < 0.9:
            return Scope(link="link", since_s=now_s - self.rng.uniform(0, 100))
        if whim < 0.95:
            return Scope(source="simulation", since_s=now_s - 200, until_s=now_s - 100)
        return Scope(peer=sitting.peer, states=frozenset({State.SUSPENDED, State.DEACTIVATED, State.COMPROMISED}))

    def _do(self, sitting: Sitting, change: Change, scope: Scope, cursor: str = "") -> None:
        def operation(kme: Kme) -> Affected:
            return kme.lifecycle.change(change, scope, actor="operator", reason="simulation", cursor=cursor)

        (result,) = sitting.run(operation)
        if isinstance(result, KeystrandError):
            self.schedule.trace(sitting.name, change.value, type(result).__name__)
            return
        assert isinstance(result, Affected)
        self.done += 1
        self.schedule.trace(sitting.name, change.value, len(result.records), result.given_up, len(result.quarantined))
        self.judge.changed(sitting, change, result)
        if change is Change.SUSPEND:
            self.suspended.extend(result.key_ids[:KEYS_REMEMBERED])
        if result.cursor:
            self._do(sitting, change, scope, result.cursor)

    def use(self, sae: str, key_id: str) -> None:
        """An SAE may say what it does with a key."""
        if self.rng.random() > USES_TOLD:
            return
        sitting = self.sites[SITE_OF[sae]]
        report: Callable[[Kme], object] = lambda kme: kme.lifecycle.note_use(  # noqa: E731
            sae, key_id, consumer=f"tunnel of {sae}", uses=self.rng.randrange(3), used_bytes=1000
        )
        (result,) = sitting.run(report)
        if isinstance(result, IllegalTransition | UnknownKey):
            self.schedule.trace(sitting.name, "use of a key that is not known")
