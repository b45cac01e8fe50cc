"""keystrand transfer"""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from keystrand.cli.options import config_option, gateway_of, gateway_peer, json_option, print_json, site_of
from keystrand.cli.terminal import amount
from keystrand.core.errors import BadRequest

if TYPE_CHECKING:
    from keystrand.transport.gateway.plan import Task, Way

_SIZES: Final = {"": 1, "B": 1} | {
    f"{prefix}{binary}B": (1024 if binary else 1000) ** power
    for power, prefix in enumerate("kMGTP", start=1)
    for binary in ("", "i")
}
_TIMES: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.group()
def command() -> None:
    """Plan transfers to another site."""


@command.command("plan")
@click.argument("size")
@click.argument("by_when", metavar="BY-WHEN")
@config_option
@click.option("--to", "site", required=True, help="Site to send to.")
@click.option("--streams", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--throughput", default=None, help="Per second, like 200MB; default: the median of measured transfers.")
@json_option
def plan(
    size: str, by_when: str, config_file: Path, site: str, streams: int, throughput: str | None, as_json: bool
) -> None:
    """Say whether SIZE (like 500GB, 64KiB) can be sent BY-WHEN (like 2h, or 2027-01-31T06:00), and how.

    Counts with the key pool and its rate as the KME tells them now, the rotation of the site's file, the limit of the
    cipher, and a measured throughput. Exit status 1 where neither way is in time.
    """
    from keystrand.cli.sae_client import client_of
    from keystrand.cli.throughput import Throughputs
    from keystrand.transport.gateway.plan import Task, plan_transfer
    from keystrand.transport.keys import Etsi014Keys

    config = site_of(config_file)
    gateway = gateway_of(config, config_file)
    peer = gateway_peer(gateway, site)
    measured = Throughputs(config.site.state_dir).of(site)
    rate = float(bytes_of(throughput)) if throughput else measured
    if not rate:
        hint = "state --throughput, or send something of at least 16 MiB first"
        raise BadRequest(f"no transfer to {site} was measured yet", hint=hint)
    task = Task(
        size_bytes=bytes_of(size),
        within_s=seconds_until(by_when, time.time()),
        streams=streams,
        bytes_per_s=rate,
        rotate_bytes=gateway.rotate_bytes,
        rotate_s=gateway.rotate_s,
        pad_rule=peer.one_time_pad,
        pad_bytes_max=gateway.pad_bytes_max,
    )
    with client_of(config, gateway.sae) as client:
        status = Etsi014Keys(client).status(peer.sae)
    ways = plan_transfer(task, status)
    origin = "assumed" if throughput else "measured"
    if as_json:
        print_json(_facts(task, ways, origin, status.extension))
    else:
        _show(task, ways, origin, site, status.extension)
    if not any(way.fits for way in ways):
        raise SystemExit(1)


def _facts(task: Task, ways: list[Way], origin: str, extension: dict[str, str | int | float]) -> dict[str, object]:
    import msgspec

    return {
        "size_bytes": task.size_bytes,
        "within_s": round(task.within_s, 1),
        "throughput_bytes_per_s": task.bytes_per_s,
        "throughput": origin,
        "fill_bps": extension.get("keystrand_fill_bps"),
        "simulated": extension.get("keystrand_simulated"),
        "ways": [msgspec.to_builtins(way) for way in ways],
        "fits": next((way.name for way in ways if way.fits), None),
    }


def _show(task: Task, ways: list[Way], origin: str, site: str, extension: dict[str, str | int | float]) -> None:
    fill = extension.get("keystrand_fill_bps")
    rate = "unknown" if fill is None else f"{fill:,.0f} bit/s, measured" if isinstance(fill, float | int) else str(fill)
    click.echo(f"{amount(task.size_bytes)} to {site} within {span(task.within_s)}")
    click.echo(f"throughput {amount(task.bytes_per_s)}/s ({origin}); pool fills at {rate}")
    click.echo(f"\n{'way':<13} {'keys':>9} {'bits needed':>14} {'bits missing':>14} {'done in':>9}  in time")
    for way in ways:
        done = "never" if way.done_s is None else span(way.done_s)
        numbers = f"{way.keys:>9,} {way.needed_bits:>14,} {way.short_bits:>14,} {done:>9}"
        click.echo(f"{way.name:<13} {numbers}  {'yes' if way.fits else 'no':<3}  {way.why}")
    if extension.get("keystrand_simulated"):
        click.echo("\nthe photons of this link are simulated; rates are those of the simulation")


def bytes_of(text: str) -> int:
    """'500GB', '64 KiB', '1048576'. Raises BadRequest."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    unit = found[2] if found else ""
    known = {name.lower(): scale for name, scale in _SIZES.items()}
    if not found or unit.lower() not in known:
        raise BadRequest(f"{text!r} is not a size", hint="write 500GB, 64KiB or a number of bytes")
    return int(float(found[1]) * known[unit.lower()])


def seconds_until(text: str, now_s: float) -> float:
    """From '90s', '30m', '2h', '3d', or a date and time (local unless it says otherwise). Raises BadRequest."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found:
        return float(found[1]) * _TIMES[found[2]]
    try:
        left_s = datetime.fromisoformat(text).timestamp() - now_s
    except ValueError:
        raise BadRequest(f"{text!r} is no time", hint="write 90s, 30m, 2h, 3d or 2027-01-31T06:00") from None
    if left_s <= 0:
        raise BadRequest(f"{text} has passed")
    return left_s


def span(seconds: float) -> str:
    """93784 -> '1.1 d'; two figures are enough for a plan."""
    for unit, scale in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= scale:
            return f"{seconds / scale:.1f} {unit}"
    return f"{seconds:.1f} s"
