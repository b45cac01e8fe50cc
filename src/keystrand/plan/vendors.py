"""What vendors' answers are worth: evidence with its age, intervals for what is unknown, knock-outs, red flags, this estate.

A point on a criterion is what a reviewer gave it, 0 to 4, times what stands behind it (claim 1/4, document 1/2, shown 3/4,
proven 1). An answer that nobody gave is an interval from 0 to 4 at the weight of a claim: never 0, never left out.
Names and labels of products play no part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from keystrand.plan.answers import SCORE_MAX, Answers, Criterion, Evidence, Level, Product, Reply, questionnaire
from keystrand.plan.check import QUANTUM
from keystrand.plan.estate import DeviceKind, Estate, FailurePolicy
from keystrand.plan.fact import Answer, Figure, Span, figure
from keystrand.plan.finding import Finding, Severity
from keystrand.plan.loss import path_loss
from keystrand.plan.pattern import Pattern
from keystrand.plan.threats import Effect, threats

CLAIM: Final = Level.CLAIM.factor
RESIDENCY: Final = ("control", "data", "telemetry", "support")


@dataclass(frozen=True, slots=True)
class Probe:
    """Result of `keystrand conformance` against the product: cases by verdict."""

    passed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Mark:
    """One criterion of one product. score: given, None where unknown; weight_of_evidence: 1/4 to 1; points: their product."""

    criterion: Criterion
    score: Span | None
    weight_of_evidence: float
    rank: int
    why: str = ""

    @property
    def points(self) -> Span:
        return (self.score or Span(0.0, SCORE_MAX / 2, SCORE_MAX)).times(self.weight_of_evidence)


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether the product serves one link of the estate."""

    link: str
    answer: Answer
    why: str


@dataclass(frozen=True, slots=True)
class Assessment:
    """One product. knocked_out: why it is not eligible, empty where it is."""

    product: str
    marks: tuple[Mark, ...]
    knocked_out: tuple[str, ...]
    fits: tuple[Fit, ...]
    exit_cost: Figure | None
    findings: tuple[Finding, ...]

    @property
    def is_eligible(self) -> bool:
        return not self.knocked_out

    def score(self, weights: Mapping[str, float]) -> Span:
        """Weighted mean of the points, 0 to 4: an interval, because what is unknown stays so."""
        total = sum(weights[mark.criterion.name] for mark in self.marks)
        spans = [mark.points.times(weights[mark.criterion.name] / total) for mark in self.marks]
        return sum(spans, Span(0.0, 0.0, 0.0))


def weights_of(answers: Answers) -> dict[str, float]:
    """By criterion: the user's, or the shipped one."""
    return {c.name: answers.weights.get(c.name, c.weight) for c in questionnaire().criteria}


def assess(
    answers: Answers,
    name: str,
    *,
    estate: Estate | None = None,
    links: Sequence[str] = (),
    probes: Mapping[str, Probe] | None = None,
) -> Assessment:
    """The product `name`, against links of an estate where one is given. probes: of evidence that is a conformance report."""
    product = answers.products[name]
    fits = () if estate is None else tuple(fit(product, estate, link) for link in links)
    marks = tuple(_mark(answers, name, criterion, fits, probes or {}) for criterion in questionnaire().criteria)
    return Assessment(
        product=name,
        marks=marks,
        knocked_out=tuple(_knock_outs(product)),
        fits=fits,
        exit_cost=None if product.exit_cost is None else figure(product.exit_cost),
        findings=tuple(_findings(answers, name, estate, links)),
    )


# evidence -----------------------------------------------------------------------------------------------------------


def weight_of(evidence: Evidence, reviewed: date, half_life_days: float) -> float:
    """What the evidence counts for on the day of the review: what it has above a claim halves with every half-life."""
    halvings: float = max(0, (reviewed - evidence.dated).days) / half_life_days
    return float(CLAIM + (evidence.level.factor - CLAIM) * 2.0**-halvings)


def _usable(answers: Answers, name: str, reply: Reply) -> list[Evidence]:
    """Evidence about another product proves nothing about this one."""
    found = [answers.evidence[each] for each in reply.evidence if each in answers.evidence]
    return [each for each in found if each.product == name]


