"""keystrand module"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli.options import FILE
from keystrand.cli.terminal import say
from keystrand.core.extra import extra

if TYPE_CHECKING:
    from keystrand.config.module import ModuleConfig


@click.command()
@click.argument("file", type=FILE, default="module.toml")
def command(file: Path) -> None:
    """Run one end of the simulated QKD link in FILE until it is told to stop (SIGTERM, Ctrl-C).

    Both ends really run the protocol against each other; only the photons are simulated.
    """
    from keystrand.config.load import load_module

    config = load_module(file)
    place_cache(config.module.state_dir)
    say(f"link {config.module.link}: {config.module.role} {config.module.module_id} (photons simulated)")
    with extra("sim"):
        _run(config)


def place_cache(state_dir: Path) -> None:
    """Compiled kernels go beside the installed package, or into `state_dir` where that is read-only."""
    if not os.access(Path(__file__).parent, os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(state_dir / "numba"))


def _run(config: ModuleConfig) -> None:
    from keystrand.cli.loop import run_until_stopped
    from keystrand.node.module import run_module
    from keystrand.observe.logs import LogSink, configure_logs

    log = config.log
    configure_logs(level=log.level, form=log.format, collector=log.collector, program="keystrand-module")
    run_until_stopped(run_module(config, sink=LogSink(config.module.module_id)), holds_pools=True)
