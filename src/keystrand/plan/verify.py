"""Plan and reality side by side: what was predicted of a link, what its running sites measured, and where the two have drifted.

A figure that nobody measured says so. One of a simulated link is marked so: it checks the plan's arithmetic, not fibre.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keystrand.core.protection import Protection
from keystrand.plan.equipment import qber_span
from keystrand.plan.fact import Basis, Span, Unknown
from keystrand.plan.measured import Measured, covers
from keystrand.plan.outcome import Outcome
from keystrand.plan.pattern import Layer, Pattern

TOLERANCE: Final = 0.1  # of a predicted point: operation is never exact to the last digit
DELIVERY_SHARE: Final = 0.1  # of the time between two keys: one that takes longer to come is late; assumed


class Verdict(StrEnum):
    """Of one figure."""

    AS_PLANNED = "as planned"
    ABOVE = "drift: above"
    BELOW = "drift: below"
    OTHER = "drift: other"
    NOT_MEASURED = "not measured"
    NOT_PLANNED = "not planned"

    @property
    def is_drift(self) -> bool:
        return self in (Verdict.ABOVE, Verdict.BELOW, Verdict.OTHER)


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one link at one site. planned: range, or None with `why`."""

    link: str
    site: str
    figure: str
    unit: str
    planned: Span | None
    measured: float | None
    basis: Basis
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.planned is None:
            return Verdict.NOT_PLANNED
        if self.measured is None:
            return Verdict.NOT_MEASURED
        if self.measured < self.planned.low * (1 - TOLERANCE):
            return Verdict.BELOW
        return Verdict.ABOVE if self.measured > self.planned.high * (1 + TOLERANCE) else Verdict.AS_PLANNED


@dataclass(frozen=True, slots=True)
class Word:
    """One fact of one link at one site, in words. planned: None with `why`; measured: None where nothing was seen of it."""

    link: str
    site: str
    figure: str
    planned: str | None
    measured: str | None
    basis: Basis
    drift: Verdict | None = None
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.planned is None:
            return Verdict.NOT_PLANNED
        if self.measured is None:
            return Verdict.NOT_MEASURED
        return self.drift or Verdict.AS_PLANNED


def compared(outcome: Outcome, measured: Measured) -> tuple[Line | Word, ...]:
    """Everything that a plan predicts of a link, beside what one site says of it."""
    return (*_figures(outcome, measured), *_words(outcome, measured))


def _figures(outcome: Outcome, measured: Measured) -> Iterator[Line]:
    found, site, link = outcome.feasibility, measured.site, outcome.link
    store, drain = found.store, measured.drain_bps or None
    why = "; ".join(found.reasons) or "no outage is stated that a store has to bridge"
    outage = None if measured.stock_bits is None or drain is None else measured.stock_bits / drain
    age = None if store is None else Span(0.0, store.exposure_s, store.exposure_s)

    def line(figure: str, unit: str, planned: Span | None, value: float | None, why: str = "") -> Line:
        return Line(outcome.name, site, figure, unit, planned, value, measured.basis, why)

    yield line("key rate", "bit/s", found.skr_bps.span if found.skr_bps else None, measured.skr_bps, why)
    yield line("error rate", "", _qber(outcome), measured.qber, "no model of its devices, or no loss")
    yield line("time to empty", "s", Span.point(store.outage_s) if store else None, outage, why)
    yield line("pool age p95", "s", age, measured.age_p95_s, why)
    every, unstated = link.rekey_s, "rekey_s is not stated"
    yield line("rotation", "s", Span.point(every) if every else None, measured.rotation_s, unstated)
    soon = Span(0.0, 0.0, DELIVERY_SHARE * every) if every else None
    yield line("delivery p95", "s", soon, measured.delivery_p95_s, unstated)


def _qber(outcome: Outcome) -> Span | None:
    """None where relays part the path: then each hop has one of its own."""
    found = outcome.feasibility
    return None if found.loss_db is None or found.relays else qber_span(found.equipment, found.loss_db.span)


