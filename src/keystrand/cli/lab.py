"""keystrand lab"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from keystrand.cli import exits
from keystrand.cli.options import json_option, print_json
from keystrand.cli.terminal import say


@click.group()
def command() -> None:
    """Try a kind of tunnel between two sites on this machine."""


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
    "--dir", "folder", default=None, type=click.Path(path_type=Path), help="Keep files and logs in this folder."
)
@json_option
def tunnel(kind: str, rotate_s: float, seconds: float, packets_per_s: int, folder: Path | None, as_json: bool) -> int:
    """Run KIND between two namespaces under keys of two real sites; count what is lost when keys change and when they end.

    Needs root, for the namespaces. The photons of the QKD link are simulated.
    """
    from keystrand.lab.tunnel import TunnelLab

    with tempfile.TemporaryDirectory(prefix="keystrand-lab-") as temporary:
        place = (folder or Path(temporary)).absolute()
        lab = TunnelLab(kind, place, say, rotate_s=rotate_s, seconds=seconds, packets_per_s=packets_per_s)
        proven = lab.run()
    if as_json:
        print_json(lab.facts)
    return exits.OK if proven else exits.REFUSED
