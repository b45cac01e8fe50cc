"""keystrand status"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from keystrand.cli.options import config_option, json_option, site_of
from keystrand.core.errors import ConfigError


@click.command()
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Look again every second until interrupted.")
def command(config_file: Path, as_json: bool, watch: bool) -> None:
    """Show links, pools, peers and transfers of a running site."""
    from keystrand.net.plain import fetch

    config = site_of(config_file)
    if config.status is None:
        raise ConfigError(
            "this site has no [status]", path=str(config_file), hint='add [status] listen = "127.0.0.1:8443"'
        )
    _show(fetch(config.status.listen.host, config.status.listen.port), as_json=as_json, clear=False)
    while watch:
        time.sleep(1.0)
        _show(fetch(config.status.listen.host, config.status.listen.port), as_json=as_json, clear=sys.stdout.isatty())


def _show(body: bytes, *, as_json: bool, clear: bool) -> None:
    import msgspec

    from keystrand.console.terminal import render_status

    snapshot: dict[str, Any] = msgspec.json.decode(body)
    text = msgspec.json.encode(snapshot).decode() + "\n" if as_json else render_status(snapshot)
    click.echo(("\x1b[H\x1b[2J" if clear and not as_json else "") + text, nl=False)
