"""Who is accountable for each component and alarm (RACI), and whether a pilot has the skills that it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from keystrand.plan.estate import Estate
from keystrand.plan.finding import Finding, Severity
from keystrand.plan.governance import Duty
from keystrand.plan.layers import architecture
from keystrand.plan.shelf import shipped_rows

PEOPLE_PER_SKILL: Final = 2  # with one, it is on holiday with that person


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the RACI table. `kind` is "component" or "alarm"; `stated_for` is what the duty was written for."""

    kind: str
    name: str
    duty: Duty
    stated_for: str

    @property
    def has_one_owner(self) -> bool:
        return len(self.duty.accountable) == 1

    def plain(self) -> dict[str, str]:
        columns = ("responsible", "accountable", "consulted", "informed")
        people = {column: ", ".join(getattr(self.duty, column)) for column in columns}
        return {"kind": self.kind, "name": self.name, **people, "stated_for": self.stated_for}


def raci(estate: Estate) -> list[Row]:
    """Every component and every alarm. A duty is stated for it, or else for its component, or else for its whole layer."""
    rows = []
    for part in architecture().components:
        rows.append(_row(estate.governance.duties, "component", part.name, (part.name, part.layer)))
        rows += [
            _row(estate.governance.duties, "alarm", alarm, (alarm, part.name, part.layer)) for alarm in part.alarms
        ]
    return rows


def _row(duties: Mapping[str, Duty], kind: str, name: str, places: tuple[str, ...]) -> Row:
    stated_for = next((place for place in places if place in duties), "")
    return Row(kind, name, duties.get(stated_for, Duty()), stated_for)


def unowned(estate: Estate) -> Iterator[Finding]:
    """Components and alarms without exactly one accountable owner, and duties for what there is not (R108)."""
    people = estate.governance.people
    for row in raci(estate):
        where = ("governance", "duties", row.name)
        if not row.has_one_owner:
            text = f"{row.kind} {row.name} has {len(row.duty.accountable) or 'no'} accountable owner{_s(row.duty)}"
            hint = "name exactly one under accountable; a layer's duty holds for all its components"
            yield Finding(where, text, "R108", Severity.BLOCKING, hint)
        elif row.duty.accountable[0] not in people:
            text = f"{row.duty.accountable[0]}, accountable for {row.name}, is nobody in [governance.people]"
            yield Finding(where, text, "R108", Severity.BLOCKING)
    known = {name for part in architecture().components for name in (part.name, part.layer, *part.alarms)}
    for name in estate.governance.duties:
        if name not in known:
            yield Finding(("governance", "duties", name), f"{name} is no component, layer or alarm", "R108")


def _s(duty: Duty) -> str:
    return "s" if len(duty.accountable) > 1 else ""


class Skill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that somebody on a pilot has to be able to do."""

    name: str
    says: str
    only_with_relays: bool = False


@dataclass(frozen=True, slots=True)
class Staffed:
    """One skill and the people who have it."""

    skill: Skill
    people: tuple[str, ...]

    @property
    def gap(self) -> int:
        """How many people are missing."""
        return max(0, PEOPLE_PER_SKILL - len(self.people))


def skills(estate: Estate, *, relays: int) -> list[Staffed]:
    """The skills matrix of a pilot over so many trusted nodes."""
    wanted = [skill for skill in shipped_rows("register", "skills", Skill) if relays or not skill.only_with_relays]
    people = estate.governance.people.items()
    return [Staffed(s, tuple(name for name, person in people if s.name in person.skills)) for s in wanted]


def skill_gaps(estate: Estate, link: str, *, relays: int) -> Iterator[Finding]:
    """Each gap is a risk of the pilot (R127)."""
    for staffed in skills(estate, relays=relays):
        if staffed.gap:
            have = ", ".join(staffed.people) or "nobody"
            text = f"{link} needs {staffed.skill.name} ({staffed.skill.says}): {have} of {PEOPLE_PER_SKILL} people"
            yield Finding(
                ("links", link), text, "R127", Severity.WARNING, "train a second person: keystrand lab exercise"
            )
