"""Gates between the stages: open questions, figures that are not reached, and people in the wrong place keep one shut.

A gate names the text of each question that blocks it. A figure that is only assumed opens none: it has to be measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from keystrand.plan.estate import Estate, Link
from keystrand.plan.fact import Answer, Basis, Figure, Span, figure
from keystrand.plan.finding import Finding, Severity, blocking
from keystrand.plan.layers import orphans
from keystrand.plan.pattern import Layer, Pattern
from keystrand.plan.people import overdue, staffing
from keystrand.plan.posture import key_exchange
from keystrand.plan.questions import questions
from keystrand.plan.stages import Criterion, Stage, stages
from keystrand.plan.templates import horizon_of, impact_of

UP_TO_PILOT: Final = (Stage.PQC, Stage.PILOT)


@dataclass(frozen=True, slots=True)
class Exit:
    """A criterion beside the figure that was reached; None: nobody has measured it."""

    criterion: Criterion
    reached: Figure | None

    @property
    def is_met(self) -> bool:
        known = self.reached is not None and self.reached.basis is not Basis.ASSUMED
        return (
            known
            and self.reached is not None
            and self.criterion.is_met_by(self.reached.span.low, self.reached.span.high)
        )

    def finding(self) -> Finding:
        where = ("governance", "measures", self.criterion.measure)
        text = f"{self.criterion.says}: {self.criterion.bound} is asked, {self._have()}"
        return Finding(
            where, text, self.criterion.requirement, Severity.BLOCKING, "measure it, and state it with its source"
        )

    def _have(self) -> str:
        if self.reached is None:
            return "nobody has measured it"
        span = self.reached.span
        figures = f"{span.low:.4g}" if span.low == span.high else f"{span.low:.4g} to {span.high:.4g}"
        return f"{figures} is only assumed" if self.reached.basis is Basis.ASSUMED else f"{figures} is reached"


@dataclass(frozen=True, slots=True)
class Gate:
    """The way into one stage: what has to be answered, and what the stage before it has to have shown."""

    into: Stage
    exits: tuple[Exit, ...]
    findings: tuple[Finding, ...]

    @property
    def blocks(self) -> tuple[Finding, ...]:
        return blocking(self.findings)

    @property
    def is_open(self) -> bool:
        return not self.blocks


def gates(estate: Estate, patterns: Mapping[str, Pattern]) -> tuple[Gate, ...]:
    """One gate into each stage after the first. `patterns`: of the links, as decided; links with QKD are the pilots."""
    pilots = [name for name, pattern in patterns.items() if pattern.has_qkd]
    return tuple(gate(estate, stage, pilots, patterns) for stage in list(Stage)[1:])


def gate(estate: Estate, into: Stage, pilots: Sequence[str], patterns: Mapping[str, Pattern]) -> Gate:
    """The way into one stage, for these pilots. Without pilots there is no QKD stage to open: nothing is asked for it."""
    before = stages()[into.rank - 1]
    if into in (Stage.PILOT, Stage.PRODUCTION) and not pilots:
        return Gate(
            into, (), (Finding(("links",), "no link has QKD: this stage is not entered", "R150", Severity.NOTE),)
        )
    exits = tuple(Exit(criterion, _reached(estate, criterion, patterns)) for criterion in before.leave)
    return Gate(into, exits, (*_asked(estate, into, pilots), *(exit_.finding() for exit_ in exits if not exit_.is_met)))


def prerequisites(estate: Estate, link: str) -> tuple[Finding, ...]:
    """What keeps this link from QKD before anything is bought: open questions and people, of every gate up to the pilot's,
    without figures of operation."""
    return tuple(finding for stage in UP_TO_PILOT for finding in _asked(estate, stage, [link]))


def shortfalls(estate: Estate, patterns: Mapping[str, Pattern]) -> tuple[Finding, ...]:
    """The figures that open the gates up to the pilot's, as far as they are not reached."""
    found = [gate(estate, stage, list(patterns), patterns).exits for stage in UP_TO_PILOT]
    return tuple(exit_.finding() for exits in found for exit_ in exits if not exit_.is_met)


def _asked(estate: Estate, into: Stage, pilots: Sequence[str]) -> Iterator[Finding]:
    for question in questions():
        if question.gate == into:
            yield from question.open(estate, pilots)
    if into is Stage.PILOT:
        yield from orphans(estate)
        yield from staffing(estate)
    if into is Stage.PRODUCTION:
        yield from overdue(estate)
        yield from _experimental(estate, pilots)


def _experimental(estate: Estate, pilots: Sequence[str]) -> Iterator[Finding]:
    """What is experimental stays out of production (R080)."""
    for link in pilots:
        for name in estate.links[link].devices:
            device = estate.devices.get(name)
            if device is not None and device.maturity != "production":
                text = f"{name} on {link} is {device.maturity or 'of unknown maturity'}"
                yield Finding(("devices", name, "maturity"), text, "R080", Severity.BLOCKING, "keep it in the pilot")


# figures ------------------------------------------------------------------------------------------------------------


def _reached(estate: Estate, criterion: Criterion, patterns: Mapping[str, Pattern]) -> Figure | None:
    computed = {
        "links_classified": _share(_is_classified(estate, link) for link in estate.links.values()),
        "links_inventoried": _share(_is_inventoried(link) for link in estate.links.values()),
        "pqc_negotiated": _share(
            _negotiates_pqc(link) for name, link in estate.links.items() if Layer.PQC in patterns[name].layers
        ),
    }
    if criterion.measure in computed:
        share = computed[criterion.measure]
        return None if share is None else Figure(Span.point(share), Basis.MEASURED)
    stated = estate.governance.measures.get(criterion.measure)
    return None if stated is None else figure(stated)


def _share(answers: Iterator[bool]) -> float | None:
    given = list(answers)
    return sum(given) / len(given) if given else None


def _is_classified(estate: Estate, link: Link) -> bool:
    classes = [estate.classes[name] for name in link.carries if name in estate.classes]
    return bool(classes) and all(horizon_of(c) is not None and bool(impact_of(c) or link.impact) for c in classes)


def _is_inventoried(link: Link) -> bool:
    return link.certificates_listed is Answer.YES and bool(link.protocols)


def _negotiates_pqc(link: Link) -> bool:
    answers = {key_exchange(protocol) for protocol in link.protocols} - {Answer.NOT_APPLICABLE}
    return answers == {Answer.YES}
