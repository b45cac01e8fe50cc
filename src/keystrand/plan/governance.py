"""Who owns, decides, signs and is trained: the answers without which a pilot, or production, does not start."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

from keystrand.plan.fact import Quantity


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody with a part in running the estate."""

    roles: Annotated[
        tuple[str, ...], Meta(description='such as "key-owner", "network-engineering", "security-policy"')
    ] = ()
    skills: Annotated[tuple[str, ...], Meta(description='such as "optics", "cryptography", "operations"')] = ()
    contact: Annotated[str, Meta(description="how to reach the person in an incident")] = ""
    contact_checked: Annotated[date | None, Meta(description="when that was tried last")] = None
    trained: Annotated[tuple[str, ...], Meta(description="exercises done")] = ()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question of governance, and who gave it when."""

    answer: Annotated[str, Meta(description="in words; empty: unanswered")] = ""
    by: Annotated[str, Meta(description="who decided")] = ""
    on: Annotated[date | None, Meta(description="when")] = None
    evidence: Annotated[
        tuple[str, ...], Meta(description="links or files that show it: minutes, contracts, reports")
    ] = ()


class Milestone(msgspec.Struct, frozen=True, kw_only=True):
    """When a step of the roadmap is meant to be worked on, as the estate's own plan says."""

    starts: Annotated[date | None, Meta(description="first day")] = None
    ends: Annotated[date | None, Meta(description="last day")] = None


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """Who does what about one component or alarm: a row of the RACI table."""

    accountable: Annotated[tuple[str, ...], Meta(description="exactly one person")] = ()
    responsible: Annotated[tuple[str, ...], Meta(description="who do the work")] = ()
    consulted: Annotated[tuple[str, ...], Meta(description="who are asked before")] = ()
    informed: Annotated[tuple[str, ...], Meta(description="who are told after")] = ()


class Governance(msgspec.Struct, frozen=True, kw_only=True):
    """Answers by the key of their question, and the people."""

    people: Annotated[Mapping[str, Person], Meta(description="tables [governance.people.NAME]")] = {}
    replies: Annotated[Mapping[str, Reply], Meta(description="tables [governance.replies.QUESTION]")] = {}
    duties: Annotated[Mapping[str, Duty], Meta(description="tables [governance.duties.COMPONENT], or of an alarm")] = {}
    drills: Annotated[Mapping[str, date], Meta(description="day of the last exercise of each kind")] = {}
    measures: Annotated[
        Mapping[str, Quantity], Meta(description="figures by which a stage is left, such as key_availability")
    ] = {}
    milestones: Annotated[
        Mapping[str, Milestone], Meta(description="the estate's own plan, by step of the roadmap")
    ] = {}
    stage: Annotated[str, Meta(description="inventory, pqc, pilot or production")] = "inventory"
    first_key: Annotated[date | None, Meta(description="day of the first QKD key, if there was one")] = None
