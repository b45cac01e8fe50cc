"""What the verbs that print figures of a plan share: the outcome of each link, and words for ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keystrand.cli.plan_equipment import whole_of
from keystrand.plan.pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystrand.plan.estate import Estate
    from keystrand.plan.fact import Figure, Span
    from keystrand.plan.outcome import Outcome

SHORT: Final = {
    Pattern.CLASSICAL: "hardening",
    Pattern.PQC: "PQC",
    Pattern.PQC_QKD: "PQC + QKD",
    Pattern.PQC_QKD_MULTI: "PQC + QKD, several",
    Pattern.PQC_QKD_OTP: "PQC + QKD + OTP",
}
"""Words for patterns that leave room for figures."""


def outcomes(estate: Estate, names: Sequence[str]) -> list[Outcome]:
    """What was found and decided for these links, with the equipment that the estate's own files describe."""

    found = {outcome.name: outcome for outcome in whole_of(estate).outcomes}
    return [found[name] for name in names]


def percent(span: Span) -> str:
    """`3.6-8.7 %`"""
    low, high = (f"{100 * value:.2g}" for value in (span.low, span.high))
    return f"{low} %" if low == high else f"{low}-{high} %"


def years(span: Span) -> str:
    """`10-30 y`"""
    low, high = (f"{value:.3g}" for value in (span.low, span.high))
    return f"{low} y" if low == high else f"{low}-{high} y"


def numbers(span: Span) -> list[float]:
    """Low, likely and high for `--json`, which prints null for what is not finite."""
    return [span.low, span.likely, span.high]


def interval(figure: Figure | None) -> list[float] | None:
    """The same of a figure, if there is one."""
    return None if figure is None else numbers(figure.span)