def level_of(pattern: Pattern) -> Protection:
    """The level that keys of a pattern have at least."""
    if pattern.has_qkd:
        return Protection.HYBRID
    return Protection.PQC if Layer.PQC in pattern.layers else Protection.CLASSICAL


@dataclass(frozen=True, slots=True)
class _Teller:
    """Of one link at one site."""

    outcome: Outcome
    measured: Measured

    def word(self, figure: str, planned: str | None, seen: str | None, drift: Verdict | None, why: str = "") -> Word:
        return Word(self.outcome.name, self.measured.site, figure, planned, seen, self.measured.basis, drift, why)

    def level(self, figure: str, seen: Sequence[Protection]) -> Word:
        least = level_of(self.outcome.pattern)
        asked = f"{least.label} or more" if least < Protection.HYBRID else least.label
        drift = Verdict.BELOW if seen and min(seen) < least else None
        return self.word(figure, asked, ", ".join(each.label for each in seen) or None, drift)

    def suites(self) -> Word:
        ciphers = tuple(dict.fromkeys(p.cipher for p in self.outcome.link.protocols if p.cipher))
        suites = tuple(dict.fromkeys(tunnel.suite for tunnel in self.measured.tunnels if tunnel.suite))
        other = None if all(covers(suites, cipher) for cipher in ciphers) else Verdict.OTHER
        return self.word("suites", ", ".join(ciphers) or None, ", ".join(suites) or None, other, "no cipher is stated")

    def passed(self) -> Iterator[Word]:
        """Relays that blocks came by, and whose houses they stand in."""
        found, passed, ends = self.outcome.feasibility, self.measured.relays, self.outcome.link.ends
        sites = () if found.relays == 0 else found.sites
        strange = Verdict.OTHER if set(passed or ()) - set(sites or ()) else None
        why = "; ".join(found.reasons) or "no sites for its relays are known"
        yield self.word("relays", _named(sites), _named(passed), strange, why)
        planned = None if sites is None else self._owners((*ends, *sites))
        seen = None if passed is None else self._owners((*ends, *passed))
        other = Verdict.OTHER if set(seen or ()) - set(planned or ()) else None
        stated = planned if planned and all(planned) else None
        yield self.word("owners", _named(stated), _named(seen), other, "owners of its sites are not stated")

    def _owners(self, sites: Iterable[str]) -> tuple[str, ...]:
        known = self.outcome.estate.sites
        return tuple(dict.fromkeys(known[site].owner if site in known else f"nobody knows ({site})" for site in sites))


def _words(outcome: Outcome, measured: Measured) -> Iterator[Word]:
    teller = _Teller(outcome, measured)
    yield teller.level("keys given", measured.given)
    yield teller.level("policy asks", () if measured.requires is None else (measured.requires,))
    yield teller.level("tunnels", tuple(sorted({tunnel.protection for tunnel in measured.tunnels})))
    yield teller.suites()
    yield from teller.passed()


def _named(names: Sequence[str] | None) -> str | None:
    return None if names is None else ", ".join(name or "not stated" for name in names) or "none"


def _owners(outcome: Outcome, sites: Iterable[str]) -> tuple[str, ...]:
    known = outcome.estate.sites
    return tuple(dict.fromkeys(known[site].owner if site in known else f"unknown ({site})" for site in sites))


def paired(outcomes: Sequence[Outcome], measured: Measured) -> Outcome | Unknown:
    """The link of the estate that a site's link is: of the same name, or else the only one between the same two sites."""
    named = [outcome for outcome in outcomes if outcome.name == measured.link]
    ends = {measured.site, measured.peer}
    between = named or [outcome for outcome in outcomes if set(outcome.link.ends) == ends]
    if len(between) == 1:
        return between[0]
    return Unknown(
        (f"{measured.site} has a link {measured.link} with {measured.peer}, and the estate knows none such",)
    )
