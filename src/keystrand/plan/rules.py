"""The rules by which a link gets its layers: each a row with its requirement, a question, and a small function that answers it.

Four tables in this order. `BASELINES`: the first that holds decides between hardening and PQC. `GATES`: QKD is added only
where every one says yes; unknown keeps it shut. `RAISES`: what QKD is used for beyond refresh. `HOLDS`: what it waits for
before it is built. No rule takes a layer away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from keystrand.plan import check, gates, residual
from keystrand.plan.classify import Classified, Lifetime, Stability
from keystrand.plan.estate import Control, DeviceKind, Estate, FailurePolicy, Impact, Link
from keystrand.plan.fact import Answer, Figure, scaled
from keystrand.plan.feasibility import Feasibility
from keystrand.plan.finding import blocking
from keystrand.plan.pattern import Pattern
from keystrand.plan.positions import applying, excludes_qkd

HORIZON_LONG_YEARS: Final = (
    10.0  # from here on a second layer is worth its trouble; assumed, and a flip point of every decision
)
EXPERIMENTAL: Final = "experimental"
PRODUCTION: Final = "production"


@dataclass(frozen=True, slots=True)
class Case:
    """One link with all that the rules may look at."""

    estate: Estate
    name: str
    classified: Classified
    feasibility: Feasibility

    @property
    def link(self) -> Link:
        return self.estate.links[self.name]


Judgement = tuple[Answer, str]  # and the evidence that it rests on, in words


@dataclass(frozen=True, slots=True)
class Rule:
    """`asks` is answered by `judge`. pattern: what a yes gives, for a baseline or a raise."""

    key: str
    requirement: str
    asks: str
    judge: Callable[[Case], Judgement]
    pattern: Pattern | None = None


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule, its answer for one link, and the evidence that it used."""

    rule: Rule
    answer: Answer
    evidence: str


def fire(rule: Rule, case: Case) -> Fired:
    return Fired(rule, *rule.judge(case))


def _yes(holds: bool, evidence: str) -> Judgement:
    return (Answer.YES if holds else Answer.NO), evidence


def _horizon(case: Case) -> str:
    return "horizon unknown" if (years := case.classified.horizon_years) is None else f"horizon {words(years, 'years')}"


def words(figure: Figure, unit: str) -> str:
    """`10 years (assumed)` or `797 to 15.3k bit/s (measured)`."""
    low, high = (scaled(end) for end in (figure.span.low, figure.span.high))
    return f"{low if low == high else f'{low} to {high}'} {unit} ({figure.basis})"


# -- baselines --------------------------------------------------------------------------------------------------------


def mandated(case: Case) -> Judgement:
    demands = [p for p in applying(case.estate, case.name) if p.topic == "key-establishment" and p.binding.obliges]
    return _yes(bool(demands), "; ".join(f"{p.body}: {p.document}" for p in demands) or "no binding position on it")


def stale_within_a_day(case: Case) -> Judgement:
    return _yes(case.classified.no_quantum_treatment, _horizon(case))


def short_lived(case: Case) -> Judgement:
    short = case.classified.lifetime in (Lifetime.HOURS, Lifetime.MONTHS)
    return _yes(short and not case.classified.partial, _horizon(case))


def low_impact(case: Case) -> Judgement:
    impact = case.classified.impact
    return _yes(impact is Impact.LOW and not case.classified.partial, f"impact {impact or 'unknown'}")


def otherwise(case: Case) -> Judgement:
    return Answer.YES, f"{_horizon(case)}, impact {case.classified.impact or 'unknown'}"


BASELINES: Final = (
    Rule("mandated", "R147", "Does a binding position demand PQC key establishment?", mandated, Pattern.PQC),
    Rule("stale", "R118", "Is all that it carries stale within a day?", stale_within_a_day, Pattern.CLASSICAL),
    Rule("short", "R118", "Is all that it carries stale within a year?", short_lived, Pattern.CLASSICAL),
    Rule("low", "R072", "Is the impact of disclosure low?", low_impact, Pattern.CLASSICAL),
    Rule("pqc", "R059", "Anything else: is PQC the baseline?", otherwise, Pattern.PQC),
)


# -- gates ------------------------------------------------------------------------------------------------------------


