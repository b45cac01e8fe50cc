"""A site as a program: its signals, what is looked at before it starts, what it is given to do beside."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from keystrand.config.schema import SiteConfig
from keystrand.node.backup_job import backups_of
from keystrand.node.rollback import check_site
from keystrand.node.site import SiteNode
from keystrand.node.tunnels import TunnelPrograms
from keystrand.observe.logs import configure_logs


async def run_site(config: SiteConfig, *, restored: bool = False, file: Path | None = None) -> None:
    """Run a site until SIGTERM or SIGINT; SIGHUP reads the policy of `file` again.

    restored: its store was put back from a backup, so a new epoch begins.
    """
    log = config.log
    configure_logs(level=log.level, form=log.format, collector=log.collector, program="keystrand-serve")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    epoch = await check_site(config, restored=restored)
    node = SiteNode(config)
    if restored:
        node.begin_epoch(epoch)
    if (backups := backups_of(config, file, node.clock, node.sink)) is not None:
        node.beside.append(backups)
    if file is not None:
        node.tunnels = TunnelPrograms(config, file, node.clock, node.sink)
        loop.add_signal_handler(signal.SIGHUP, node.read_policy_soon, file)
    await node.run(stop)