def _mark(answers: Answers, name: str, criterion: Criterion, fits: Sequence[Fit], probes: Mapping[str, Probe]) -> Mark:
    product = answers.products[name]
    reply = product.answers.get(criterion.name, Reply())
    usable = _usable(answers, name, reply)
    known = [weight_of(each, answers.reviewed, answers.half_life_days) for each in usable]
    factor = max(known, default=CLAIM)
    if criterion.contract and not reply.contract:
        factor = CLAIM
    score, why = _score(product, criterion, reply, fits, [probes[e] for e in reply.evidence if e in probes])
    rank = max((each.level.rank for each in usable), default=1) if score is not None else 0
    return Mark(criterion, score, factor if score is not None else CLAIM, rank, why)


def _score(
    product: Product, criterion: Criterion, reply: Reply, fits: Sequence[Fit], probes: Sequence[Probe]
) -> tuple[Span | None, str]:
    """What the reviewer gave, but where the planner knows better: links that it computed, reports that it read, QRNGs."""
    if criterion.threats and not distributes_keys(product):
        return Span.point(0.0), "random numbers distribute no key: no risk of key distribution is reduced"
    if criterion.name == "topology" and fits:
        yes = sum(each.answer is Answer.YES for each in fits)
        open_ = sum(each.answer is Answer.UNKNOWN for each in fits)
        shares = [SCORE_MAX * count / len(fits) for count in (yes, yes + open_ / 2, yes + open_)]
        return Span(*shares), f"serves {yes} of {len(fits)} links, {open_} unknown"
    if criterion.name == "standard-interfaces" and probes:
        passed, failed = sum(p.passed for p in probes), sum(p.failed for p in probes)
        return Span.point(SCORE_MAX * passed / max(1, passed + failed)), f"{passed} cases passed, {failed} failed"
    return (None if reply.score is None else Span.point(reply.score)), reply.says


def distributes_keys(product: Product) -> bool:
    """A QRNG makes good random bits and takes them nowhere, whatever it is sold as."""
    return product.kind is not DeviceKind.QRNG


# this estate --------------------------------------------------------------------------------------------------------


def fit(product: Product, estate: Estate, name: str) -> Fit:
    """Loss, interfaces and failure behaviour against one link: no if one is not met, unknown if one is not known."""
    found = [_loss(product, estate, name), _interfaces(product, estate, name), _failure(product, estate, name)]
    for answer in (Answer.NO, Answer.UNKNOWN):
        said = [why for each, why in found if each is answer]
        if said:
            return Fit(name, answer, "; ".join(said))
    return Fit(name, Answer.YES, "loss, interfaces and failure behaviour fit")


def _loss(product: Product, estate: Estate, name: str) -> tuple[Answer, str]:
    if product.kind not in QUANTUM:
        return Answer.NOT_APPLICABLE, ""
    loss = path_loss(estate, name).loss_db
    if product.loss_db_max is None or loss is None:
        return Answer.UNKNOWN, "its reach is not stated" if loss is not None else "the link's loss is unknown"
    words = f"{loss.span.low:.1f}-{loss.span.high:.1f} dB against {product.loss_db_max:g} dB"
    if loss.span.low > product.loss_db_max:
        return Answer.NO, words
    return (Answer.YES if loss.span.high <= product.loss_db_max else Answer.UNKNOWN), words


def _interfaces(product: Product, estate: Estate, name: str) -> tuple[Answer, str]:
    """With the devices that the link names and that are not of its own kind."""
    others = [estate.devices[each] for each in estate.links[name].devices if each in estate.devices]
    spoken = [set(each.interfaces) for each in others if each.kind != product.kind]
    if not spoken:
        return Answer.NOT_APPLICABLE, ""
    if not product.interfaces or not all(spoken):
        return Answer.UNKNOWN, "interfaces are not stated"
    shared = all(each & set(product.interfaces) for each in spoken)
    return (Answer.YES, "") if shared else (Answer.NO, "no interface in common with the link's devices")


def _failure(product: Product, estate: Estate, name: str) -> tuple[Answer, str]:
    wanted = estate.links[name].on_exhaustion
    if wanted is FailurePolicy.UNANSWERED or product.fails is None:
        what = "the link" if wanted is FailurePolicy.UNANSWERED else "the product"
        return Answer.UNKNOWN, f"{what} does not say what happens when keys run out"
    return (Answer.YES, "") if wanted in product.fails else (Answer.NO, f"cannot {wanted}")


# knock-outs and findings --------------------------------------------------------------------------------------------


