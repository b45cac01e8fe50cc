"""keystrand lab"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE, READABLE, audit_signer, config_option, json_option, print_json, site_of
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.transport.tunnel.runner import KeySource


@click.group()
def command() -> None:
    """Try tunnels and networks of sites on this machine."""


@command.command("tunnel")
@click.argument("kind")
@click.option(
    "--rotate-s", default=2.0, show_default=True, type=click.FloatRange(0.5, 3600), help="A fresh key this often."
)
@click.option(
    "--seconds",
    default=30.0,
    show_default=True,
    type=click.FloatRange(1, 86_400),
    help="How long to rotate under load.",
)
@click.option(
    "--packets-per-s", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="UDP packets a second."
)
@click.option(
    "--on-exhaustion",
    default="fail-closed",
    show_default=True,
    type=click.Choice(["fail-closed", "fallback:qkd", "fallback:pqc"]),
    help="What happens when the quantum link is pulled and its keys are used up.",
)
@click.option(
    "--dir", "folder", default=None, type=click.Path(path_type=Path), help="Keep files and logs in this folder."
)
@click.option(
    "--report",
    "report_file",
    type=FILE,
    default=None,
    help="Write what happened without the quantum link here, signed by the site of --config.",
)
@config_option
@json_option
def tunnel(
    kind: str,
    rotate_s: float,
    seconds: float,
    packets_per_s: int,
    on_exhaustion: str,
    folder: Path | None,
    report_file: Path | None,
    config_file: Path,
    as_json: bool,
) -> int:
    """Run KIND between two namespaces under keys of two real sites; count what is lost when keys change and when they end.

    Needs root, for the namespaces. The photons of the QKD link are simulated.
    """
    from keystrand.lab.behaviour import report_of, signed
    from keystrand.lab.tunnel import TunnelLab

    signer = audit_signer(site_of(config_file)) if report_file is not None else None  # refused now, not after minutes
    with tempfile.TemporaryDirectory(prefix="keystrand-lab-") as temporary:
        place = (folder or Path(temporary)).absolute()
        lab = TunnelLab(kind, place, say, _drawing, rotate_s, seconds, packets_per_s, on_exhaustion)
        proven = lab.run()
    if report_file is not None and signer is not None:
        report_file.write_text(signed(report_of(lab.facts, time.time()), signer), "utf-8")
        say(f"what happened without the quantum link: {report_file}, signed by {signer.name}")
    if as_json:
        print_json(lab.facts)
    return exits.OK if proven else exits.REFUSED


@contextlib.contextmanager
def _drawing(site_file: Path) -> Iterator[KeySource]:
    """As an application of that site would draw them."""
    from keystrand.cli.sae_client import client_of
    from keystrand.transport.keys import Etsi014Keys

    config = site_of(site_file)
    assert config.gateway is not None
    with client_of(config, config.gateway.sae, timeout_s=10.0) as client:
        yield Etsi014Keys(client)


@command.command("up")
@click.argument("network_file", metavar="NETWORK", type=READABLE)
@click.option("--dir", "folder", default=Path("network"), show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--rate-bps", default=200_000.0, show_default=True, type=click.FloatRange(1000), help="Key rate of a hop."
)
@click.option("--once", is_flag=True, help="Draw keys over every relayed link, compare both ends, and stop.")
@click.option("--compromise", "relay", metavar="SITE", default=None, help="Drill: SITE is broken into; see how long.")
@json_option
def up(network_file: Path, folder: Path, rate_bps: float, once: bool, relay: str | None, as_json: bool) -> int:
    """Run every site of NETWORK on this machine, with keys over relays between sites that are no neighbours.

    The keys of the hops come from a feeder that stands for QKD modules; all behind the device interface is real. With
    --compromise both security officers of every site take back what SITE saw, and the time until keys come over another path is
    told.
    """
    from keystrand.cli.admin_client import AdminClient
    from keystrand.lab.break_in import break_in
    from keystrand.lab.network import NetworkLab, run_network

    def drill(lab: NetworkLab) -> bool:
        return break_in(lab, relay or "", lambda file, name: AdminClient(file, name, None))

    place = folder.absolute()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its sites end with it
    proven, facts = run_network(
        network_file, place, say, rate_bps=rate_bps, once=once, drill=drill if relay is not None else None
    )
    if as_json:
        print_json(facts)
    return exits.OK if proven else exits.REFUSED


@command.command("cut")
@click.argument("one")
@click.argument("other")
@click.option("--dir", "folder", default=Path("network"), show_default=True, type=click.Path(path_type=Path))
@click.option("--mend", is_flag=True, help="The fibre is whole again.")
def cut(one: str, other: str, folder: Path, mend: bool) -> None:
    """Cut the fibre between two neighbours of the network that `keystrand lab up` runs, until --mend."""
    from keystrand.lab.network import cut_hop

    name = cut_hop(folder, one, other, mend=mend)
    say(f"{name} is {'whole again' if mend else 'cut'}: `keystrand status` of its two sites tells within seconds")


@command.command("source")
@click.argument("one", type=READABLE)
@click.argument("other", type=READABLE)
@click.option("--keys", default=16, show_default=True, type=click.IntRange(1, 10_000), help="How many to compare.")
@click.option(
    "--dir", "folder", default=None, type=click.Path(path_type=Path), help="Keep files and logs in this folder."
)
@json_option
def source(one: Path, other: Path, keys: int, folder: Path | None, as_json: bool) -> int:
    """Feed two sites on this machine from your devices; draw keys at one, pick them up at the other, compare.

    ONE and OTHER hold what would stand in the two sites' files: a table [sources.trial] with its tables, paths in full. See
    docs/guides/sources.md.
    """
    from keystrand.lab.source import run_trial

    with tempfile.TemporaryDirectory(prefix="keystrand-lab-") as temporary:
        place = (folder or Path(temporary) / "sites").absolute()
        proven, facts = run_trial(place, (one.read_text("utf-8"), other.read_text("utf-8")), say, number=keys)
    if as_json:
        print_json(facts)
    return exits.OK if proven else exits.REFUSED


@command.group("exercise")
def exercise() -> None:
    """See one thing that a link does, step by step, on data that fits a screen."""


@exercise.command("distil")
@click.option("--clicks", default=80, show_default=True, type=click.IntRange(16, 100_000), help="Pulses that clicked.")
@click.option("--qber", default=0.05, show_default=True, type=click.FloatRange(0, 0.2), help="Error rate.")
@click.option("--seed", default=1, show_default=True, help="Another seed, other bits.")
@json_option
def distil(clicks: int, qber: float, seed: int, as_json: bool) -> None:
    """From clicks to secret bits: what is said, what is kept, what it costs."""
    from keystrand.lab import exercise as steps

    width = 100
    for number, step in enumerate(steps.distil(clicks=clicks, qber=qber, seed=seed), 1):
        if as_json:
            print_json({"stage": step.stage, **step.facts})
            continue
        click.echo("\n".join(textwrap.wrap(f"{number}. {step.stage}: {step.why}", width, subsequent_indent="   ")))
        for line in step.shown:
            click.echo("   " + (line if len(line) <= width - 3 else line[: width - 6] + "..."))
        click.echo("")
