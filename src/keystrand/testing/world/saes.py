"""The SAEs of the simulation: they draw keys, pass the key IDs on, fetch them, and try what they must not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from keystrand.core.errors import KeystrandError
from keystrand.core.key import Key
from keystrand.kme.service import Kme
from keystrand.kme.site import Effect, Refuse, Reply
from keystrand.testing.world.judge import Judge
from keystrand.testing.world.schedule import Schedule
from keystrand.testing.world.sitting import Sitting

PAIRS = (("files-alpha", "files-bravo"), ("files-bravo", "files-alpha"), ("vpn-alpha", "vpn-bravo"))
SITE_OF = {name: name.split("-")[1] for pair in PAIRS for name in pair}
PAUSE_S = 12.0  # between two requests of one pair, on average


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who asked, in which life of the site: an answer to a dead process reaches nobody."""

    site: str
    incarnation: int
    initiator: str
    responder: str


@dataclass(slots=True, kw_only=True)
class Saes:
    """All SAEs of the world."""

    schedule: Schedule
    rng: random.Random
    sites: dict[str, Sitting]
    judge: Judge
    answered: int = 0
    refused: int = 0
    fetched: int = 0
    fetch_failed: int = 0
    expiry: dict[str, float] = field(default_factory=dict)  # key ID -> wall time after which nobody may get it
    steady_clock: bool = True  # else what expires when says nothing
    resting: bool = False
    told: list[Callable[[str, str], None]] = field(default_factory=list)  # hear of keys: (SAE that has it, key ID)

    def begin(self) -> None:
        for initiator, responder in PAIRS:
            self._plan(lambda a=initiator, b=responder: self._draw(a, b))  # type: ignore[misc]

    def _plan(self, action: Callable[[], None]) -> None:
        self.schedule.after(self.rng.expovariate(1 / PAUSE_S), action)

    def _draw(self, initiator: str, responder: str) -> None:
        if self.resting:
            return
        self._plan(lambda: self._draw(initiator, responder))
        sitting = self.sites[SITE_OF[initiator]]
        number = self.rng.choice((1, 1, 1, 2, 16))
        size_bits = self.rng.choice((256, 256, 256, 128, 512, 1032))
        ticket = Ticket(sitting.name, sitting.incarnation, initiator, responder)
        burst = self.rng.choice((1, 1, 1, 3))
        results = sitting.run(
            *[
                lambda kme: kme.get_key(ticket, initiator, responder, number=number, size_bits=size_bits)
                for _ in range(burst)
            ]
        )
        self.refused += sum(isinstance(result, KeystrandError) for result in results)

    def hear(self, site: str, effect: Effect) -> None:
        """A Reply or Refuse that left a site."""
        assert isinstance(effect, Reply | Refuse)
        ticket = effect.ticket
        assert isinstance(ticket, Ticket)
        sitting = self.sites[site]
        if isinstance(effect, Refuse):
            self.refused += 1
            self.schedule.trace(site, "refused", type(effect.error).__name__)
            return
        self.answered += len(effect.keys)
        self.judge.released(sitting, ticket.initiator, effect.keys)
        if self.steady_clock:
            self.judge.agreed(self.sites[sitting.peer], effect.keys)
        key_ids = tuple(key.key_id for key in effect.keys)
        rule = sitting.policy.rules[ticket.initiator, ticket.responder]
        limit_s = sitting.clock.now_s() + min(sitting.limits.key_ttl_s, rule.cryptoperiod_s or float("inf"))
        self.expiry.update(dict.fromkeys(key_ids, limit_s))
        self._tell(ticket.initiator, key_ids)
        self.schedule.trace(site, "keys", *key_ids)
        self._pass_on(ticket, key_ids)

    def _tell(self, sae: str, key_ids: tuple[str, ...]) -> None:
        for hear in self.told:
            for key_id in key_ids[:2]:
                hear(sae, key_id)

    def _pass_on(self, ticket: Ticket, key_ids: tuple[str, ...]) -> None:
        """Mostly fetched at once by the right SAE; sometimes late, never, twice, by the wrong one, or with a stray ID."""
        whim = self.rng.random()
        delay_s = self.rng.expovariate(1 / 2.0) if whim < 0.9 else self.rng.uniform(0.0, 200.0)
        if whim > 0.98:
            return
        self.schedule.after(delay_s, lambda: self._fetch(ticket, key_ids))
        if self.rng.random() < 0.1:
            self.schedule.after(delay_s + self.rng.uniform(0, 5), lambda: self._fetch(ticket, key_ids))
        if self.rng.random() < 0.05:
            self.schedule.after(delay_s / 2, lambda: self._intrude(ticket, key_ids))

    def _fetch(self, ticket: Ticket, key_ids: tuple[str, ...]) -> None:
        sitting = self.sites[SITE_OF[ticket.responder]]
        (result,) = sitting.run(lambda kme: kme.get_key_with_ids(ticket.responder, ticket.initiator, key_ids))
        if isinstance(result, KeystrandError):
            self.fetch_failed += 1
            self.schedule.trace(sitting.name, "fetch refused", type(result).__name__)
            self._note(sitting, ticket, result)
            return
        assert isinstance(result, list)
        self._got(sitting, ticket.responder, result)
        self._tell(ticket.responder, key_ids)

    def _note(self, sitting: Sitting, ticket: Ticket, error: KeystrandError) -> None:
        sitting.run(lambda kme: kme.note_refusal("dec_keys", ticket.responder, ticket.initiator, error))

    def _got(self, sitting: Sitting, recipient: str, keys: list[Key]) -> None:
        self.fetched += len(keys)
        self.judge.released(sitting, recipient, keys)
        self.schedule.trace(sitting.name, "fetched", *(key.key_id for key in keys))
        for key in keys:
            late = key.key_id in self.expiry and sitting.clock.now_s() > self.expiry[key.key_id]
            if late and self.steady_clock:
                self.judge.blame("I6", f"{key.key_id} was handed out after it had expired")

    def _intrude(self, ticket: Ticket, key_ids: tuple[str, ...]) -> None:
        """An SAE of the right site that is not a recipient asks for the keys; and the right one adds an ID of its own."""
        sitting = self.sites[SITE_OF[ticket.responder]]
        intruder = next(name for name in SITE_OF if SITE_OF[name] == sitting.name and name != ticket.responder)
        stray = (*key_ids, "00000000-0000-4000-8000-000000000000")
        attempts: tuple[Callable[[Kme], object], ...] = (
            lambda kme: kme.get_key_with_ids(intruder, ticket.initiator, key_ids),
            lambda kme: kme.get_key_with_ids(ticket.responder, ticket.initiator, stray),
        )
        for result in sitting.run(*attempts):
            if not isinstance(result, KeystrandError):
                self.judge.blame("I1", f"{intruder} or a stray ID got keys of {ticket.responder}")
