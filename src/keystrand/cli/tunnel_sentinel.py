"""keystrand tunnel sentinel"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from functools import partial
from pathlib import Path

import click

from keystrand.cli.options import config_option, site_of
from keystrand.cli.tunnel_run import reports_of


@click.command("sentinel", hidden=True)
@click.argument("names", nargs=-1, required=True)
@config_option
def command(names: tuple[str, ...], config_file: Path) -> None:
    """Wait until standard input ends; then stop the traffic of tunnels NAMES when their keys are too old.

    `keystrand tunnel run` starts it.
    """
    from keystrand.config.tunnels import place_of
    from keystrand.observe.logs import LogSink, configure_logs
    from keystrand.transport.tunnel.sentinel import Post, Sentinel

    config = site_of(config_file)
    log = config.log
    configure_logs(level=log.level, form=log.format, collector=log.collector, program="keystrand-sentinel")
    sys.stdin.buffer.read()  # until whoever steers is gone
    with contextlib.ExitStack() as held:
        reports = reports_of(config, names, held)
        posts = []
        for name in names:
            tunnel, place = config.tunnel[name], place_of(config, name)
            opening = partial(tunnel.found_kind().open, place, tunnel.settings)
            post = Post(
                place=place, terms=tunnel.terms(), kind=tunnel.kind, reports=reports[tunnel.sae], opening=opening
            )
            posts.append(post)
        asyncio.run(Sentinel(posts, LogSink(config.site.name)).stand())
