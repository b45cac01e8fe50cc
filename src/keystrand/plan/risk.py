"""The risk of one link before and after: what a later machine reads today, and what is left with each layer added."""

from __future__ import annotations

from dataclasses import dataclass

from keystrand.plan.estate import FailurePolicy
from keystrand.plan.exposure import Exposure
from keystrand.plan.fact import Answer, Basis, Figure, Span, Unknown
from keystrand.plan.montecarlo import Trial
from keystrand.plan.outcome import Outcome
from keystrand.plan.pattern import Interaction, Pattern
from keystrand.plan.residual import Build, inputs


@dataclass(frozen=True, slots=True)
class Rung:
    """One pattern of the ladder. left: residual risk as a band. no_worse: share of draws with no more than the one before."""

    build: Build
    left: Span
    no_worse: float


@dataclass(frozen=True, slots=True)
class LinkRisk:
    """From classical hardening up to what was decided; bands of `Trial.band`.

    notes: what was counted at its worst, and why. migrated: whether the key exchange in use is post-quantum already.
    """

    link: str
    exposure: Exposure
    rungs: tuple[Rung, ...]
    basis: Basis
    notes: tuple[str, ...]
    migrated: Answer

    @property
    def before(self) -> Span:
        """Under what protects the link today: PQC only where all that was seen of it says so."""
        today = 1 if self.migrated is Answer.YES and len(self.rungs) > 1 else 0
        return self.rungs[today].left

    @property
    def after(self) -> Span:
        return self.rungs[-1].left


def ladder(decided: Build) -> tuple[Build, ...]:
    """Classical, PQC, and what was decided where that has more: each has all layers of the one before."""
    below = (Build(pattern=Pattern.CLASSICAL), Build(pattern=Pattern.PQC))
    return (*below, decided) if decided.pattern.has_qkd else below[: below.index(Build(pattern=decided.pattern)) + 1]


def link_risk(outcome: Outcome, trial: Trial) -> LinkRisk | Unknown:
    """Risk of a link over all draws of `trial`, up to what was decided for it."""
    exposure, horizon = outcome.exposure, outcome.classified.horizon_years
    if isinstance(exposure, Unknown):
        return exposure
    assert horizon is not None, "without it exposure is unknown"
    decided, starved = outcome.build(outcome.pattern), outcome.starved
    builds = ladder(decided)
    rungs = [
        Rung(build, trial.band(horizon, starved, build), trial.no_worse(horizon, starved, build, before))
        for build, before in zip(builds, (builds[0], *builds), strict=False)
    ]
    basis = Basis.weakest(f.basis for f in inputs(outcome.estate.assumptions, horizon, starved).values())
    notes = _notes(decided, starved, exposure)
    return LinkRisk(outcome.name, exposure, tuple(rungs), basis, notes, outcome.is_migrated)


def _notes(decided: Build, starved: Figure | None, exposure: Exposure) -> tuple[str, ...]:
    found = []
    if decided.pattern.has_qkd and decided.on_exhaustion is FailurePolicy.UNANSWERED:
        found.append("fail-open or fail-closed is not answered: the worse of both is counted")
    leans = decided.on_exhaustion is not FailurePolicy.CLOSED or decided.interaction is Interaction.PQC_FALLBACK
    if decided.pattern.has_qkd and starved is None and leans:
        found.append("how often QKD keys run out is unknown: QKD gets no credit where traffic goes on without them")
    if exposure.beyond_asked:
        found.append("leans on years that the experts were not asked about: the true risk may be higher")
    return tuple(found)
