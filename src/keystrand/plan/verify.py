"""Plan and reality side by side: what was predicted of a link, what its running sites measured, and where the two have drifted.

A figure that nobody measured says so. One of a simulated link is marked so: it checks the plan's arithmetic, not fibre.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import median
from typing import Any, Final

from keystrand.plan.fact import Basis, Span, Unknown
from keystrand.plan.outcome import Outcome

TOLERANCE: Final = 0.1  # of a predicted point: operation is never exact to the last digit
GAPS_LEAST: Final = 2  # time between draws says nothing before there were three


class Verdict(StrEnum):
    """Of one figure."""

    AS_PLANNED = "as planned"
    ABOVE = "drift: above"
    BELOW = "drift: below"
    NOT_MEASURED = "not measured"
    NOT_PLANNED = "not planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one site measured of one of its links; None: it has not. drain_bps: what its applications draw at present.

    rotation_s: median time between draws of one pair of applications. oldest_s: age of the oldest key material in store.
    """

    site: str
    link: str
    peer: str
    simulated: bool
    skr_bps: float | None = None
    stock_bits: float | None = None
    drain_bps: float | None = None
    oldest_s: float | None = None
    rotation_s: float | None = None

    @property
    def basis(self) -> Basis:
        return Basis.SIMULATED if self.simulated else Basis.MEASURED


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one link at one site. planned: range, or None with `why`."""

    link: str
    site: str
    figure: str
    unit: str
    planned: Span | None
    measured: float | None
    basis: Basis
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.planned is None:
            return Verdict.NOT_PLANNED
        if self.measured is None:
            return Verdict.NOT_MEASURED
        if self.measured < self.planned.low * (1 - TOLERANCE):
            return Verdict.BELOW
        return Verdict.ABOVE if self.measured > self.planned.high * (1 + TOLERANCE) else Verdict.AS_PLANNED

    @property
    def has_drifted(self) -> bool:
        return self.verdict in (Verdict.ABOVE, Verdict.BELOW)


def compared(outcome: Outcome, measured: Measured) -> tuple[Line, ...]:
    """The four figures that a plan predicts, beside what one site says of them."""
    found, site = outcome.feasibility, measured.site
    store, drain = found.store, measured.drain_bps or None
    why = "; ".join(found.reasons) or "no outage is stated that a store has to bridge"
    outage = None if measured.stock_bits is None or drain is None else measured.stock_bits / drain
    rekey = outcome.link.rekey_s

    def line(figure: str, unit: str, planned: Span | None, value: float | None, why: str = "") -> Line:
        return Line(outcome.name, site, figure, unit, planned, value, measured.basis, why)

    return (
        line("key rate", "bit/s", found.skr_bps.span if found.skr_bps else None, measured.skr_bps, why),
        line("time to empty", "s", Span.point(store.outage_s) if store else None, outage, why),
        line(
            "exposure window",
            "s",
            Span(0.0, store.exposure_s, store.exposure_s) if store else None,
            measured.oldest_s,
            why,
        ),
        line("rotation", "s", Span.point(rekey) if rekey else None, measured.rotation_s, "rekey_s is not stated"),
    )


def paired(outcomes: Sequence[Outcome], measured: Measured) -> Outcome | Unknown:
    """The link of the estate that a site's link is: of the same name, or else the only one between the same two sites."""
    named = [outcome for outcome in outcomes if outcome.name == measured.link]
    ends = {measured.site, measured.peer}
    between = named or [outcome for outcome in outcomes if set(outcome.link.ends) == ends]
    if len(between) == 1:
        return between[0]
    return Unknown(
        (f"{measured.site} has a link {measured.link} with {measured.peer}, and the estate knows none such",)
    )


def measured_of(status: dict[str, Any]) -> Iterator[Measured]:
    """From a site's status (the JSON of `keystrand status --json`), one for each of its links."""
    for link in status["links"]:
        ledger = link["ledger"]
        yield Measured(
            site=status["site"],
            link=link["link"],
            peer=link["peer"],
            simulated=link["simulated"],
            skr_bps=_rate(status, link),
            stock_bits=float(ledger["available"] + ledger["reserved"]),
            drain_bps=link["drain_bps"],
            oldest_s=link["oldest_block_age_s"],
            rotation_s=_rotation_s(status, link["link"]),
        )


def _rate(status: dict[str, Any], link: dict[str, Any]) -> float | None:
    """The mean over the blocks that the site remembers, or else of the last one."""
    blocks = status["series"].get(link["link"], {}).get("blocks", [])
    rates = [skr_bps for _, _, skr_bps in blocks if skr_bps is not None]
    rate = sum(rates) / len(rates) if rates else link["skr_bps"]
    return None if rate is None else float(rate)


def _rotation_s(status: dict[str, Any], link: str) -> float | None:
    """Median time between two draws of the application pair that draws most often from this link."""
    drawn: dict[tuple[str, str], list[float]] = {}
    for delivery in status["deliveries"]["recent"]:
        if delivery.get("link") == link and delivery.get("recipient") == delivery["initiator"]:
            drawn.setdefault((delivery["initiator"], delivery["responder"]), []).append(delivery["at_s"])
    times = max((sorted(at) for at in drawn.values()), key=len, default=list[float]())
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return median(gaps) if len(gaps) >= GAPS_LEAST else None
