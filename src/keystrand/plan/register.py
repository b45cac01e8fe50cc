"""The risk register that every programme starts with, each risk with the figure of this plan that shows how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from keystrand.plan.shelf import shipped_rows


class Risk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row, as shipped."""

    name: str
    says: str
    measure: str
    mitigation: str
    owner: str
    requirement: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A risk in this estate. `stands` is the figure in words, or why there is none; `owner` a person, or the vacant role."""

    risk: Risk
    stands: str
    owner: str


def risks() -> tuple[Risk, ...]:
    return shipped_rows("register", "risks", Risk)


def register(measures: Mapping[str, str], owners: Mapping[str, str]) -> list[Entry]:
    """`measures`: figure by name, in words. `owners`: person by role. What is missing says so, and is not left out."""
    return [
        Entry(
            risk,
            measures.get(risk.measure, "unknown: not computed in this plan"),
            owners.get(risk.owner, f"nobody ({risk.owner} is vacant)"),
        )
        for risk in risks()
    ]
