"""Failing open, within limits: what a rule's fallback still allows, counted, and recorded loudly each time."""

from __future__ import annotations

from dataclasses import dataclass

from keystrand.core.errors import Unavailable
from keystrand.core.policy import Fallback, Pair
from keystrand.core.protection import Protection
from keystrand.kme.ask import Ask
from keystrand.kme.site import Site


@dataclass(slots=True)
class Episode:
    """A stretch of fallback: when it began (monotonic seconds) and how many keys it has cost."""

    begun_s: float
    keys: int = 0


class Fallbacks:
    """The episodes of all pairs; in memory. A restart forgets them, so a pause may be cut short by one."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._episodes: dict[Pair, Episode] = {}

    def level_for(self, ask: Ask) -> Protection | None:
        """The level to fall back to; None where any rule fails closed or has spent what it allows."""
        fallbacks = [rule.fallback for rule in ask.rules if rule.fallback is not None]
        if len(fallbacks) < len(ask.rules):
            return None
        now_s = self._site.clock.monotonic_s()
        if all(self._allows(r.pair, r.fallback, ask.number, now_s) for r in ask.rules if r.fallback is not None):
            return max(fallback.protection for fallback in fallbacks)
        return None

    def _allows(self, pair: Pair, fallback: Fallback, number: int, now_s: float) -> bool:
        episode = self._current(pair, fallback, now_s)
        if episode is None:
            return number <= fallback.keys
        return now_s < episode.begun_s + fallback.for_s and episode.keys + number <= fallback.keys

    def _current(self, pair: Pair, fallback: Fallback, now_s: float) -> Episode | None:
        """The episode that still counts: it runs, or its pause does."""
        episode = self._episodes.get(pair)
        if episode is None or now_s >= episode.begun_s + fallback.for_s + fallback.rest_s:
            return None
        return episode

    def use(self, ask: Ask, level: Protection, problem: Unavailable) -> None:
        """Count it against every rule of the request, and say so."""
        now_s = self._site.clock.monotonic_s()
        for rule in ask.rules:
            assert rule.fallback is not None
            episode = self._current(rule.pair, rule.fallback, now_s)
            if episode is None:
                episode = self._episodes[rule.pair] = Episode(now_s)
            episode.keys += ask.number
            self._site.note(
                "downgrade.fallback",
                initiator=rule.initiator,
                responder=rule.responder,
                required=ask.required.label,
                served=level.label,
                keys=ask.number,
                keys_left=rule.fallback.keys - episode.keys,
                ends_in_s=round(episode.begun_s + rule.fallback.for_s - now_s, 3),
                approved_by=", ".join(rule.fallback.approved_by),
                reason=type(problem).__name__,
            )
