"""What a conformance run found, for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "FAILED"
    ADVICE = "advice"  # a "should" that is not met
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One case. `why` is empty when it passed."""

    name: str
    clause: str
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All cases of a run. It conforms when no "must" failed and at least one case passed."""

    outcomes: tuple[Outcome, ...]

    def count(self, verdict: Verdict) -> int:
        return sum(outcome.verdict is verdict for outcome in self.outcomes)

    @property
    def conforms(self) -> bool:
        return self.count(Verdict.FAILED) == 0 and self.count(Verdict.PASSED) > 0


def report_table(report: Report) -> str:
    """The report as text: one line per case, the sum at the end."""
    lines = [_line(outcome) for outcome in report.outcomes]
    sums = ", ".join(f"{report.count(verdict)} {verdict.value.lower()}" for verdict in Verdict)
    verdict = "conforms" if report.conforms else "does not conform"
    return "\n".join([*lines, "", f"{len(lines)} cases: {sums}", f"ETSI GS QKD 014 V1.1.1: {verdict}"])


def _line(outcome: Outcome) -> str:
    line = f"{outcome.verdict.value:<8} {outcome.clause:<5} {outcome.name}"
    return f"{line}: {outcome.why}" if outcome.why else line
