"""What the planner says of an estate besides its figures: each finding names its place, its requirement and a way out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

Where = tuple[str | int, ...]  # ("links", "basel-bern", "on_exhaustion")


class Severity(StrEnum):
    """What follows from a finding; ordered from the worst."""

    BLOCKING = "blocking"  # the plan may not go on before it is answered
    WARNING = "warning"  # the plan goes on, and says so wherever its result is used
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something missing, contradictory or worth knowing. `requirement` is a row such as "R053"."""

    where: Where
    says: str
    requirement: str
    severity: Severity = Severity.WARNING
    hint: str = ""

    @property
    def place(self) -> str:
        """`links.basel-bern.on_exhaustion`"""
        return ".".join(map(str, self.where))


def blocking(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(finding for finding in findings if finding.severity is Severity.BLOCKING)


def by_weight(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; in the order of their places among equals."""
    ranks = list(Severity)
    return sorted(findings, key=lambda f: (ranks.index(f.severity), f.place, f.requirement, f.says))
