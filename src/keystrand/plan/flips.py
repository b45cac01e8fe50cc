"""What would change a decision: for each input alone, the smallest change at which the rules give another answer.

Found by asking the rules again, never written down by hand. Inputs that only together would change the answer are what
`Decision.against` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from keystrand.plan.classify import classify, weakest_control
from keystrand.plan.decide import decided
from keystrand.plan.demand import REKEY_S
from keystrand.plan.equipment import Equipment
from keystrand.plan.estate import (
    Control,
    DataClass,
    Estate,
    FailurePolicy,
    Impact,
    Link,
    Medium,
    PathType,
    Proof,
    Segment,
)
from keystrand.plan.fact import Answer, figure
from keystrand.plan.feasibility import NOBODYS, feasible
from keystrand.plan.pattern import Pattern

STEP: Final = (
    2.0  # of the search outwards from today's value; the rules turn once along a figure, so none is stepped over
)
STEPS: Final = 12  # to some 4,000 times more or less
CLOSE: Final = 1.01  # bisection ends here: a flip point is known to one percent


WORDS: Final = {
    "horizon_years": "time that it must stay secret",
    "loss_db": "loss of the path",
    "skr_bps": "key rate",
    "rekey_s": "time between new keys",
    "otp_bytes_per_day": "payload of the one-time pad, a day,",
    "reroutes_per_year": "changes of the path",
    "assumptions.relay_per_year": "chance that a relay falls",
    "path": "kind of path",
    "control": "who decides over the path",
    "medium": "what the path is made of",
    "channels": "traffic on the same fibre",
    "on_exhaustion": "what happens without keys",
    "regimes": "rules that bind the sites",
}


@dataclass(frozen=True, slots=True)
class Flip:
    """One input, from what it is to what would change the answer. factor: how far that is, 1 for a choice of words."""

    field: str
    now: str
    then: str
    pattern: Pattern
    factor: float

    def __str__(self) -> str:
        """In words for everybody; a loss is told by how many times more or less."""
        name = WORDS.get(self.field, self.field.replace("_", " "))
        if self.field == "loss_db":
            more = float(self.then.split()[0]) > float(self.now.split()[0])
            return f"{name} {self.factor:.2g} times {'more' if more else 'less'}: {self.pattern}"
        return f"{name} from {self.now} to {self.then}: {self.pattern}"


Turn = Callable[[float], Estate]


@dataclass(frozen=True, slots=True)
class Dial:
    """A figure that can be turned: its value today, and the estate with another one.

    moves: the gates whose answer it can change; where another one keeps QKD out, it is not turned in vain. grounds: it can
    change the baseline, too.
    """

    field: str
    unit: str
    value: float
    turn: Turn
    moves: frozenset[str] = frozenset({"rate", "sites", "budget"})
    grounds: bool = False


def flips(estate: Estate, name: str, own: Mapping[str, Equipment] = NOBODYS) -> tuple[Flip, ...]:
    """Of the link `name`: figures first, the nearest before the others, then answers in words."""
    decision = decided(estate, name, own)
    today, shut = decision.pattern, {fired.rule.key for fired in decision.against}

    def asked(other: Estate) -> Pattern:
        return decided(other, name, own).pattern

    words = [
        Flip(field, now, then, pattern, 1.0)
        for field, now, then, other in choices(estate, name)
        if (pattern := asked(other)) is not today
    ]
    figures = [
        f for dial in dials(estate, name) if dial.moves >= shut or dial.grounds for f in turned(dial, asked, today)
    ]
    return (*sorted(figures, key=lambda flip: (flip.factor, flip.field)), *words)


def turned(dial: Dial, asked: Callable[[Estate], Pattern], today: Pattern) -> Iterator[Flip]:
    """Outwards in both directions until the answer changes, then back to the point where it does."""
    for direction in (STEP, 1 / STEP):
        inside = dial.value
        for _ in range(STEPS):
            outside = inside * direction
            pattern = asked(dial.turn(outside))
            if pattern is not today:
                edge, pattern = _bisected(dial, asked, today, inside, outside)
                factor = max(edge, dial.value) / min(edge, dial.value)
                now, then = (
                    f"{rounded:g} {dial.unit}".strip() for rounded in (_digits(dial.value, 3), _digits(edge, 2))
                )
                yield Flip(dial.field, now, then, pattern, factor)
                break
            inside = outside


def _digits(value: float, digits: int) -> float:
    """A flip point is known to one percent, and is told no finer."""
    return float(f"{value:.{digits}g}")


def _bisected(
    dial: Dial, asked: Callable[[Estate], Pattern], today: Pattern, inside: float, outside: float
) -> tuple[float, Pattern]:
    while max(inside, outside) / min(inside, outside) > CLOSE:
        middle = (inside * outside) ** 0.5
        if asked(dial.turn(middle)) is today:
            inside = middle
        else:
            outside = middle
    return outside, asked(dial.turn(outside))


STABLE: Final = frozenset({"stable"})


def dials(estate: Estate, name: str) -> Iterator[Dial]:
    """The figures of a link; those that are unknown today have no distance to anything and are left out."""
    link = estate.links[name]
    known = classify(estate, name)
    if known.horizon_years is not None and (years := known.horizon_years.span.likely) > 0:
        yield Dial("horizon_years", "years", years, lambda x: _worth(estate, name, horizon_years=x), grounds=True)
    found = feasible(estate, name)
    if found.loss_db is not None and link.segments and (loss := found.loss_db.span.likely) > 0:
        yield Dial("loss_db", "dB", loss, lambda x: _lossy(estate, name, x))
    if link.skr_bps is not None and (skr := figure(link.skr_bps).span.likely) > 0:
        yield Dial("skr_bps", "bit/s", skr, lambda x: _link(estate, name, skr_bps=x))
    yield Dial("rekey_s", "s", link.rekey_s or REKEY_S, lambda x: _link(estate, name, rekey_s=x))
    if link.otp_bytes_per_day is not None and (payload := figure(link.otp_bytes_per_day).span.likely) > 0:
        yield Dial("otp_bytes_per_day", "bytes", payload, lambda x: _link(estate, name, otp_bytes_per_day=x))
    if link.reroutes_per_year is not None:
        often = max(figure(link.reroutes_per_year).span.likely, 0.1)
        yield Dial("reroutes_per_year", "a year", often, lambda x: _link(estate, name, reroutes_per_year=x), STABLE)
    hazard = figure(estate.assumptions.relay_per_year).span.likely
    if link.qkd_alone_accepted_by and hazard > 0:
        yield Dial("assumptions.relay_per_year", "a year", hazard, lambda x: _assumed(estate, relay_per_year=x))


def choices(estate: Estate, name: str) -> Iterator[tuple[str, str, str, Estate]]:
    """Answers in words: field, what it is, what it could be, and the estate where it is that."""
    link = estate.links[name]
    impact = classify(estate, name).impact
    for other in Impact:
        if other is not impact:
            yield "impact", impact or "unknown", other, _worth(estate, name, impact=other)
    for path in PathType:
        if path not in (link.path, PathType.UNKNOWN):
            yield "path", link.path, path, _link(estate, name, path=path)
    control = weakest_control(link)
    for who in (Control.OWNED, Control.THIRD_PARTY):
        if link.segments and who is not control:
            yield "control", control, who, _segments(estate, name, control=who)
    if any(segment.medium in (Medium.SERVICE, Medium.UNKNOWN) for segment in link.segments):
        yield (
            "medium",
            "service or unknown",
            Medium.DARK_FIBRE,
            _segments(estate, name, medium=Medium.DARK_FIBRE),
        )
    if any(segment.channels for segment in link.segments):
        yield "channels", "other traffic beside it", "alone", _segments(estate, name, channels=0)
    yield from _answers(estate, name, link)


def _answers(estate: Estate, name: str, link: Link) -> Iterator[tuple[str, str, str, Estate]]:
    for field in ("rotation_tested", "certificates_listed", "transport_encrypted", "endpoints_monitored", "key_store"):
        now = getattr(link, field)
        then = Answer.NO if now is Answer.YES else Answer.YES
        yield field, now, then, _link(estate, name, **{field: then})
    shown = Proof(what="as if shown", dated=estate.planned)
    yield "evidence", f"{len(link.evidence)} stated", "shown today", _link(estate, name, evidence=(shown,))
    if link.on_exhaustion is FailurePolicy.UNANSWERED:
        yield (
            "on_exhaustion",
            "unanswered",
            FailurePolicy.CLOSED,
            _link(estate, name, on_exhaustion=FailurePolicy.CLOSED),
        )
    regimes = sorted({regime for end in link.ends if end in estate.sites for regime in estate.sites[end].regimes})
    if regimes:
        yield "regimes", ", ".join(regimes), "none", _regimes(estate, link, ())
    if "nss" not in regimes:
        yield "regimes", ", ".join(regimes) or "none", "nss", _regimes(estate, link, (*regimes, "nss"))


def _link(estate: Estate, name: str, **fields: Any) -> Estate:
    link = msgspec.structs.replace(estate.links[name], **fields)
    return msgspec.structs.replace(estate, links={**estate.links, name: link})


def _segments(estate: Estate, name: str, **fields: Any) -> Estate:
    segments = tuple(msgspec.structs.replace(s, **fields) for s in estate.links[name].segments)
    return _link(estate, name, segments=segments)


def _lossy(estate: Estate, name: str, loss_db: float) -> Estate:
    """The whole loss on the first segment, as measured: the others lose nothing."""
    first, *rest = estate.links[name].segments
    parts: list[Segment] = [msgspec.structs.replace(first, loss_db=loss_db)]
    return _link(estate, name, segments=(*parts, *(msgspec.structs.replace(s, loss_db=0.0) for s in rest)))


def _worth(estate: Estate, name: str, **fields: Any) -> Estate:
    """The link carries one class of its own, worth what all of its classes are but for `fields`."""
    known = classify(estate, name)
    years = known.horizon_years
    span = None if years is None else (years.span.low, years.span.high)
    own = msgspec.structs.replace(DataClass(horizon_years=span, impact=known.impact), **fields)
    with_class = msgspec.structs.replace(estate, classes={**estate.classes, _OWN: own})
    return _link(with_class, name, carries=(_OWN,), impact=None)


_OWN: Final = "as-if"


def _regimes(estate: Estate, link: Link, regimes: tuple[str, ...]) -> Estate:
    ends = {
        end: msgspec.structs.replace(estate.sites[end], regimes=regimes) for end in link.ends if end in estate.sites
    }
    return msgspec.structs.replace(estate, sites={**estate.sites, **ends})


def _assumed(estate: Estate, **fields: Any) -> Estate:
    return msgspec.structs.replace(estate, assumptions=msgspec.structs.replace(estate.assumptions, **fields))