def worth(case: Case) -> Judgement:
    impact = case.classified.impact
    if impact is None:
        return Answer.UNKNOWN, "impact unknown"
    return _yes(impact in (Impact.HIGH, Impact.CRITICAL), f"impact {impact}")


def long_horizon(case: Case) -> Judgement:
    years = case.classified.horizon_years
    if years is None:
        return Answer.UNKNOWN, "horizon unknown"
    return _yes(years.span.likely >= HORIZON_LONG_YEARS, f"{_horizon(case)}, likely {years.span.likely:.3g}")


def permitted(case: Case) -> Judgement:
    against = excludes_qkd(case.estate, case.name)
    return _yes(
        not against, "; ".join(f"{p.body} {p.says} ({p.document})" for p in against) or "no position excludes it"
    )


def path_type(case: Case) -> Judgement:
    return _yes(case.classified.default.pattern.has_qkd, f"{case.classified.path}: {case.classified.default.why}")


def controlled(case: Case) -> Judgement:
    control = case.classified.control
    if control is Control.UNKNOWN:
        return Answer.UNKNOWN, "who decides over a segment is unknown"
    return _yes(control in (Control.OWNED, Control.CONTRACTED), f"weakest segment: {control}")


def stable(case: Case) -> Judgement:
    stability = case.classified.stability
    if stability is Stability.UNKNOWN:
        return Answer.UNKNOWN, "how often the path changes is unknown"
    return _yes(stability is Stability.STATIC, f"path is {stability}")


def light_path(case: Case) -> Judgement:
    path = case.feasibility.path
    return path.quantum_path, "; ".join(path.reasons) or "a path for single photons from end to end"


def distributes(case: Case) -> Judgement:
    """A QRNG makes good random bits at one end; it brings nothing to the other."""
    kinds = [case.estate.devices[n].kind for n in case.link.devices if n in case.estate.devices]
    lone = DeviceKind.QRNG in kinds and not set(kinds) & check.QUANTUM
    return _yes(not lone, "only a QRNG: adds nothing to key distribution" if lone else "devices make keys of two ends")


def interfaces(case: Case) -> Judgement:
    found = [f.says for f in blocking(case.feasibility.findings) if f.requirement in ("R002", "R010")]
    return _yes(not found, "; ".join(found) or "devices share an interface, or none is chosen")


def enough_key(case: Case) -> Judgement:
    found = case.feasibility
    if found.skr_bps is None:
        return Answer.UNKNOWN, "key rate unknown: " + "; ".join(found.reasons)
    rate = f"key rate {words(found.skr_bps, 'bit/s')} against {scaled(found.wanted_bps)} wanted"
    able = Answer.YES if found.skr_bps.span.low >= found.wanted_bps else found.verdict
    return able, rate + (f", {_relays(found.relays)}" if found.relays else "")


def _relays(count: int) -> str:
    return "1 relay" if count == 1 else f"{count} relays"


def relay_sites(case: Case) -> Judgement:
    found = case.feasibility
    if not found.relays:
        return (Answer.YES if found.relays == 0 else Answer.UNKNOWN), "no relay needed" if found.hops else "not known"
    if found.sites is None:
        return Answer.NO, f"it takes {_relays(found.relays)}, and too few sites may hold one"
    return Answer.YES, f"relays at {', '.join(found.sites)}"


def relay_budget(case: Case) -> Judgement:
    """With PQC on top no budget is needed; alone, more than K* relays are worse than PQC alone."""
    if not case.link.qkd_alone_accepted_by:
        return Answer.YES, "combined with PQC: relays are no reason against it"
    budget, relays = residual.relay_budget(case.estate.assumptions), case.feasibility.relays or 0
    return _yes(
        relays < budget.likely, f"{_relays(relays)}, and K* is likely {budget.likely:.3g}, {budget.low:.3g} at least"
    )


def grounded(case: Case) -> Judgement:
    found = list(check.ground(case.link, ("links", case.name)))
    return _yes(
        not found, "; ".join(f.says for f in found) or "encryptor, authentication, monitor and key store are there"
    )


