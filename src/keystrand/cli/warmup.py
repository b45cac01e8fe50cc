"""keystrand warmup"""

from __future__ import annotations

import time

import click

from keystrand.cli.terminal import say
from keystrand.core.extra import extra


@click.command()
def command() -> None:
    """Compile the number crunching of the simulated link ahead of its first use, into the cache on disk."""
    began_s = time.monotonic()
    with extra("sim"):
        from keystrand.qkd.distill.warm import warm_up

        warm_up()
    say(f"compiled in {time.monotonic() - began_s:.1f} s")
