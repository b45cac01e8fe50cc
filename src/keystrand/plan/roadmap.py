"""The roadmap: steps in the only order that is accepted, with their gates, and the estate's own dates held against it.

Inventory, then post-quantum cryptography; key manager and observability are designed before the first pilot, of one or two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from keystrand.plan.estate import Estate
from keystrand.plan.finding import Finding, Severity
from keystrand.plan.gates import Gate, gates
from keystrand.plan.governance import Milestone
from keystrand.plan.pattern import Layer, Pattern
from keystrand.plan.shelf import shipped_rows
from keystrand.plan.stages import Stage


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step, as shipped. `qkd`: only where a link has QKD."""

    name: str
    stage: Stage
    says: str
    after: tuple[str, ...] = ()
    qkd: bool = False


@dataclass(frozen=True, slots=True)
class Leg:
    """A step in this estate: the links that it is about, and the estate's own dates."""

    step: Step
    links: tuple[str, ...]
    planned: Milestone


@dataclass(frozen=True, slots=True)
class Roadmap:
    """Steps in order, the gates, and what is wrong with the estate's own order."""

    legs: tuple[Leg, ...]
    gates: tuple[Gate, ...]
    findings: tuple[Finding, ...]

    @property
    def is_rejected(self) -> bool:
        """Whether the estate's own dates, or the stage it says it is in, break the order."""
        return any(finding.severity is Severity.BLOCKING for finding in self.findings)


def roadmap(estate: Estate, patterns: Mapping[str, Pattern]) -> Roadmap:
    """From the decided pattern of every link."""
    has_qkd = any(pattern.has_qkd for pattern in patterns.values())
    steps = [step for step in shipped_rows("roadmap", "steps", Step) if has_qkd or not step.qkd]
    legs = tuple(Leg(step, _links(step, patterns), _planned(estate, step.name)) for step in steps)
    found = gates(estate, patterns)
    return Roadmap(legs, found, (*_disordered(estate, steps), *_ahead(estate, found), *_many(estate, patterns)))


def _links(step: Step, patterns: Mapping[str, Pattern]) -> tuple[str, ...]:
    if step.qkd:
        return tuple(name for name, pattern in patterns.items() if pattern.has_qkd)
    if step.name == "pqc":
        return tuple(name for name, pattern in patterns.items() if Layer.PQC in pattern.layers)
    return ()


def _disordered(estate: Estate, steps: list[Step]) -> Iterator[Finding]:
    """Steps that the estate plans before what they stand on."""
    known = {step.name for step in steps}
    for name in estate.governance.milestones:
        if name not in known:
            yield Finding(("governance", "milestones", name), f"{name} is no step of this roadmap", "R149")
    for step in steps:
        for earlier in step.after:
            yield from _out_of_order(estate, step, earlier)


def _planned(estate: Estate, step: str) -> Milestone:
    return estate.governance.milestones.get(step, Milestone())


def _out_of_order(estate: Estate, step: Step, earlier: str) -> Iterator[Finding]:
    ours, theirs = _planned(estate, step.name), _planned(estate, earlier)
    row = "R094" if earlier == "observability" else "R149"
    where = ("governance", "milestones", step.name, "starts")
    if ours.starts is None:
        return
    if theirs.ends is None:
        text = f"{step.name} is planned for {ours.starts}, and {earlier}, which comes before it, has no end"
        yield Finding(where, text, row, Severity.BLOCKING, f"state governance.milestones.{earlier}.ends")
    elif ours.starts < theirs.ends:
        text = f"{step.name} is planned for {ours.starts}, before {earlier} ends on {theirs.ends}"
        yield Finding(
            where, text, row, Severity.BLOCKING, "inventory, then PQC, then key manager and observability, then a pilot"
        )


def _ahead(estate: Estate, found: tuple[Gate, ...]) -> Iterator[Finding]:
    """The estate says that it is in a stage whose gate, or one before it, is shut."""
    where = ("governance", "stage")
    try:
        stage = Stage(estate.governance.stage)
    except ValueError:
        names = ", ".join(Stage)
        yield Finding(where, f"{estate.governance.stage!r} is no stage", "R149", Severity.BLOCKING, f"one of {names}")
        return
    for gate in found:
        if gate.into.rank <= stage.rank and not gate.is_open:
            text = f"the estate says it is in {stage}, and the gate into {gate.into} is shut by {len(gate.blocks)} findings"
            yield Finding(where, text, "R126", Severity.BLOCKING, "keystrand plan gates names them")


def _many(estate: Estate, patterns: Mapping[str, Pattern]) -> Iterator[Finding]:
    pilots = [name for name, pattern in patterns.items() if pattern.has_qkd]
    if len(pilots) > estate.pilots_max:
        text = f"{len(pilots)} links have QKD, and {estate.pilots_max} pilots at one time are the limit: {', '.join(pilots)}"
        yield Finding(("pilots_max",), text, "R008", Severity.WARNING, "begin with those of the highest impact")
