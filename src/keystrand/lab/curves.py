"""Curves of key rate over distance, for a terminal or as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from keystrand.config.linkprofile import ProfileFile, Protocol
from keystrand.core.errors import ConfigError
from keystrand.lab.picture import blank
from keystrand.qkd.rates import Rate, at_length, optimised, plob_bits, rate

POINTS_MAX: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One length of a curve. `simulated`: what a finite-key link gives; None where the protocol is a rate model."""

    km: float
    loss_db: float
    skr_bps: float
    qber: float
    plob_bps: float
    simulated: Rate | None = None

    def facts(self) -> dict[str, Any]:
        """For JSON: no infinite numbers."""
        plain = asdict(self) if self.simulated is None else {"km": self.km, **asdict(self.simulated)}
        return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in plain.items()}


def points(file: ProfileFile, lengths_km: Sequence[float], *, optimise: bool, f_ec: float) -> Iterator[Point]:
    """The curve of a profile at these lengths."""
    if len(lengths_km) > POINTS_MAX:
        raise ConfigError(f"{len(lengths_km)} lengths are more than {POINTS_MAX}", hint="take a larger --step")
    for km in lengths_km:
        yield _model_point(file, km) if file.protocol is not Protocol.BB84 else _link_point(file, km, optimise, f_ec)


def _link_point(file: ProfileFile, km: float, optimise: bool, f_ec: float) -> Point:
    profile = at_length(file.profile, km)
    found = rate(optimised(profile, f_ec=f_ec) if optimise else profile, f_ec=f_ec)
    return Point(
        km=km,
        loss_db=found.loss_db,
        skr_bps=found.skr_bps,
        qber=found.qber,
        plob_bps=found.plob_bps,
        simulated=found,
    )


def _model_point(file: ProfileFile, km: float) -> Point:
    model = file.model
    assert model is not None, "checked when the file was read"
    loss_db = replace(file.fibre, length_km=km).loss_db
    bps, second = model.rate(loss_db)
    qber = math.nan if file.protocol is Protocol.GG02 else second
    return Point(km=km, loss_db=loss_db, skr_bps=bps, qber=qber, plob_bps=model.clock_hz * plob_bits(loss_db))


def draw(path: Path, title: str, curve: Sequence[Point]) -> None:
    """Secret key rate, its asymptotic limit and the PLOB bound over distance, and the error rate below, into a picture."""
    figure = blank(path, 8, 6)
    rates, errors = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    km = [p.km for p in curve]
    rates.semilogy(km, [p.skr_bps or math.nan for p in curve], label="secret key", linewidth=2)
    if curve[0].simulated is not None:
        rates.semilogy(
            km, [p.simulated.asymptotic_bps or math.nan for p in curve if p.simulated], "--", label="asymptotic"
        )
    rates.semilogy(km, [p.plob_bps for p in curve], ":", color="grey", label="PLOB bound")
    rates.set(title=title, ylabel="bit/s")
    rates.legend()
    rates.grid(alpha=0.3)
    errors.plot(km, [100 * p.qber for p in curve], color="tab:red")
    errors.set(xlabel="km", ylabel="QBER, %", ylim=(0, 12))
    errors.grid(alpha=0.3)
    figure.savefig(path)
