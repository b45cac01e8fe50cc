"""How honest the ranges of loss and rate are: what share of published links lies inside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from keystrand.plan.equipment import DEFAULTS, Kind, rate_span
from keystrand.plan.equipment import shipped as device
from keystrand.plan.fact import Span
from keystrand.plan.loss import fibre_db
from keystrand.plan.shelf import shipped


class Published(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One link of `data/published.toml`."""

    name: str
    skr_bps: float
    role: str
    setting: str
    standing: str
    source: str
    km: float | None = None
    loss_db: float | None = None
    kind: Kind = Kind.DV_QKD


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    links: tuple[Published, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """One published link against the planner. None: the paper does not say what would be needed."""

    link: Published
    loss_db: Span | None
    skr_bps: Span | None

    @property
    def loss_inside(self) -> bool | None:
        if self.loss_db is None or self.link.loss_db is None:
            return None
        return self.loss_db.low <= self.link.loss_db <= self.loss_db.high

    @property
    def rate_inside(self) -> bool | None:
        return None if self.skr_bps is None else self.skr_bps.low <= self.link.skr_bps <= self.skr_bps.high


def held() -> list[Held]:
    """Every published link: its loss from its length alone, its rate from its loss (or its length) with no device named."""
    return [_held(link) for link in shipped("published", Table).links]


def _held(link: Published) -> Held:
    by_length = None if link.km is None else fibre_db(Span.point(link.km))
    loss = by_length if link.loss_db is None else Span.point(link.loss_db)
    rate = None if loss is None else rate_span([device(name) for name in DEFAULTS[link.kind]], loss)
    return Held(link, by_length, rate)


def inside(answers: Iterable[bool | None]) -> tuple[int, int]:
    """How many are, of how many that can be told."""
    known = [answer for answer in answers if answer is not None]
    return sum(known), len(known)
