"""keystrand serve"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.options import FILE, site_of
from keystrand.cli.terminal import say


@click.command()
@click.argument("file", type=FILE, default="site.toml", envvar="KEYSTRAND_CONFIG")
@click.option(
    "--restored",
    is_flag=True,
    help="The store was put back from a backup: begin a new epoch, and destroy every key and bit that it calls unused.",
)
def command(file: Path, restored: bool) -> None:
    """Run the key manager of the site in FILE until it is told to stop (SIGTERM, Ctrl-C).

    SIGHUP reads SAEs, tenants, policy and grants of administrators in FILE again; anything else needs a restart.
    """
    from keystrand.cli.loop import run_until_stopped
    from keystrand.node.run import run_site

    config = site_of(file)
    if config.status is not None:
        say(f"site {config.site.name}: status page on http://{config.status.listen}/")
    run_until_stopped(run_site(config, restored=restored, file=file), holds_pools=True)
