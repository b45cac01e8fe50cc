"""One pattern of protection per link, with the rules that led to it: what speaks for it, what against more, what is added.

Layers are only ever added to what protects the link today. Names of links, sites and products play no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keystrand.plan import check
from keystrand.plan.classify import Classified, classify
from keystrand.plan.equipment import Equipment
from keystrand.plan.estate import Estate, Link
from keystrand.plan.fact import Answer
from keystrand.plan.feasibility import NOBODYS, Feasibility, feasible
from keystrand.plan.finding import Finding, Severity, blocking
from keystrand.plan.gates import prerequisites
from keystrand.plan.pattern import Interaction, Layer, Pattern
from keystrand.plan.rules import GATES, HOLDS, Case, Fired, baseline, fire, raised


@dataclass(frozen=True, slots=True)
class Decision:
    """For one link. interaction: of QKD and PQC, None without QKD; qkd_alone: who accepted QKD without PQC, for the record;
    fired: every rule that was asked, in order; against: those that keep QKD out, empty where it is in; holds: those that QKD
    waits for. Until they are met `now` is what to build."""

    link: str
    pattern: Pattern
    interaction: Interaction | None
    qkd_alone: str
    fired: tuple[Fired, ...]
    findings: tuple[Finding, ...]

    @property
    def against(self) -> tuple[Fired, ...]:
        return tuple(f for f in self.fired if f.rule in GATES and f.answer is not Answer.YES)

    @property
    def holds(self) -> tuple[Fired, ...]:
        return tuple(f for f in self.fired if f.rule in HOLDS and f.answer is not Answer.YES)

    @property
    def now(self) -> Pattern:
        return Pattern.PQC if self.holds else self.pattern

    @property
    def led(self) -> Fired:
        """The rule that gave the pattern."""
        return next(f for f in reversed(self.fired) if f.rule.pattern is self.pattern and f.answer is Answer.YES)

    @property
    def why(self) -> str:
        """In one line: what gave the pattern, what keeps QKD out, and what it waits for."""
        shut = ", ".join(f.rule.key for f in self.against)
        waits = "".join(f"; QKD waits: {f.evidence}" for f in self.holds)
        return f"{self.led.rule.key} ({self.led.rule.requirement})" + (f"; no QKD: {shut}" if shut else "") + waits


def decide(estate: Estate, name: str, classified: Classified, feasibility: Feasibility) -> Decision:
    """For the link `name`."""
    case = Case(estate, name, classified, feasibility)
    fired = [*baseline(case)]
    pattern = fired[-1].rule.pattern
    assert pattern is not None, "every baseline gives a pattern"
    if pattern is Pattern.PQC:
        gates = [fire(rule, case) for rule in GATES]
        fired += gates
        if all(gate.answer is Answer.YES for gate in gates):
            uses = [*raised(case)]
            fired += uses
            pattern = uses[-1].rule.pattern or pattern
            fired += [fire(rule, case) for rule in HOLDS]
    alone = case.link.qkd_alone_accepted_by if pattern.has_qkd else ""
    interaction = case.link.interaction if pattern.has_qkd else None
    found = (*classified.findings, *feasibility.findings, *_findings(case, pattern, fired))
    return Decision(name, pattern, interaction, alone, tuple(fired), found)


def decided(estate: Estate, name: str, own: Mapping[str, Equipment] = NOBODYS) -> Decision:
    """From the estate alone. `own`: profiles from the user's files."""
    return decide(estate, name, classify(estate, name), feasible(estate, name, own))


def _findings(case: Case, pattern: Pattern, fired: list[Fired]) -> list[Finding]:
    where, found = ("links", case.name), []
    shut = [f for f in fired if f.rule in GATES and f.answer is not Answer.YES]
    if check.plans_qkd(case.estate, case.link) and not pattern.has_qkd:
        reasons = "; ".join(f"{f.rule.key}: {f.evidence}" for f in shut) or fired[-1].evidence
        says = f"QKD is named here and would be for show: {reasons}"
        found.append(Finding(where, says, "R143", hint="answer these first, or take the devices out of the plan"))
    if excluded := next((f for f in shut if f.rule.key == "permitted"), None):
        found.append(Finding(where, f"PQC only: {excluded.evidence}", "R059", Severity.NOTE))
    refused = next((f for f in fired if f.rule.key == "pad" and f.answer in (Answer.NO, Answer.UNKNOWN)), None)
    if refused is not None:
        says = f"one-time pad refused: {refused.evidence}"
        found.append(
            Finding((*where, "otp_bytes_per_day"), says, "R077", hint="keys refresh a standard cipher instead")
        )
    if case.link.qkd_alone_accepted_by and pattern.has_qkd:
        says = f"QKD without PQC: risk accepted by {case.link.qkd_alone_accepted_by}; the plan keeps PQC beside it"
        found.append(Finding((*where, "qkd_alone_accepted_by"), says, "R012"))
    if pattern.has_qkd:
        found += blocking(prerequisites(case.estate, case.name))
    return found


@dataclass(frozen=True, slots=True)
class Change:
    """What a decision does to a link: controls that stay, layers that come. Nothing goes."""

    keeps: tuple[str, ...]
    adds: tuple[Layer, ...]

    @property
    def after(self) -> tuple[str, ...]:
        return (*self.keeps, *self.adds)


def change(link: Link, pattern: Pattern) -> Change:
    """From what protects the link today to its pattern."""
    today = tuple(dict.fromkeys((*link.controls, *(f"{p.name} {p.cipher}".strip() for p in link.protocols))))
    return Change(today, tuple(layer for layer in pattern.layers if layer not in today))


def removed(before: Link, after: Change) -> tuple[str, ...]:
    """Controls in force that a plan would take away: the validator of "only ever added"."""
    today = (*before.controls, *(f"{p.name} {p.cipher}".strip() for p in before.protocols))
    return tuple(control for control in today if control not in after.after)
