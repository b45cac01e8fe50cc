"""Exposure over confidentiality horizon, and the bands of residual risk of each link, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keystrand.lab.picture import blank
from keystrand.plan.estate import Estate
from keystrand.plan.exposure import Exposure, exposed
from keystrand.plan.fact import Span, figure

HORIZON_MAX_YEARS = 40
LINKS_MAX = 20  # more do not fit a page


@dataclass(frozen=True, slots=True)
class Bar:
    """One link: how long its data must be secret, and what is left under each pattern."""

    link: str
    horizon: Span
    left: tuple[tuple[str, Span], ...]


def draw(path: Path, estate: Estate, bars: Sequence[Bar]) -> None:
    """Left: exposure between the late and the early curve, with the horizons of the links. Right: the bands of each link."""
    shown = bars[:LINKS_MAX]
    picture = blank(path, 11, 3 + 0.35 * len(shown))
    curve, bands = picture.subplots(1, 2, width_ratios=(2, 3))
    horizons = [n / 2 for n in range(1, 2 * HORIZON_MAX_YEARS + 1)]
    found = [e for e in (exposed(estate, figure(h)) for h in horizons) if isinstance(e, Exposure)]
    curve.fill_between(horizons, *([100 * getattr(e.share, end) for e in found] for end in ("low", "high")), alpha=0.3)
    curve.plot(horizons, [100 * e.share.likely for e in found])
    for bar in shown:
        curve.axvspan(bar.horizon.low, bar.horizon.high, color="grey", alpha=0.08)
    curve.set(xlabel="years that data must stay secret", ylabel="recorded now, read later: %", ylim=(0, 100))
    curve.set(title="before any control; grey: horizons of the links")
    for at, bar in enumerate(shown):
        for step, (name, span) in enumerate(bar.left):
            height = at + 0.25 * (step - 1)
            label = name if at == 0 else None
            bands.plot([100 * span.low, 100 * span.high], [height] * 2, color=f"C{step}", linewidth=5, label=label)
    bands.set_yticks(range(len(shown)), [bar.link for bar in shown])
    bands.set_ylim(len(shown) - 0.5, -0.5)
    bands.set(xlabel="residual risk, %: 5 to 95 % of draws, both curves", xlim=(0, 100))
    bands.set(title=f"{estate.name}, {estate.planned}: assumed, not measured")
    for axes in (curve, bands):
        axes.grid(alpha=0.3)
    if shown:
        bands.legend(loc="lower right", fontsize="small")
    picture.savefig(path)
