"""What an estate lacks before it can be planned with: the four domains of a link, the ground of QKD, owners, dates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from enum import StrEnum
from typing import Final

from keystrand.plan.classify import classify
from keystrand.plan.estate import DataClass, DeviceKind, Estate, FailurePolicy, Family, Link, Proof, Site
from keystrand.plan.fact import Answer
from keystrand.plan.finding import Finding, Severity, Where, by_weight
from keystrand.plan.inventory import certificate_findings, coverage_findings
from keystrand.plan.positions import position_findings
from keystrand.plan.templates import horizon_of

SATISFIED: Final = (Answer.YES, Answer.NOT_APPLICABLE)
QUANTUM: Final = frozenset(DeviceKind) - {DeviceKind.QRNG, DeviceKind.ENCRYPTOR, DeviceKind.KMS}
KEY_OWNER, KEY_DEPUTY = "key-owner", "key-deputy"


class Domain(StrEnum):
    """The four that a link has to be in order in, whatever makes its keys."""

    IDENTITY = "identity"
    LIFECYCLE = "key lifecycle"
    TRANSPORT = "transport"
    OBSERVABILITY = "observability"


ASKED: Final = {
    Domain.IDENTITY: ("authentication", "certificates_listed"),
    Domain.LIFECYCLE: ("key_store", "rotation_tested"),
    Domain.TRANSPORT: ("transport_encrypted",),
    Domain.OBSERVABILITY: ("endpoints_monitored",),
}

# Each is missed by QKD in a way of its own, so each is a finding of its own
GROUND: Final = {
    "transport_encrypted": ("no encryptor", "QKD encrypts nothing: say what encrypts the payload"),
    "authentication": ("no authentication", "without it, QKD is made with whoever sits in between"),
    "endpoints_monitored": ("no monitor", "a link whose error rate nobody watches is no evidence of anything"),
    "key_store": ("no key store", "keys need a KMS or HSM to be kept, counted and destroyed in"),
}

PREREQUISITES: Final = {
    "rotation_tested": "a test of key rotation",
    "certificates_listed": "an inventory of certificates",
    "transport_encrypted": "encrypted transport",
}


def findings(estate: Estate) -> list[Finding]:
    """All that the estate lacks, the worst first."""
    found = [*_ownership(estate), *coverage_findings(estate), *certificate_findings(estate), *position_findings(estate)]
    for name, stated in estate.classes.items():
        found += _of_class(stated, ("classes", name))
    for name, site in estate.sites.items():
        found += _of_site(site, ("sites", name), estate.planned)
    for name in estate.links:
        found += link_findings(estate, name)
    return by_weight(found)


def link_findings(estate: Estate, name: str) -> list[Finding]:
    """All that one link lacks."""
    link, where = estate.links[name], ("links", name)
    found = [*_domains(link, where), *_failure(estate, link, where), *_geography(estate, link, where)]
    if plans_qkd(estate, link):
        found += [*ground(link, where), *prerequisites(link, where, estate.planned)]
    elif any(estate.devices[each].kind is DeviceKind.QRNG for each in link.devices):
        says = "has a QRNG and no QKD: good random bits, but nothing distributes a key"
        found.append(Finding((*where, "devices"), says, "R074", Severity.NOTE))
    return [*found, *classify(estate, name).findings]


def plans_qkd(estate: Estate, link: Link) -> bool:
    """Whether the file itself names QKD for the link, before any decision is made."""
    return bool(link.profile) or any(estate.devices[name].kind in QUANTUM for name in link.devices)


def readiness(link: Link) -> dict[Domain, Answer]:
    """Of each domain: yes if all that is asked is in order, no if something is not, unknown otherwise."""
    return {domain: _joint(getattr(link, name) for name in names) for domain, names in ASKED.items()}


def _joint(answers: Iterable[Answer]) -> Answer:
    found = set(answers)
    if Answer.NO in found:
        return Answer.NO
    return Answer.UNKNOWN if Answer.UNKNOWN in found else Answer.YES


def _domains(link: Link, where: Where) -> Iterator[Finding]:
    for domain, names in ASKED.items():
        answers = {name: getattr(link, name) for name in names}
        off = [name for name, answer in answers.items() if answer not in SATISFIED]
        if not any(answer is not Answer.UNKNOWN for answer in answers.values()):
            yield Finding(where, f"{domain}: empty, nothing is stated", "R005", hint=f"state {', '.join(names)}")
        elif off:
            told = ", ".join(f"{name} is {answers[name]}" for name in off)
            yield Finding(where, f"{domain}: not in order, {told}", "R005")


def ground(link: Link, where: Where) -> Iterator[Finding]:
    """What QKD takes for granted and does not bring: four findings, each blocks by itself."""
    bare = any(protocol.name is Family.NONE for protocol in link.protocols)
    for name, (lacks, why) in GROUND.items():
        answer = Answer.NO if name == "transport_encrypted" and bare else getattr(link, name)
        if answer is not Answer.YES:
            says = f"QKD is planned and there is {lacks} ({name} is {answer})"
            yield Finding((*where, name), says, "R003", Severity.BLOCKING, why)


def prerequisites(link: Link, where: Where, today: date) -> Iterator[Finding]:
    """What keeps a link from being eligible for QKD: weak rotation, certificates and transport are made worse by it."""
    for name, what in PREREQUISITES.items():
        if (answer := getattr(link, name)) is not Answer.YES:
            says = f"not eligible for QKD: {what} is {answer}"
            yield Finding((*where, name), says, "R006", Severity.BLOCKING, f'show it, then write {name} = "yes"')
    if not any(_stands(proof, today) for proof in link.evidence):
        gone = f", {len(link.evidence)} have expired" if link.evidence else ""
        says = f"not eligible for QKD: no evidence stands for the answers{gone}"
        yield Finding(
            (*where, "evidence"), says, "R006", Severity.BLOCKING, "add [[links.NAME.evidence]] with its date"
        )


def _stands(proof: Proof, today: date) -> bool:
    return proof.dated is not None and proof.dated <= today and (proof.expires is None or proof.expires >= today)


def _failure(estate: Estate, link: Link, where: Where) -> Iterator[Finding]:
    qkd = plans_qkd(estate, link)
    weight = Severity.BLOCKING if qkd else Severity.WARNING
    if link.on_exhaustion is FailurePolicy.UNANSWERED:
        hint = 'write "fail-closed" or "fail-open"; there is no default'
        yield Finding((*where, "on_exhaustion"), "does not say what traffic does without keys", "R053", weight, hint)
    if qkd and link.rekey_s is None:
        yield Finding((*where, "rekey_s"), "does not say how often keys are refreshed", "R051")
    if qkd and not (link.fallback_by and link.fallback_within_s):
        says = "does not say who decides about fallback, and within which time"
        yield Finding((*where, "fallback_by"), says, "R106", hint="state fallback_by and fallback_within_s")


def _geography(estate: Estate, link: Link, where: Where) -> Iterator[Finding]:
    for name in link.carries:
        allowed = estate.classes[name].geography
        for end in link.ends if allowed else ():
            country = estate.sites[end].jurisdiction
            if country not in allowed:
                weight = Severity.BLOCKING if country else Severity.WARNING
                says = f"class {name} may not leave {', '.join(allowed)}; {end} is in {country or 'an unknown country'}"
                yield Finding((*where, "carries"), says, "R033", weight)


def _of_class(stated: DataClass, where: Where) -> Iterator[Finding]:
    if horizon_of(stated) is None:
        hint = "state horizon_years, or a template"
        yield Finding((*where, "horizon_years"), "does not say how long it must stay confidential", "R116", hint=hint)
    missing = [field for field in ("owner", "confidence") if not getattr(stated, field)]
    if missing:
        yield Finding(where, f"does not state {' and '.join(missing)} of its horizon", "R116", Severity.NOTE)
    if stated.retention_days is None:
        yield Finding((*where, "retention_days"), "does not say how long logs are kept", "R055", Severity.NOTE)


def _of_site(site: Site, where: Where, today: date) -> Iterator[Finding]:
    if site.expires is not None and site.expires < today:
        yield Finding((*where, "expires"), f"what was signed for it ended on {site.expires}", "R039")
    if site.may_relay is not Answer.YES:
        return
    missing = [field for field in ("owner", "facility", "jurisdiction", "evidence") if not getattr(site, field)]
    if missing:
        says = f"may relay, and its trust is undocumented: no {', '.join(missing)}"
        yield Finding((*where, "may_relay"), says, "R036")


def _ownership(estate: Estate) -> Iterator[Finding]:
    """A pool of keys without an owner and a deputy may not issue."""
    people = estate.governance.people
    for role, whom in ((KEY_OWNER, "owns the issuance of keys"), (KEY_DEPUTY, "stands in for the owner of keys")):
        if not any(role in person.roles for person in people.values()):
            hint = f'add the role "{role}" to somebody in [governance.people]'
            yield Finding(("governance", "people"), f"nobody {whom}", "R050", Severity.BLOCKING, hint)
