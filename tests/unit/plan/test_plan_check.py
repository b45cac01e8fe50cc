"""What an estate lacks: every gap is a finding at its place, and what is in order is none."""

from __future__ import annotations

import random
from datetime import date

import msgspec
import pytest

from keystrand.plan.check import GROUND, Domain, findings, link_findings, readiness
from keystrand.plan.estate import (
    Certificate,
    DataClass,
    Device,
    DeviceKind,
    Estate,
    FailurePolicy,
    Family,
    Link,
    Proof,
    Protocol,
    Site,
)
from keystrand.plan.fact import Answer
from keystrand.plan.finding import Severity
from keystrand.plan.governance import Governance, Person

TODAY = date(2026, 11, 28)
YES = Answer.YES
SOUND = Link(
    ends=("one", "two"),
    devices=("box",),
    rotation_tested=YES,
    certificates_listed=YES,
    transport_encrypted=YES,
    endpoints_monitored=YES,
    key_store=YES,
    authentication=YES,
    on_exhaustion=FailurePolicy.CLOSED,
    rekey_s=120.0,
    fallback_by="duty officer",
    fallback_within_s=900.0,
    evidence=(Proof(what="rotation test", reference="report.pdf", dated=date(2026, 6, 1)),),
)
ANSWERS = (
    "rotation_tested",
    "certificates_listed",
    "transport_encrypted",
    "endpoints_monitored",
    "key_store",
    "authentication",
)


def estate(link: Link, **more: object) -> Estate:
    facts: dict = {
        "sites": {"one": Site(jurisdiction="CH"), "two": Site()},
        "devices": {"box": Device(kind=DeviceKind.DV_QKD), "dice": Device(kind=DeviceKind.QRNG)},
        "links": {"l": link},
    }
    return Estate(name="e", planned=TODAY, **(facts | more))


def rows(link: Link, **more: object) -> list[tuple[str, str]]:
    """(row, place) of what this link lacks, besides what its classification says."""
    found = link_findings(estate(link, **more), "l")
    classified = ("R116", "R117", "R120", "R121", "R122")
    return [(f.requirement, f.place) for f in found if f.requirement not in classified]


def changed(**facts: object) -> Link:
    return msgspec.structs.replace(SOUND, **facts)


def test_a_link_in_order_lacks_nothing() -> None:
    assert rows(SOUND) == []
    assert set(readiness(SOUND).values()) == {YES}


@pytest.mark.proves("R003")
def test_qkd_without_what_it_stands_on_blocks_in_four_distinct_ways() -> None:
    bare = Link(ends=("one", "two"), profile="class-snspd")
    found = [f for f in link_findings(estate(bare), "l") if f.requirement == "R003"]
    assert len({f.says for f in found}) == len({f.place for f in found}) == 4
    assert {f.severity for f in found} == {Severity.BLOCKING}
    for name in GROUND:
        lacks = [place for row, place in rows(changed(**{name: Answer.NO})) if row == "R003"]
        assert lacks == [f"links.l.{name}"]


@pytest.mark.proves("R003")
def test_a_link_that_nothing_encrypts_has_no_encryptor_whatever_the_answer_says() -> None:
    assert ("R003", "links.l.transport_encrypted") in rows(changed(protocols=(Protocol(name=Family.NONE),)))


@pytest.mark.proves("R005")
def test_each_empty_domain_is_a_finding_of_its_own() -> None:
    empty = Link(ends=("one", "two"), on_exhaustion=FailurePolicy.CLOSED)
    found = [f for f in link_findings(estate(empty), "l") if f.requirement == "R005"]
    assert [f.says.partition(":")[0] for f in found] == [domain.value for domain in Domain]
    assert set(readiness(empty).values()) == {Answer.UNKNOWN}


@pytest.mark.proves("R005")
def test_readiness_is_shown_by_domain() -> None:
    partly = changed(certificates_listed=Answer.NO, endpoints_monitored=Answer.NOT_APPLICABLE, key_store=Answer.UNKNOWN)
    assert readiness(partly) == {
        Domain.IDENTITY: Answer.NO,
        Domain.LIFECYCLE: Answer.UNKNOWN,
        Domain.TRANSPORT: YES,
        Domain.OBSERVABILITY: YES,
    }


@pytest.mark.proves("R006")
@pytest.mark.parametrize("name", ["rotation_tested", "certificates_listed", "transport_encrypted"])
def test_each_prerequisite_keeps_a_link_from_qkd(name: str) -> None:
    for answer in (Answer.NO, Answer.UNKNOWN, Answer.NOT_APPLICABLE):
        assert ("R006", f"links.l.{name}") in rows(changed(**{name: answer}))


