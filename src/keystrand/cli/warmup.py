"""keystrand warmup"""

from __future__ import annotations

import time

import click

from keystrand.cli.terminal import say
from keystrand.core.errors import Unavailable


@click.command()
def command() -> None:
    """Compile the number crunching of the simulated link ahead of its first use, into the cache on disk."""
    began_s = time.monotonic()
    try:
        from keystrand.qkd.distill.warm import warm_up

        warm_up()
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed", hint='pip install "keystrand[sim]"') from None
    say(f"compiled in {time.monotonic() - began_s:.1f} s")
