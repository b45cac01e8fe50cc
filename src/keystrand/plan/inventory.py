"""What an estate's inventory shows: certificates with their end and post-quantum status, and coverage by family of protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

from keystrand.plan.estate import Estate, Protocol
from keystrand.plan.fact import Answer
from keystrand.plan.finding import Finding, Severity, Where
from keystrand.plan.posture import coverage, has_fallback, key_exchange, signature

EXPIRY_NOTICE_DAYS: Final = 30


def protocols_of(estate: Estate) -> Iterator[tuple[Where, Protocol]]:
    """Of all links, and of the ends that scans found, each with its place."""
    for name, link in estate.links.items():
        for place, protocol in enumerate(link.protocols):
            yield ("links", name, "protocols", place), protocol
    for name, protocol in estate.endpoints.items():
        yield ("endpoints", name), protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate or host key. pqc: whether its signature withstands a quantum computer; days: left on the plan's day."""

    where: Where
    subject: str
    used_at: str
    algorithm: str
    expires: date | None
    days: int | None
    pqc: Answer
    source: str


def certificates(estate: Estate) -> tuple[Entry, ...]:
    """All that are known, those that end first coming first, those without a known end last."""
    found = [
        _entry(estate, ("certificates", name), c.subject or name, c.used_at, _algorithms(c.signature, c.public_key), c)
        for name, c in estate.certificates.items()
    ]
    found += [
        _entry(estate, where, p.endpoint or str(where[1]), p.endpoint, p.signature, p)
        for where, p in protocols_of(estate)
        if p.signature or p.certificate_expires
    ]
    return tuple(sorted(found, key=lambda each: (each.expires or date.max, each.subject, each.where)))


def _algorithms(signed: str, key: str) -> str:
    return " / ".join(dict.fromkeys(part for part in (signed, key) if part))


def _entry(estate: Estate, where: Where, subject: str, used_at: str, algorithm: str, fact: object) -> Entry:
    expires: date | None = getattr(fact, "expires", None) or getattr(fact, "certificate_expires", None)
    days = (expires - estate.planned).days if expires else None
    answers = {signature(part) for part in algorithm.split(" / ")}
    pqc = next(answer for answer in (Answer.NO, Answer.UNKNOWN, Answer.YES) if answer in answers)
    return Entry(where, subject, used_at, algorithm, expires, days, pqc, fact.source.words)  # type: ignore[attr-defined]


def certificate_findings(estate: Estate) -> Iterator[Finding]:
    """Ended, about to end, without a known end, by an unknown algorithm."""
    for entry in certificates(estate):
        if entry.days is None:
            yield Finding(entry.where, f"{entry.subject}: nobody knows when it ends", "R067", Severity.NOTE)
        elif entry.days < 0:
            yield Finding(entry.where, f"{entry.subject}: ended on {entry.expires}", "R067")
        elif entry.days <= EXPIRY_NOTICE_DAYS:
            yield Finding(entry.where, f"{entry.subject}: ends in {entry.days} days", "R067")
        if entry.pqc is Answer.UNKNOWN:
            yield Finding(entry.where, f"{entry.subject}: unknown algorithm {entry.algorithm!r}", "R067", Severity.NOTE)


def coverage_findings(estate: Estate) -> Iterator[Finding]:
    """Unknown is a finding, by family; so is a post-quantum end that a classical way leads around."""
    places = list(protocols_of(estate))
    for group in coverage(protocol for _, protocol in places):
        for what, answers in (("key exchange", group.key_exchange), ("signature", group.signature)):
            if unknown := answers[Answer.UNKNOWN]:
                says = f"{group.family}: the {what} of {unknown} of {group.ends} ends is unknown"
                yield Finding(("coverage", group.family), says, "R069", hint="keystrand plan scan, or import a scan")
    for where, protocol in places:
        if has_fallback(protocol) and key_exchange(protocol) is not Answer.NO:
            says = "post-quantum groups with a classical way around them: what is negotiated decides"
            yield Finding(where, says, "R068", Severity.NOTE)
    for name, link in estate.links.items():
        if not link.protocols:
            yield Finding(("links", name, "protocols"), "does not say what protects it today", "R069")
