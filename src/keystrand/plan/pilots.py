"""The whole estate decided, and which of its QKD candidates come first: a few pilots, ranked by what is known of each.

There is no score. Candidates are put in order by whether they could begin, then by impact, by how many of four criteria they
meet, by horizon, relays and margin; the order of the file decides among equals, never a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from keystrand.plan import check
from keystrand.plan.classify import Classified, classify
from keystrand.plan.cost import Bill, Costs, bill_of, cost
from keystrand.plan.decide import Decision, decide
from keystrand.plan.equipment import Equipment
from keystrand.plan.estate import Control, Estate, Impact
from keystrand.plan.fact import Answer, Unknown
from keystrand.plan.feasibility import NOBODYS, Feasibility, feasible
from keystrand.plan.finding import Finding
from keystrand.plan.gates import shortfalls
from keystrand.plan.pattern import Pattern
from keystrand.plan.positions import applying, conflicts

FIBRE_MS_PER_KM: Final = 0.0049  # light in glass, one way
WORTHY: Final = {"worth", "horizon", "permitted"}
EVERYWHERE: Final = 0.5  # share of links that name QKD from which on an estate asks for it everywhere


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with its criteria: latency, control, compliance, operational maturity."""

    link: str
    criteria: tuple[tuple[str, Answer], ...]

    @property
    def met(self) -> int:
        return sum(answer is Answer.YES for _, answer in self.criteria)


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that a candidate waits for: answers, figures, or its turn."""

    key: str
    requirement: str
    says: str

    def __str__(self) -> str:
        return f"QKD waits: {self.says} ({self.requirement})"


@dataclass(frozen=True, slots=True)
class Everywhere:
    """QKD on every link of the estate: what that would be."""

    links: int
    feasible: int
    infeasible: int
    unknown: int
    relays: int
    cost: Costs | Unknown


@dataclass(frozen=True, slots=True)
class Plan:
    """Every link with its decision, candidates for QKD in their order, and how many of them are piloted.

    waits: what the QKD of each candidate waits for; empty where it can begin.
    """

    classified: Mapping[str, Classified]
    feasibilities: Mapping[str, Feasibility]
    decisions: Mapping[str, Decision]
    ranked: tuple[Ranked, ...]
    pilots_max: int
    waits: Mapping[str, tuple[Wait, ...]]
    findings: tuple[Finding, ...]

    @property
    def pilots(self) -> tuple[str, ...]:
        """The first of them, whether they can begin or wait."""
        return tuple(each.link for each in self.ranked[: self.pilots_max])

    def meant(self, name: str) -> Pattern:
        """The pattern of the next stage: with QKD where the link is a pilot, or will be once its gates are open."""
        pattern = self.decisions[name].pattern
        return pattern if not pattern.has_qkd or name in self.pilots else Pattern.PQC

    @property
    def worthy(self) -> list[str]:
        """Links whose worth, horizon and rules speak for QKD, whether or not it can feed them yet."""
        return [
            name
            for name, decision in self.decisions.items()
            if {f.rule.key for f in decision.fired if f.answer is Answer.YES} >= WORTHY
        ]

    def now(self, name: str) -> Pattern:
        """The pattern to build first: without QKD as long as that waits for anything."""
        return Pattern.PQC if self.waits.get(name) else self.decisions[name].pattern


def decide_all(estate: Estate, own: Mapping[str, Equipment] = NOBODYS) -> Plan:
    """For every link, in the order of the file."""
    classified = {name: classify(estate, name) for name in estate.links}
    found = {name: feasible(estate, name, own) for name in estate.links}
    decisions = {name: decide(estate, name, classified[name], found[name]) for name in estate.links}
    ranked = rank(estate, classified, found, decisions)
    waits = dict(_waits(estate, decisions, ranked))
    return Plan(classified, found, decisions, ranked, estate.pilots_max, waits, tuple(_findings(estate, found, ranked)))


def _waits(
    estate: Estate, decisions: Mapping[str, Decision], ranked: tuple[Ranked, ...]
) -> Iterator[tuple[str, tuple[Wait, ...]]]:
    short = shortfalls(estate, {name: decision.pattern for name, decision in decisions.items()}) if ranked else ()
    figures = [Wait("figures", finding.requirement, finding.says) for finding in short]
    turn = [Wait("turn", "R008", f"{estate.pilots_max} pilots at a time, and others come first")]
    for place, each in enumerate(ranked):
        asked = [Wait("answers", hold.rule.requirement, hold.evidence) for hold in decisions[each.link].holds]
        yield each.link, (*asked, *figures, *(turn if place >= estate.pilots_max else ()))


def rank(
    estate: Estate,
    classified: Mapping[str, Classified],
    found: Mapping[str, Feasibility],
    decisions: Mapping[str, Decision],
) -> tuple[Ranked, ...]:
    """The candidates for QKD, the best first; those that wait for an answer after all that could begin."""
    candidates = [Ranked(n, criteria(estate, n, found[n])) for n, d in decisions.items() if d.pattern.has_qkd]
    impacts = list(Impact)

    def order(each: Ranked) -> tuple[float, ...]:
        known, able = classified[each.link], found[each.link]
        impact = -1 if known.impact is None else impacts.index(known.impact)
        years = 0.0 if known.horizon_years is None else known.horizon_years.span.likely
        held = float(bool(decisions[each.link].holds))
        return held, -impact, -each.met, -years, able.relays or 0, -(able.margin or 0.0)

    return tuple(sorted(candidates, key=order))


def criteria(estate: Estate, name: str, found: Feasibility) -> tuple[tuple[str, Answer], ...]:
    """What a link is judged by besides its worth."""
    return (
        ("latency", _latency(estate, name, found)),
        ("control", _control(estate, name)),
        ("compliance", _compliance(estate, name)),
        ("operational maturity", _maturity(estate, name)),
    )


def _latency(estate: Estate, name: str, found: Feasibility) -> Answer:
    """Whether the route that QKD needs keeps within what the application bears."""
    budget_ms, km = estate.links[name].latency_budget_ms, found.path.km
    if budget_ms is None or km is None:
        return Answer.UNKNOWN
    return Answer.YES if km.high * FIBRE_MS_PER_KM <= budget_ms else Answer.NO


def _control(estate: Estate, name: str) -> Answer:
    owned = [segment.control is Control.OWNED for segment in estate.links[name].segments]
    return Answer.YES if owned and all(owned) else Answer.NO


def _compliance(estate: Estate, name: str) -> Answer:
    """Nothing that speaks to the link is at odds, and both ends are signed off for the day of the plan."""
    if conflicts(applying(estate, name)):
        return Answer.NO
    ends = [estate.sites[end] for end in estate.links[name].ends if end in estate.sites]
    if any(site.expires is not None and site.expires < estate.planned for site in ends):
        return Answer.NO
    return Answer.YES if ends and all(site.signed_off_by for site in ends) else Answer.UNKNOWN


def _maturity(estate: Estate, name: str) -> Answer:
    """All four domains are in order, and no device is experimental."""
    link = estate.links[name]
    devices = [estate.devices[each] for each in link.devices if each in estate.devices]
    if any(device.maturity == "experimental" for device in devices):
        return Answer.NO
    answers = set(check.readiness(link).values())
    return Answer.NO if Answer.NO in answers else Answer.UNKNOWN if Answer.UNKNOWN in answers else Answer.YES


def everywhere(estate: Estate, found: Mapping[str, Feasibility]) -> Everywhere:
    """Whatever the decisions say; the cost is that of the links on which it is feasible."""
    verdicts = [each.verdict for each in found.values()]
    able = [each for each in found.values() if each.verdict is Answer.YES]
    return Everywhere(
        links=len(verdicts),
        feasible=len(able),
        infeasible=verdicts.count(Answer.NO),
        unknown=verdicts.count(Answer.UNKNOWN),
        relays=sum(each.relays or 0 for each in able),
        cost=_cost(estate, able),
    )


def _cost(estate: Estate, able: list[Feasibility]) -> Costs | Unknown:
    bills = [bill_of(estate.links[each.link], Pattern.PQC_QKD, each.hops) for each in able]
    missing = [reason for bill in bills if isinstance(bill, Unknown) for reason in bill.reasons]
    known = [bill for bill in bills if isinstance(bill, Bill)]
    if missing or not known:
        return Unknown(tuple(dict.fromkeys(missing)) or ("no link on which it is feasible",))
    return cost(estate, sum(known[1:], known[0]))


def priced(costs: Costs | Unknown) -> str:
    """`1,200,000 to 3,400,000 EUR over 5 years`, or what is missing for it."""
    if isinstance(costs, Unknown):
        return str(costs)
    return f"{costs.total.low:,.0f} to {costs.total.high:,.0f} {costs.currency} over {costs.years:g} years"


def _findings(estate: Estate, found: Mapping[str, Feasibility], ranked: tuple[Ranked, ...]) -> list[Finding]:
    findings = []
    if len(ranked) > estate.pilots_max:
        later = ", ".join(each.link for each in ranked[estate.pilots_max :])
        says = f"{len(ranked)} links could have QKD, and {estate.pilots_max} are piloted at a time; later: {later}"
        findings.append(Finding(("pilots_max",), says, "R008", hint="measure the pilots first, then widen"))
    asked = [name for name, link in estate.links.items() if check.plans_qkd(estate, link)]
    if len(asked) > max(estate.pilots_max, EVERYWHERE * len(estate.links)):
        every = everywhere(estate, found)
        says = (
            f"QKD is named on {len(asked)} of {every.links} links: {every.infeasible} are infeasible, {every.unknown} "
            f"unknown; the rest need {every.relays} relays, cost {priced(every.cost)}"
        )
        findings.append(Finding(("links",), says, "R008", hint="narrow it to the links whose disclosure hurts most"))
    return findings
