"""The risk of one link before and after: what a later machine reads today, and what is left with each layer added."""

from __future__ import annotations

from dataclasses import dataclass

from keystrand.plan.estate import Estate, FailurePolicy, Link
from keystrand.plan.exposure import Exposure, exposed
from keystrand.plan.fact import Basis, Figure, Span, Unknown
from keystrand.plan.montecarlo import Trial
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
    """From classical hardening up to what was decided; bands of `Trial.band`. notes: what was counted at its worst, and why."""

    link: str
    exposure: Exposure
    rungs: tuple[Rung, ...]
    basis: Basis
    notes: tuple[str, ...]

    @property
    def before(self) -> Span:
        return self.rungs[0].left

    @property
    def after(self) -> Span:
        return self.rungs[-1].left


def build_of(link: Link, pattern: Pattern, relays: int) -> Build:
    """How the pattern would stand on this link, with `relays` on each of the disjoint paths that it wants."""
    paths = max(2, link.disjoint_paths) if pattern is Pattern.PQC_QKD_MULTI else link.disjoint_paths
    return Build(
        pattern=pattern,
        interaction=link.interaction,
        relays=(relays,) * paths,
        on_exhaustion=link.on_exhaustion,
    )


def ladder(decided: Build) -> tuple[Build, ...]:
    """Classical, PQC, and what was decided where that has more: each has all layers of the one before."""
    below = (Build(pattern=Pattern.CLASSICAL), Build(pattern=Pattern.PQC))
    return (*below, decided) if decided.pattern.has_qkd else below[: below.index(Build(pattern=decided.pattern)) + 1]


def link_risk(
    estate: Estate, name: str, trial: Trial, *, horizon: Figure | None, starved: Figure | None, decided: Build
) -> LinkRisk | Unknown:
    """Risk of the link `name` over all draws of `trial`. starved: share of time without QKD keys, None: unknown."""
    exposure = exposed(estate, horizon)
    if isinstance(exposure, Unknown) or horizon is None:
        return exposure if isinstance(exposure, Unknown) else Unknown(("horizon",))
    builds = ladder(decided)
    rungs = [
        Rung(build, trial.band(horizon, starved, build), trial.no_worse(horizon, starved, build, before))
        for build, before in zip(builds, (builds[0], *builds), strict=False)
    ]
    basis = Basis.weakest(f.basis for f in inputs(estate.assumptions, horizon, starved).values())
    return LinkRisk(name, exposure, tuple(rungs), basis, _notes(decided, starved, exposure))


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