def _knock_outs(product: Product) -> Iterator[str]:
    for criterion in questionnaire().criteria:
        if criterion.knock_out:
            reply = product.answers.get(criterion.name, Reply())
            if not reply.says.strip():
                yield f"{criterion.name}: not answered"
            elif reply.score == 0:
                yield f"{criterion.name}: not met"
            elif criterion.threats and not reply.threats:
                yield f"{criterion.name}: names no threat that it reduces"
    if product.exit_cost is None:
        yield "exit cost: not filled in"


def _findings(answers: Answers, name: str, estate: Estate | None, links: Sequence[str]) -> Iterator[Finding]:
    where, product = ("products", name), answers.products[name]
    for criterion in questionnaire().criteria:
        reply = product.answers.get(criterion.name, Reply())
        at = (*where, "answers", criterion.name)
        if reply.score is None and criterion.name != "topology":
            yield Finding(at, f"unknown, which is not yes: {criterion.asks}", criterion.requirement)
        elif criterion.contract and not reply.contract:
            yield Finding((*at, "contract"), "promised outside the contract: counts as a claim", criterion.requirement)
        yield from _of_evidence(answers, name, reply, at)
        yield from _of_threats(reply, at)
    yield from _flags(product, where)
    yield from _parts(product, where)
    yield from _residency(product, where, estate, links)


def _of_evidence(answers: Answers, name: str, reply: Reply, at: tuple[str, ...]) -> Iterator[Finding]:
    for each in reply.evidence:
        proof = answers.evidence.get(each)
        if proof is None:
            continue  # the file's own check names it
        if proof.product != name:
            says = f"evidence {each} is about {proof.product}: it proves nothing here and is not counted"
            yield Finding((*at, "evidence"), says, "R135", Severity.BLOCKING, "evidence of this very product")
        elif (age := (answers.reviewed - proof.dated).days) > answers.half_life_days:
            yield Finding((*at, "evidence"), f"evidence {each} is {age} days old", "R140", hint="ask for a newer one")


def _of_threats(reply: Reply, at: tuple[str, ...]) -> Iterator[Finding]:
    table = {threat.name: threat for threat in threats()}
    for each in reply.threats:
        if each not in table:
            says = f"{each!r} is no threat of the table"
            yield Finding((*at, "threats"), says, "R139", hint=f"one of {', '.join(table)}")
        elif all(table[each].under(pattern) is Effect.NOT_REDUCED for pattern in Pattern):
            says = f"claims to reduce {each!r}, which no layer on a link reduces"
            yield Finding((*at, "threats"), says, "R139", hint=f"ask how: {table[each].says}")


def _flags(product: Product, where: tuple[str, ...]) -> Iterator[Finding]:
    """Words of the brochure and of the answers; the label is not looked at."""
    said = [*product.pitch, *(reply.says for reply in product.answers.values())]
    for flag in questionnaire().flags:
        hits = [text for text in said if any(re.search(word, text, re.IGNORECASE) for word in flag.words)]
        if hits and flag.name not in product.dispositions:
            says = f"red flag {flag.name}: “{hits[0]}”: {flag.because}"
            hint = f"a reviewer's [products.….dispositions.{flag.name}]"
            yield Finding((*where, "dispositions"), says, "R136", Severity.BLOCKING, hint)


def _parts(product: Product, where: tuple[str, ...]) -> Iterator[Finding]:
    for part in questionnaire().parts:
        if product.parts.get(part.name, Answer.UNKNOWN) is Answer.UNKNOWN:
            yield Finding((*where, "parts", part.name), f"not known whether {part.says}", "R073")
    if not distributes_keys(product):
        says = "makes random numbers and distributes no key: it adds nothing to key distribution"
        yield Finding((*where, "kind"), says, "R074")


def _residency(
    product: Product, where: tuple[str, ...], estate: Estate | None, links: Sequence[str]
) -> Iterator[Finding]:
    for what in RESIDENCY:
        if not product.residency.get(what):
            yield Finding((*where, "residency", what), f"not known in which countries {what} lies", "R134")
    carried = {} if estate is None else {c: estate.classes[c] for link in links for c in estate.links[link].carries}
    for name, data in carried.items():
        if data.geography:
            for what in RESIDENCY:
                outside = [c for c in product.residency.get(what, ()) if c not in data.geography]
                if outside:
                    says = f"{what} lies in {', '.join(outside)}, and {name} may not leave {', '.join(data.geography)}"
                    yield Finding((*where, "residency", what), says, "R134", Severity.BLOCKING)
