"""What the plan found for each link, side by side: from classification to cost, as a report needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from keystrand.plan.claims import Ground
from keystrand.plan.classify import Classified
from keystrand.plan.cost import Bill, Costs, bill_of, cost
from keystrand.plan.equipment import Equipment
from keystrand.plan.estate import Control, Estate, Link, Medium, PathType
from keystrand.plan.exposure import Exposure, exposed
from keystrand.plan.fact import Answer, Basis, Figure, Span, Unknown, figure
from keystrand.plan.feasibility import Feasibility
from keystrand.plan.flips import Flip, flips
from keystrand.plan.gates import Gate
from keystrand.plan.pattern import Layer, Pattern
from keystrand.plan.positions import Deadline, deadlines
from keystrand.plan.posture import key_exchange
from keystrand.plan.residual import Build, Corners, corners
from keystrand.plan.roadmap import Roadmap, roadmap

NOW: Final = "now"
WITH_PQC: Final = "with PQC"
AS_DECIDED: Final = "as decided"
TURNED_MAX: Final = 1500
"""Links up to which each is asked what would change it: some hundredths of a second a link, on a large map a tenth."""
NOT_TURNED: Final = "not looked for in so large an estate; `keystrand plan explain` does it link by link"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One link. pattern: what to build now; meant: what it is once its gates are open. reasons: why, in words.

    own: device profiles of the user's files. costs: of patterns.
    """

    estate: Estate
    name: str
    classified: Classified
    feasibility: Feasibility
    pattern: Pattern
    meant: Pattern
    reasons: tuple[str, ...]
    own: Mapping[str, Equipment] = field(default_factory=dict)
    costs: Mapping[Pattern, Costs | Unknown] = field(default_factory=dict)

    @property
    def link(self) -> Link:
        return self.estate.links[self.name]

    @property
    def today(self) -> Pattern:
        """What protects it now: post-quantum only where that was seen, or stated, of every protocol."""
        return Pattern.PQC if self.is_migrated is Answer.YES else Pattern.CLASSICAL

    @property
    def is_migrated(self) -> Answer:
        """Whether key establishment is post-quantum already."""
        answers = {key_exchange(protocol) for protocol in self.link.protocols} - {Answer.NOT_APPLICABLE}
        return answers.pop() if len(answers) == 1 else Answer.NO if Answer.NO in answers else Answer.UNKNOWN

    @cached_property
    def flips(self) -> tuple[Flip, ...]:
        """Single changes that would change the decision, found by asking the rules again; none are looked for in a large
        estate, whose links are asked one by one (`keystrand plan explain`)."""
        return flips(self.estate, self.name, self.own) if len(self.estate.links) <= TURNED_MAX else ()

    @property
    def unturned(self) -> str:
        """Why there are no flips to tell of."""
        return "no single change that was looked for" if len(self.estate.links) <= TURNED_MAX else NOT_TURNED

    @property
    def relays(self) -> int:
        """On its QKD path, if it has one or waits for one; else 0."""
        return (self.feasibility.relays or 0) if self.meant.has_qkd else 0

    @property
    def exposure(self) -> Exposure | Unknown:
        """Of classically protected traffic."""
        return exposed(self.estate, self.classified.horizon_years)

    @property
    def starved(self) -> Figure | None:
        """Share of time without QKD keys: the model of outages bounds it from above, and that bound counts as likely."""
        store = self.feasibility.store
        if store is None or store.starvation is None:
            return None
        return Figure(Span(0.0, store.starvation, store.starvation), Basis.SIMULATED)

    @cached_property
    def worlds(self) -> Corners | Unknown:
        return corners(self.estate, self.classified.horizon_years, self.starved)

    @cached_property
    def risks(self) -> Mapping[str, Span] | Unknown:
        """Residual risk now, with PQC alone, and as decided; the endpoint floor stands in each."""
        worlds = self.worlds
        if isinstance(worlds, Unknown):
            return worlds
        patterns = {NOW: self.today, WITH_PQC: Pattern.PQC, AS_DECIDED: self.pattern}
        return {label: worlds.residual(self.build(pattern)) for label, pattern in patterns.items()}

    @property
    def risk_basis(self) -> Basis:
        return self.worlds.basis if isinstance(self.worlds, Corners) else Basis.ASSUMED

    def build(self, pattern: Pattern) -> Build:
        """The pattern as it would stand on this link."""
        paths = max(2, self.link.disjoint_paths) if pattern is Pattern.PQC_QKD_MULTI else self.link.disjoint_paths
        return Build(
            pattern=pattern,
            interaction=self.link.interaction,
            relays=(self.feasibility.relays or 0,) * paths,
            on_exhaustion=self.link.on_exhaustion,
        )

    @property
    def deadlines(self) -> tuple[Deadline, ...]:
        return deadlines(
            self.estate, self.name, figure(self.estate.assumptions.migration_years), migrated=self.is_migrated
        )

    @property
    def adversary(self) -> str:
        """Who could read it, from what the link is: the fourth axis of the leadership page."""
        if self.classified.no_quantum_treatment:
            return "a listener today; later nobody, for the data is stale"
        media = {segment.medium for segment in self.link.segments}
        if self.classified.path is PathType.DEVICE_CLOUD:
            who = "anybody on a path that we do not know"
        elif Medium.SERVICE in media or self.classified.control is Control.THIRD_PARTY:
            who = "the carrier, or whoever is inside it"
        elif self.classified.control is Control.UNKNOWN:
            who = "unknown: nobody has said who runs the path"
        else:
            who = "whoever gets to our fibre"
        return f"{who}; records now, decrypts later"

    @property
    def ground(self) -> Ground:
        """What its topology permits to be said."""
        split = self.pattern is Pattern.PQC_QKD_MULTI and self.link.disjoint_paths > 1
        return Ground(
            relay_free=self.pattern.has_qkd and not self.relays, split=split, padded=self.pattern is Pattern.PQC_QKD_OTP
        )


