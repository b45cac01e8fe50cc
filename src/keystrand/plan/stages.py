"""The stages of a roadmap and what each is left by, from data/stages.toml."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from keystrand.plan.shelf import shipped_rows


class Stage(StrEnum):
    """In their order; none is skipped."""

    INVENTORY = "inventory"
    PQC = "pqc"
    PILOT = "pilot"
    PRODUCTION = "production"

    @property
    def rank(self) -> int:
        return list(Stage).index(self)


class Criterion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure by which a stage is left; one of `least` and `most` is set."""

    measure: Annotated[str, Meta(description="computed from the estate, or a name in [governance.measures]")]
    says: str
    requirement: str
    least: float | None = None
    most: float | None = None

    @property
    def bound(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"

    def is_met_by(self, low: float, high: float) -> bool:
        """Whether the whole range is on the good side."""
        return (self.least is None or low >= self.least) and (self.most is None or high <= self.most)


class StageTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage, by its data."""

    name: Stage
    title: str
    leave: tuple[Criterion, ...] = ()


class Drill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An exercise that is repeated."""

    name: str
    says: str
    every_days: int


def stages() -> tuple[StageTable, ...]:
    """In their order."""
    return shipped_rows("stages", "stages", StageTable)


def drills() -> tuple[Drill, ...]:
    return shipped_rows("stages", "drills", Drill)
