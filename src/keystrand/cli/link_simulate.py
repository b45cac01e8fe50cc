"""keystrand link simulate, keystrand link profiles"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli.options import FILE, json_option, print_json
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.config.linkprofile import ProfileFile
    from keystrand.lab.curves import Point

HEAD = ("km", "loss dB", "clicks/s", "QBER", "sifted bit/s", "secret bit/s", "asymptotic", "first key", "PLOB bit/s")


@click.command("simulate")
@click.argument("profile", default="class-ingaas")
@click.option("--km", default=None, type=click.FloatRange(0, 2000), help="One length.  [default: the profile's]")
@click.option("--to-km", default=None, type=click.FloatRange(0, 2000), help="A curve from 0 up to this length.")
@click.option("--step-km", default=10.0, show_default=True, type=click.FloatRange(0.01), help="Between its points.")
@click.option("--detector", default=None, help="Detectors of another class: ingaas or snspd.")
@click.option("--block-bits", default=None, type=int, help="Sifted bits of one block.")
@click.option("--f-ec", default=1.05, show_default=True, type=click.FloatRange(1.0, 3.0), help="Of error correction.")
@click.option("--optimise", is_flag=True, help="Intensities and shares that are best at each length.")
@click.option("--plot", "picture", default=None, type=FILE, help="Draw the curve into this PNG, SVG or PDF.")
@json_option
def simulate(
    profile: str,
    km: float | None,
    to_km: float | None,
    step_km: float,
    detector: str | None,
    block_bits: int | None,
    f_ec: float,
    optimise: bool,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Predict key rate and error rate of a link, with finite-key effects.

    PROFILE is a name of `keystrand link profiles` or a TOML file. Everything printed is simulated.
    """
    from keystrand.lab import curves

    file = _with_options(profile, detector, block_bits)
    length_km = file.free_space.distance_km if file.free_space is not None else file.fibre.length_km
    lengths = [length_km if km is None else km]
    if to_km is not None:
        lengths = [step_km * n for n in range(math.floor(to_km / step_km) + 1)]
    curve = list(curves.points(file, lengths, optimise=optimise, f_ec=f_ec))
    if picture is not None:
        curves.draw(picture, file.title, curve)
        say(f"drew {picture}")
    if as_json:
        for point in curve:
            print_json({"profile": profile, "protocol": file.protocol, "figures": "simulated", **point.facts()})
        return
    say(f"{file.title}; all figures are simulated")
    _table([HEAD, *(_cells(point) for point in curve)])


def _with_options(name: str, detector: str | None, block_bits: int | None) -> ProfileFile:
    from dataclasses import replace

    import msgspec

    from keystrand.config.load import load_profile
    from keystrand.core.errors import ConfigError

    file = load_profile(name)
    if detector is not None:
        if detector not in ("ingaas", "snspd"):
            raise ConfigError(f"there is no class of detectors {detector!r}", hint="ingaas or snspd")
        file = msgspec.structs.replace(file, detector=load_profile(f"class-{detector}").detector)
    if block_bits is not None:
        try:
            rules = replace(file.distillation, block_sifted_bits=block_bits)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        file = msgspec.structs.replace(file, distillation=rules)
    return file


def _cells(point: Point) -> tuple[str, ...]:
    link = point.simulated
    return (
        f"{point.km:g}",
        f"{point.loss_db:.1f}",
        f"{link.clicks_per_s:,.0f}" if link else "",
        "" if math.isnan(point.qber) else f"{100 * point.qber:.2f}%",
        f"{link.sifted_bps:,.0f}" if link else "",
        _rate(point.skr_bps),
        _rate(link.asymptotic_bps) if link else "",
        _span(link.block_s) if link and link.secret_bits else "never" if link else "",
        _rate(point.plob_bps),
    )


def _rate(bps: float) -> str:
    return f"{bps:,.0f}" if bps >= 10 or bps == 0 else f"{bps:.2g}"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _table(lines: list[tuple[str, ...]]) -> None:
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    for line in lines:
        click.echo("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@click.command("profiles")
@click.argument("name", required=False)
@json_option
def profiles(name: str | None, as_json: bool) -> None:
    """List the profiles of links that come with the program, or every figure of one with its source."""
    from keystrand.config.linkprofile import names
    from keystrand.config.load import load_profile

    if name is not None:
        file = load_profile(name)
        for figure, source in file.provenance.items():
            table, _, field = figure.partition(".")
            fact = {"figure": figure, "value": getattr(getattr(file, table), field), "source": source}
            print_json(fact) if as_json else click.echo(f"{figure} = {fact['value']}  ({source})")
        return
    for each in names():
        file = load_profile(each)
        fact = {"profile": each, "protocol": file.protocol, "detector": file.detector_class, "title": file.title}
        print_json(fact) if as_json else click.echo(f"{each:<18}  {file.protocol:<11}  {file.title}")