@pytest.mark.proves("R006")
def test_answers_need_evidence_that_still_stands() -> None:
    proof = SOUND.evidence[0]
    expired = msgspec.structs.replace(proof, expires=date(2026, 11, 27))
    tomorrow = msgspec.structs.replace(proof, dated=date(2026, 11, 29))
    for evidence in ((), (expired,), (tomorrow,), (msgspec.structs.replace(proof, dated=None),)):
        assert rows(changed(evidence=evidence)) == [("R006", "links.l.evidence")]
    assert rows(changed(evidence=(expired, proof))) == []
    of_today = msgspec.structs.replace(proof, dated=TODAY, expires=TODAY)
    assert rows(changed(evidence=(of_today,))) == []


@pytest.mark.proves("R053")
def test_what_happens_without_keys_has_no_default() -> None:
    (finding,) = [
        f
        for f in link_findings(estate(changed(on_exhaustion=FailurePolicy.UNANSWERED)), "l")
        if f.requirement == "R053"
    ]
    assert (finding.severity, "fail-closed" in finding.hint) == (Severity.BLOCKING, True)
    assert Link(ends=("one", "two")).on_exhaustion is FailurePolicy.UNANSWERED


@pytest.mark.proves("R051")
def test_qkd_needs_a_refresh_and_somebody_who_decides() -> None:
    assert rows(changed(rekey_s=None)) == [("R051", "links.l.rekey_s")]
    assert rows(changed(fallback_within_s=None)) == [("R106", "links.l.fallback_by")]


@pytest.mark.proves("R050")
def test_keys_without_owner_and_deputy_may_not_be_issued() -> None:
    def missing(**roles: tuple[str, ...]) -> list[str]:
        people = {name: Person(roles=held) for name, held in roles.items()}
        found = findings(estate(SOUND, governance=Governance(people=people)))
        return [f.says for f in found if f.requirement == "R050" and f.severity is Severity.BLOCKING]

    assert len(missing()) == 2
    assert missing(ann=("key-owner",)) == ["nobody stands in for the owner of keys"]
    assert missing(ann=("key-owner",), ben=("key-deputy",)) == []


@pytest.mark.proves("R033")
def test_data_may_not_leave_its_countries() -> None:
    swiss = {"a": DataClass(geography=("CH",))}
    found = [f for f in link_findings(estate(changed(carries=("a",)), classes=swiss), "l") if f.requirement == "R033"]
    assert [f.severity for f in found] == [Severity.WARNING]  # of the other site nobody has said where it is
    abroad = {"one": Site(jurisdiction="CH"), "two": Site(jurisdiction="DE")}
    found = link_findings(estate(changed(carries=("a",)), classes=swiss, sites=abroad), "l")
    assert [f.severity for f in found if f.requirement == "R033"] == [Severity.BLOCKING]


@pytest.mark.proves("R074")
def test_random_numbers_alone_distribute_nothing() -> None:
    found = link_findings(estate(changed(devices=("dice",))), "l")
    assert [f.requirement for f in found if f.requirement in ("R003", "R006", "R074")] == ["R074"]


@pytest.mark.proves("R036")
def test_a_relay_without_papers_is_undocumented() -> None:
    sites = {"one": Site(may_relay=YES, owner="us"), "two": Site(expires=date(2026, 1, 1))}
    found = {f.place: f for f in findings(estate(SOUND, sites=sites)) if f.where[0] == "sites"}
    assert found["sites.one.may_relay"].says.endswith("no facility, jurisdiction, evidence")
    assert found["sites.two.expires"].requirement == "R039"


@pytest.mark.proves("R067")
def test_certificates_that_end_are_told() -> None:
    listed = {
        "old": Certificate(subject="old", signature="RSA", expires=date(2026, 11, 27)),
        "soon": Certificate(subject="soon", signature="ML-DSA-65", expires=date(2026, 12, 28)),
        "fine": Certificate(subject="fine", signature="ML-DSA-65", expires=date(2026, 12, 29)),
        "odd": Certificate(subject="odd", signature="rot13"),
    }
    told = [f.says for f in findings(estate(SOUND, certificates=listed)) if f.requirement == "R067"]
    assert told == [
        "old: ended on 2026-11-27",
        "soon: ends in 30 days",
        "odd: nobody knows when it ends",
        "odd: unknown algorithm 'rot13'",
    ]


@pytest.mark.proves("R069")
def test_unknown_coverage_is_a_finding() -> None:
    ends = {"a": Protocol(name=Family.TLS), "b": Protocol(name=Family.TLS, negotiated=("X25519",))}
    told = [f.says for f in findings(estate(SOUND, endpoints=ends)) if f.place == "coverage.tls"]
    assert told == ["tls: the key exchange of 1 of 2 ends is unknown", "tls: the signature of 2 of 2 ends is unknown"]


@pytest.mark.parametrize("seed", range(3))
def test_findings_do_not_depend_on_the_order_of_tables(seed: int) -> None:
    names = [f"l{at}" for at in range(6)]
    links = {name: changed(**{ANSWERS[at]: Answer.NO}) for at, name in enumerate(names)}
    shuffled = {name: links[name] for name in random.Random(seed).sample(names, len(names))}
    assert findings(estate(SOUND, links=links)) == findings(estate(SOUND, links=shuffled))
