"""An estate whose governance answers everything, as literals: tests take answers away from it."""

from __future__ import annotations

from datetime import date
from typing import Any

from msgspec.structs import replace

from keystrand.plan.estate import DataClass, Device, Estate, FailurePolicy, Impact, Link, Protocol, Site
from keystrand.plan.fact import Answer, Basis, Stated
from keystrand.plan.governance import Duty, Governance, Milestone, Person, Reply
from keystrand.plan.pattern import Pattern
from keystrand.plan.stages import drills

TODAY = date(2026, 11, 28)
PATTERNS = {"core": Pattern.PQC_QKD, "branch": Pattern.CLASSICAL}
REPLIES = {
    "pqc-owner": "anna",
    "support-boundary": "bela",
    "sign-off-procurement": "clara",
    "sign-off-risk": "dora",
    "sign-off-engineering": "bela",
    "runbooks": "bela",
    "custody": "dora",
    "rollback": "bela",
    "change-windows": "anna",
    "spares": "bela",
    "review-monitoring": "bela",
    "review-change-control": "anna",
    "review-incident-response": "dora",
    "review-vendor-support": "bela",
}
MEASURES = {
    "metrics_self_test": 1.0,
    "kms_in_service_days": 60.0,
    "pilot_days": 120.0,
    "key_availability": 0.9995,
    "rekey_success": 1.0,
    "time_to_empty_error": 0.02,
    "unplanned_losses": 0.0,
    "fallback_decision_s": 240.0,
}


def person(*roles: str, skills: tuple[str, ...] = ()) -> Person:
    return Person(roles=roles, skills=skills, contact="+41 00", contact_checked=date(2026, 10, 1))


GOVERNANCE = Governance(
    people={
        "anna": person("key-owner", "security-policy", skills=("cryptography", "incident-response", "facility")),
        "bela": person(
            "key-deputy", "network-engineering", "link-inspector", skills=("optics", "networks", "operations")
        ),
        "clara": person("update-signer", "auditor", skills=("operations", "cryptography", "optics")),
        "dora": person("key-rotator", "incident-lead", skills=("networks", "incident-response", "facility")),
    },
    replies={
        name: Reply(
            answer="yes, see the minutes", by=by, on=date(2026, 9, 1), evidence=(f"https://wiki.example.net/{name}",)
        )
        for name, by in REPLIES.items()
    },
    duties={
        tier: Duty(accountable=("anna",)) for tier in ("physical", "keys", "encryption", "applications", "operations")
    },
    drills={drill.name: date(2026, 11, 1) for drill in drills()},
    measures={
        name: Stated(likely=value, basis=Basis.MEASURED, source="operations report") for name, value in MEASURES.items()
    },
    stage="pilot",
    first_key=date(2026, 10, 1),
)
CORE = Link(
    ends=("north", "south"),
    carries=("records",),
    rekey_s=60.0,
    on_exhaustion=FailurePolicy.CLOSED,
    fallback_by="anna",
    fallback_within_s=600.0,
    rotation_tested=Answer.YES,
    certificates_listed=Answer.YES,
    transport_encrypted=Answer.YES,
    endpoints_monitored=Answer.YES,
    key_store=Answer.YES,
    authentication=Answer.YES,
    protocols=(Protocol(name="ipsec", negotiated=("x25519mlkem768",)),),
    devices=("pair",),
)
BRANCH = Link(
    ends=("north", "shop"),
    carries=("menus",),
    certificates_listed=Answer.YES,
    protocols=(Protocol(name="tls", negotiated=("x25519",)),),
)


def governed(**changes: Any) -> Estate:
    """Fields of the governance may be exchanged."""
    return Estate(
        name="governed",
        planned=TODAY,
        classes={
            "records": DataClass(horizon_years=(20.0, 30.0), impact=Impact.HIGH, owner="dora", retention_days=365),
            "menus": DataClass(horizon_years=0.01, impact=Impact.LOW, owner="clara", retention_days=30),
        },
        sites={"north": Site(), "south": Site(), "shop": Site()},
        links={"core": CORE, "branch": BRANCH},
        devices={"pair": Device(kind="dv-qkd", maturity="production")},
        governance=replace(GOVERNANCE, **changes),
    )


def with_core(**changes: Any) -> Estate:
    """Fields of the pilot link may be exchanged."""
    estate = governed()
    return replace(estate, links={**estate.links, "core": replace(CORE, **changes)})


def in_order() -> dict[str, Milestone]:
    """Milestones of a year for each step of the roadmap, one after the other."""
    names = (
        "inventory",
        "owners",
        "hardening",
        "pqc",
        "key-manager",
        "observability",
        "lab",
        "pilot",
        "pilot-review",
        "production",
    )
    return {name: Milestone(starts=date(2026 + n, 1, 1), ends=date(2026 + n, 12, 31)) for n, name in enumerate(names)}
