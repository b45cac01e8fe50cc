"""keystrand demo"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from keystrand.cli import exits
from keystrand.cli.options import json_option, print_json
from keystrand.cli.screen import Screen, is_screen
from keystrand.cli.terminal import say


@click.command()
@click.option("--once", is_flag=True, help="Stop everything at the end; without it the sites go on running.")
@click.option("--stop", "stop_only", is_flag=True, help="Stop the sites that an earlier demo left running.")
@click.option("--dir", "folder", default=Path("demo"), show_default=True, type=click.Path(path_type=Path))
@click.option("--size-mib", default=64, show_default=True, help="Size of the file that is sent.")
@click.option("--length-km", default=25.0, show_default=True, help="Length of the simulated fibre.")
@json_option
def command(once: bool, stop_only: bool, folder: Path, size_mib: int, length_km: float, as_json: bool) -> int:
    """Run two sites, a QKD link and a file transfer on this machine, and prove what happened.

    The photons are simulated; everything behind the detector, the key managers, TLS and the transfer are real.
    """
    from keystrand.lab.demo import run_demo
    from keystrand.lab.processes import stop_left_over

    if stop_only:
        say(f"stopped {stop_left_over(folder.absolute())} programs")
        return exits.OK
    run = partial(run_demo, folder, once=once, size_bytes=size_mib * 1_048_576, length_km=length_km)
    proven, facts = _run_live(run) if is_screen(sys.stderr) else run(say=say)
    if as_json:
        print_json(facts)
    return exits.OK if proven else exits.REFUSED


def _run_live(run: Callable[..., tuple[bool, dict[str, Any]]]) -> tuple[bool, dict[str, Any]]:
    """With a picture at the foot of the terminal and, above it, what was said."""
    from keystrand.console.live import render_scene

    with Screen(sys.stderr) as screen:
        return run(say=screen.say, show=lambda scene: screen.draw(partial(render_scene, scene)))