def prerequisites(case: Case) -> Judgement:
    found = list(check.prerequisites(case.link, ("links", case.name), case.estate.planned))
    return _yes(not found, "; ".join(f.says for f in found) or "rotation, certificates and transport are shown")


def failure_answered(case: Case) -> Judgement:
    policy = case.link.on_exhaustion
    return _yes(policy is not FailurePolicy.UNANSWERED, policy or "nobody said what traffic does without keys")


def mature(case: Case) -> Judgement:
    if case.estate.governance.stage != PRODUCTION:
        return Answer.YES, f"stage {case.estate.governance.stage}"
    devices = case.estate.devices
    raw = [name for name in case.link.devices if name in devices and devices[name].maturity == EXPERIMENTAL]
    return _yes(not raw, f"experimental: {', '.join(raw)}" if raw else "nothing experimental in production")


GATES: Final = (
    Rule("worth", "R008", "Is it one of the few links whose disclosure would hurt most?", worth),
    Rule("horizon", "R070", "Does it stay secret long enough for a second layer?", long_horizon),
    Rule("permitted", "R059", "Do the rules that bind its sites allow QKD?", permitted),
    Rule("path", "R120", "Does a path of its type carry QKD at all?", path_type),
    Rule("control", "R121", "Is every segment owned or contracted?", controlled),
    Rule("stable", "R122", "Is the path static?", stable),
    Rule("light", "R124", "Can single photons pass from end to end?", light_path),
    Rule("distributes", "R074", "Do its devices distribute keys?", distributes),
    Rule("interfaces", "R010", "Do its devices work together?", interfaces),
    Rule("rate", "R034", "Does the key rate cover the demand at its worst, with a margin?", enough_key),
    Rule("sites", "R034", "Is there a site for each relay that it needs?", relay_sites),
    Rule("budget", "R012", "Without PQC: are there fewer relays than K*?", relay_budget),
    Rule("ground", "R003", "Is there all that QKD takes for granted?", grounded),
    Rule("prerequisites", "R006", "Are rotation, certificates and transport in order?", prerequisites),
    Rule("failure", "R053", "Is it said what happens when keys run out?", failure_answered),
    Rule("mature", "R080", "Is it free of experimental parts in production?", mature),
)


# -- raises -----------------------------------------------------------------------------------------------------------


def pad(case: Case) -> Judgement:
    found = case.feasibility
    if found.otp is Answer.NOT_APPLICABLE:
        return Answer.NOT_APPLICABLE, "no payload asks for a one-time pad"
    short = "" if found.otp_shortfall is None else f"shortfall factor {found.otp_shortfall:.3g}"
    return found.otp, short or "key rate unknown or none"


def several_sources(case: Case) -> Judgement:
    relays = case.feasibility.relays or 0
    top = case.classified.impact is Impact.CRITICAL
    return _yes(top or relays > 0, f"impact {case.classified.impact}, {_relays(relays)}")


RAISES: Final = (
    Rule("pad", "R077", "Does the worst key rate cover the payload of a one-time pad?", pad, Pattern.PQC_QKD_OTP),
    Rule("several", "R076", "Is it of the top tier, or relayed?", several_sources, Pattern.PQC_QKD_MULTI),
    Rule("refresh", "R077", "Anything else: do keys refresh standard ciphers?", otherwise, Pattern.PQC_QKD),
)


# -- holds ------------------------------------------------------------------------------------------------------------


def answered(case: Case) -> Judgement:
    shut = blocking(gates.prerequisites(case.estate, case.name))
    rows = ", ".join(dict.fromkeys(finding.requirement for finding in shut))
    return _yes(not shut, f"{points(len(shut))} open: {rows}" if shut else "every question has its answer")


def points(count: int) -> str:
    return "1 point is" if count == 1 else f"{count} points are"


HOLDS: Final = (Rule("answered", "R109", "Is everything answered that has to be before a pilot?", answered),)


def baseline(case: Case) -> Iterator[Fired]:
    """Up to and with the first that holds; the last one always does."""
    for rule in BASELINES:
        yield (fired := fire(rule, case))
        if fired.answer is Answer.YES:
            return


def raised(case: Case) -> Iterator[Fired]:
    for rule in RAISES:
        yield (fired := fire(rule, case))
        if fired.answer is Answer.YES:
            return