@dataclass(frozen=True)
class Plan:
    """The whole: an outcome for every link, in the order of the estate."""

    estate: Estate
    outcomes: tuple[Outcome, ...]

    @property
    def patterns(self) -> dict[str, Pattern]:
        return {outcome.name: outcome.pattern for outcome in self.outcomes}

    @property
    def meant(self) -> dict[str, Pattern]:
        """Once the gates are open."""
        return {outcome.name: outcome.meant for outcome in self.outcomes}

    @property
    def routes(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Of pilots over relays, by site from end to end, as far as sites for those are known."""
        ways = {o.name: (o.link.ends[0], *(o.feasibility.sites or ()), o.link.ends[1]) for o in self.pilots}
        return {name: (way,) for name, way in ways.items() if len(way) > 2}

    @property
    def with_qkd(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.pattern.has_qkd)

    @property
    def pilots(self) -> tuple[Outcome, ...]:
        """With QKD now, or once their gates are open: those that the gates ask about."""
        return tuple(outcome for outcome in self.outcomes if outcome.meant.has_qkd)

    @property
    def waiting(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.pilots if not outcome.pattern.has_qkd)

    @property
    def with_pqc(self) -> tuple[Outcome, ...]:
        """QKD links included: PQC is in all of them."""
        return tuple(outcome for outcome in self.outcomes if Layer.PQC in outcome.pattern.layers)

    @cached_property
    def roadmap(self) -> Roadmap:
        """Of what is meant: its gates ask about pilots that wait for them, too."""
        return roadmap(self.estate, self.meant)

    @property
    def gates(self) -> tuple[Gate, ...]:
        return self.roadmap.gates

    def bill(self, patterns: Mapping[str, Pattern]) -> Bill | Unknown:
        """Everything that these patterns need, together."""
        bills = [bill_of(o.link, patterns[o.name], o.feasibility.hops) for o in self.outcomes]
        missing = [
            f"{o.name}: {why}"
            for o, b in zip(self.outcomes, bills, strict=True)
            if isinstance(b, Unknown)
            for why in b.reasons
        ]
        known = [bill for bill in bills if isinstance(bill, Bill)]
        return (
            Unknown(tuple(missing)) if missing else sum(known[1:], known[0]) if known else Bill(endpoints=0, pqc=False)
        )

    @property
    def costs(self) -> Costs | Unknown:
        """Of all decisions together; a key manager that two links share is counted once."""
        return self._priced(self.patterns)

    @property
    def budget(self) -> Costs | Unknown:
        """The same with the hardware of pilots that still wait: what it comes to once their gates are open."""
        return self._priced(self.meant)

    def _priced(self, patterns: Mapping[str, Pattern]) -> Costs | Unknown:
        bill = self.bill(patterns)
        return bill if isinstance(bill, Unknown) else cost(self.estate, bill)

    @property
    def ground(self) -> Ground:
        """What may be said of all its QKD links together. Without any, nothing may be said of them."""
        grounds = [outcome.ground for outcome in self.with_qkd]
        return Ground(
            relay_free=bool(grounds) and all(g.relay_free for g in grounds),
            split=bool(grounds) and all(g.split or g.relay_free for g in grounds),
            padded=bool(grounds) and all(g.padded for g in grounds),
        )
