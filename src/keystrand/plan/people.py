"""The people of an estate: who must not be the same, whom nobody has called for long, and what they have practised."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import combinations
from typing import Final

from keystrand.plan.estate import Estate
from keystrand.plan.finding import Finding, Severity
from keystrand.plan.governance import Governance, Person
from keystrand.plan.stages import Drill, drills

APART: Final = (  # roles that one person must not hold together, and the requirement that says so
    ("network-engineering", "security-policy", "R114"),
    ("key-owner", "key-deputy", "R050"),
    ("hsm-admin", "kms-admin", "R061"),
    ("kms-admin", "qkd-operator", "R061"),
    ("hsm-admin", "qkd-operator", "R061"),
    ("auditor", "key-rotator", "R029"),
)
SIGN_OFFS: Final = ("sign-off-procurement", "sign-off-risk", "sign-off-engineering")
CONTACT_DAYS: Final = 183  # a telephone number that nobody has tried for half a year is a guess
ON_CALL: Final = ("incident-lead", "key-owner", "key-deputy", "key-rotator")


def staffing(estate: Estate) -> Iterator[Finding]:
    """Everything about the people that a gate, or a reader of the plan, should know."""
    yield from _apart(estate.governance)
    yield from _sign_offs(estate.governance)
    for name, person in estate.governance.people.items():
        if set(person.roles) & set(ON_CALL):
            yield from _contact(name, person, estate.planned)
    yield from _decided_late(estate.governance)


def overdue(estate: Estate) -> Iterator[Finding]:
    """Drills that were never held, or too long ago (R112)."""
    for drill in drills():
        last = estate.governance.drills.get(drill.name)
        if last is None:
            yield _drill(drill, "was never held")
        elif last + timedelta(days=drill.every_days) < estate.planned:
            due = last + timedelta(days=drill.every_days)
            yield _drill(drill, f"was held last on {last}, and has been due since {due}")


def _drill(drill: Drill, says: str) -> Finding:
    text = f"the drill “{drill.says}” {says}"
    return Finding(("governance", "drills", drill.name), text, "R112", Severity.WARNING, "keystrand lab has drills")


def _apart(governance: Governance) -> Iterator[Finding]:
    for name, person in governance.people.items():
        for one, other, row in APART:
            if one in person.roles and other in person.roles:
                where = ("governance", "people", name, "roles")
                text = f"{name} is both {one} and {other}: nobody checks the other's work"
                yield Finding(where, text, row, Severity.BLOCKING, "give one of the two to somebody else")


def _sign_offs(governance: Governance) -> Iterator[Finding]:
    signed = {name: governance.replies[name].by for name in SIGN_OFFS if name in governance.replies}
    for one, other in combinations(signed, 2):
        if signed[one] and signed[one] == signed[other]:
            where = ("governance", "replies", other, "by")
            text = f"{one} and {other} are both by {signed[one]}: three functions have to agree, not one person three times"
            yield Finding(where, text, "R058", Severity.BLOCKING)


def _contact(name: str, person: Person, today: date) -> Iterator[Finding]:
    where = ("governance", "people", name, "contact")
    if not person.contact:
        yield Finding(where, f"{name} is on call and has no contact", "R111", Severity.BLOCKING, "state contact")
    elif person.contact_checked is None:
        yield Finding(where, f"nobody has tried to reach {name}", "R111", hint="try, and state contact_checked")
    elif person.contact_checked + timedelta(days=CONTACT_DAYS) < today:
        yield Finding(where, f"{name} was reached last on {person.contact_checked}", "R111", hint="try again")


def _decided_late(governance: Governance) -> Iterator[Finding]:
    """Decisions come before the first key (R115)."""
    for name, reply in governance.replies.items():
        if governance.first_key and reply.answer and (reply.on is None or reply.on >= governance.first_key):
            when = f"on {reply.on}" if reply.on else "nobody knows when"
            text = f"{name} was decided {when}, and the first key came on {governance.first_key}"
            yield Finding(("governance", "replies", name, "on"), text, "R115", Severity.BLOCKING)
