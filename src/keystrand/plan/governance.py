"""Who owns, decides, signs and is trained: the answers without which a pilot, or production, does not start."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta


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


class Governance(msgspec.Struct, frozen=True, kw_only=True):
    """Answers by the key of their question, and the people."""

    people: Annotated[Mapping[str, Person], Meta(description="tables [governance.people.NAME]")] = {}
    replies: Annotated[Mapping[str, Reply], Meta(description="tables [governance.replies.QUESTION]")] = {}
    stage: Annotated[str, Meta(description="inventory, pqc, pilot or production")] = "inventory"
    first_key: Annotated[date | None, Meta(description="day of the first QKD key, if there was one")] = None
