"""Questions of governance, from data/questions.toml: each is answered by a decision, by people, or by fields of the estate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from keystrand.plan.estate import DataClass, Estate
from keystrand.plan.fact import Answer
from keystrand.plan.finding import Finding, Severity, Where
from keystrand.plan.shelf import shipped_rows
from keystrand.plan.templates import horizon_of

UNANSWERED = (None, "", (), Answer.UNKNOWN)


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question, and what answers it: exactly one of reply, roles, link and class is set."""

    name: str
    gate: Annotated[str, Meta(description="stage that does not begin without the answer")]
    requirement: str
    text: str
    reply: bool = False
    evidence: Annotated[bool, Meta(description="a reply without a link to what shows it does not count")] = False
    roles: tuple[str, ...] = ()
    link: tuple[str, ...] = ()
    class_: Annotated[tuple[str, ...], Meta(description="fields of data classes")] = msgspec.field(
        default=(), name="class"
    )

    def open(self, estate: Estate, pilots: Sequence[str]) -> Iterator[Finding]:
        """What is missing of its answer; `pilots` are the links that the question is about."""
        if self.reply:
            yield from self._reply(estate)
        for role in self.roles:
            if not any(role in person.roles for person in estate.governance.people.values()):
                yield self._blocks(
                    ("governance", "people"), f"nobody has the role {role}", f'give somebody roles = ["{role}"]'
                )
        for name in pilots:
            yield from self._fields(estate.links[name], self.link, ("links", name))
        for name in self._classes(estate, pilots):
            yield from self._fields(estate.classes[name], self.class_, ("classes", name))

    def _classes(self, estate: Estate, pilots: Sequence[str]) -> list[str]:
        """Those that the pilots carry; before there are pilots, all."""
        carried = {name for pilot in pilots for name in estate.links[pilot].carries}
        return [name for name in estate.classes if self.gate == "pqc" or name in carried]

    def _reply(self, estate: Estate) -> Iterator[Finding]:
        given = estate.governance.replies.get(self.name)
        where: Where = ("governance", "replies", self.name)
        if given is None or not given.answer.strip():
            yield self._blocks(where, "unanswered", f"answer in [governance.replies.{self.name}]: answer, by, on")
        elif not given.by or given.on is None:
            yield self._blocks(where, "answered, but not by whom and when", "add by and on")
        elif self.evidence and not any(link.strip() for link in given.evidence):
            yield self._blocks(where, "answered, but nothing is named that shows it", 'add evidence = ["link or file"]')

    def _fields(self, of: object, fields: Iterable[str], where: Where) -> Iterator[Finding]:
        for field in fields:
            value = _stated(of, field)
            if value in UNANSWERED:
                yield self._blocks((*where, field), f"{where[1]}: {field} is not stated", f"state {field}")
            elif value is Answer.NO:
                yield self._blocks((*where, field), f"{where[1]}: {field} is answered no", f"do it, then state {field}")

    def _blocks(self, where: Where, missing: str, hint: str) -> Finding:
        return Finding(where, f"{self.text} ({missing})", self.requirement, Severity.BLOCKING, hint)


def _stated(of: object, field: str) -> object:
    """A class's horizon may come from its template."""
    return horizon_of(of) if isinstance(of, DataClass) and field == "horizon_years" else getattr(of, field)


def questions() -> tuple[Question, ...]:
    """The shipped questions, in the order of their gates."""
    return shipped_rows("questions", "questions", Question)
