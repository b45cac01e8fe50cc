"""Questions that come up in every such programme, answered from this plan's own results: an answer cannot contradict them."""

from __future__ import annotations

from collections.abc import Iterator

from keystrand.plan.estate import FailurePolicy
from keystrand.plan.gates import UP_TO_PILOT
from keystrand.plan.outcome import Plan
from keystrand.plan.page import Section, lasting
from keystrand.plan.pattern import Pattern
from keystrand.plan.threats import Effect, threats


def faq(plan: Plan) -> Section:
    """Each question with its answer, as paragraphs in turn: question, answer, question, answer."""
    return Section(name="faq", title="Questions and answers", paragraphs=tuple(_all(plan)))


def _all(plan: Plan) -> Iterator[str]:
    for question, answer in answers(plan):
        yield question
        yield answer


def answers(plan: Plan) -> Iterator[tuple[str, str]]:
    """Question and answer, in a fixed order."""
    yield "Does every link need QKD?", _every(plan)
    yield "Can QKD stand in for post-quantum cryptography?", _instead(plan)
    yield "What is this plan worth if we never buy QKD?", _without(plan)
    yield "What does QKD do for a broken server or an insider?", _untouched()
    yield "Who sees our keys on the way?", _relays(plan)
    yield "What happens when a quantum link is cut?", _cut(plan)
    yield "Will anything get faster?", "No. QKD makes keys. It moves no data, and rates of traffic stay as they are."
    yield "Is a one-time pad within reach?", _pad(plan)
    yield "When may a pilot begin?", _pilot(plan)
    yield (
        "Does a simulated link tell us what hardware will do?",
        (
            "In part. Protocol, key management, rotation, alarms and drills are the same programs. Key rates of a simulated "
            "link are those of a model, which published field links undercut: this plan marks them, and takes a wide range."
        ),
    )


def _every(plan: Plan) -> str:
    qkd, total = plan.with_qkd, len(plan.outcomes)
    if not qkd:
        waits = (
            f" It would be worth its trouble on {len(plan.waiting)}, once the gates are open." if plan.waiting else ""
        )
        return f"No. None of the {total} links here does.{waits}"
    return f"No. {len(qkd)} of {total} here: {', '.join(outcome.name for outcome in qkd)}."


def _instead(plan: Plan) -> str:
    rows = len(plan.with_pqc)
    return (
        f"No. They are layers: {rows} of {len(plan.outcomes)} links get post-quantum keys, those with QKD among them. "
        "Where both are there, a key stays secret as long as one of them holds."
    )


def _without(plan: Plan) -> str:
    urgent = [outcome.name for outcome in plan.outcomes if outcome.pattern is not Pattern.CLASSICAL]
    steps = [leg.step.name for leg in plan.roadmap.legs if not leg.step.qkd]
    return (
        f"Most of it: the steps {', '.join(steps)} need no QKD. {len(urgent)} links carry data for which recording now and "
        "decrypting later matters, and post-quantum keys are the answer for each."
    )


def _untouched() -> str:
    names = [t.attack_class for t in threats() if t.under(Pattern.PQC_QKD_MULTI) is Effect.NOT_REDUCED]
    return f"Nothing. Not reduced by any pattern here: {', '.join(names)}."


def _relays(plan: Plan) -> str:
    relayed = [outcome for outcome in plan.with_qkd if outcome.relays]
    if not plan.with_qkd:
        return "Nobody by QKD, for no link has it. What protects a link today is in the tables."
    if not relayed:
        names = ", ".join(outcome.name for outcome in plan.with_qkd)
        return f"The two end sites of {names}, whose QKD links have no trusted node in between."
    told = "; ".join(
        f"{o.name}: {o.relays} ({', '.join(o.feasibility.sites or ()) or 'site unknown'})" for o in relayed
    )
    return (
        f"Trusted nodes have the QKD strand of the keys that they pass on. {told}. The post-quantum secret of the two ends "
        "does not pass them, so one who has the QKD strand would have to break ML-KEM as well."
    )


def _cut(plan: Plan) -> str:
    if not plan.with_qkd:
        return "No link has one."
    words = {
        FailurePolicy.CLOSED: "stops when the store is empty",
        FailurePolicy.OPEN: "goes on under post-quantum keys",
        FailurePolicy.UNANSWERED: "has no answer yet, which keeps its gate shut",
    }
    told = []
    for outcome in plan.with_qkd:
        store = outcome.feasibility.store
        reach = f"its store bridges {lasting(store.outage_s)}, then it" if store else "it"
        told.append(f"{outcome.name}: {reach} {words[outcome.link.on_exhaustion]}")
    return ". ".join(told) + "."


def _pad(plan: Plan) -> str:
    padded = [outcome.name for outcome in plan.outcomes if outcome.pattern is Pattern.PQC_QKD_OTP]
    short = [o for o in plan.outcomes if o.feasibility.otp_shortfall is not None and o.name not in padded]
    told = f"For the small payload of {', '.join(padded)}." if padded else "Not here."
    if short:
        told += (
            " Refused: "
            + ", ".join(f"{o.name} (short by a factor of {o.feasibility.otp_shortfall:.3g})" for o in short)
            + "."
        )
    return (
        told
        + " A pad uses up as many bits of key as there are bits of payload; refreshing a standard cipher needs very few."
    )


def _pilot(plan: Plan) -> str:
    blocks = [finding for gate in plan.gates if gate.into in UP_TO_PILOT for finding in gate.blocks]
    if not plan.pilots:
        return "There is none to begin."
    if not blocks:
        return "Now, as far as this plan can see: every question is answered and every figure reached."
    first = "; ".join(finding.says for finding in blocks[:3])
    return f"Not before {len(blocks)} open points are closed. The first: {first}"
