"""keystrand proxy"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.options import FILE
from keystrand.cli.terminal import say


@click.command()
@click.argument("socket", type=click.Path(path_type=Path))
@click.option(
    "--role",
    type=click.Choice(["initiator", "responder"]),
    required=True,
    help="The initiator's end is where applications connect.",
)
@click.option("--listen", required=True, help="host:port; plain for the initiator, TLS for the responder.")
@click.option("--connect", required=True, help="host:port of the responder's proxy, or of the service.")
@click.option("--peer-sae", required=True, help="SAE ID of the other end.")
@click.option(
    "--drain-s",
    default=300.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Close connections under a replaced key after this long.",
)
@click.option(
    "--connections-max", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="Refuse more."
)
@click.option("--tunnel", default="", help="Name of the tunnel, for the log.")
@click.option("--log-level", default="info", show_default=True, help="As level in [log].")
@click.option("--log-format", default="auto", show_default=True, help="As format in [log].")
@click.option("--log-collector", type=FILE, default=None, help="As collector in [log].")
def command(
    socket: Path,
    role: str,
    listen: str,
    connect: str,
    peer_sae: str,
    drain_s: float,
    connections_max: int,
    tunnel: str,
    log_level: str,
    log_format: str,
    log_collector: Path | None,
) -> None:
    """Carry TCP connections through TLS 1.3 under keys that a tunnel of kind `tls` brings over SOCKET.

    `keystrand tunnel run` starts it where none runs, and it goes on without: run it yourself to give it rights of its own.
    """
    from typing import cast

    from keystrand.cli.loop import run_until_stopped
    from keystrand.config.values import Address
    from keystrand.core.errors import BadRequest
    from keystrand.observe.logs import LogSink, configure_logs
    from keystrand.transport.tls.control import ControlServer
    from keystrand.transport.tls.proxy import Proxy, Way
    from keystrand.transport.tunnel.contract import Role

    try:
        here, there = Address(listen), Address(connect)
        configure_logs(level=log_level, form=log_format, collector=log_collector, program="keystrand-proxy")
    except ValueError as error:
        raise BadRequest(str(error)) from None
    way = Way(
        role=cast(Role, role),
        listen=(here.host, here.port),
        connect=(there.host, there.port),
        peer_sae=peer_sae,
        drain_s=drain_s,
        connections_max=connections_max,
    )

    file = socket.absolute()

    async def serve() -> None:
        await ControlServer(Proxy(way), file, LogSink(), tunnel).run()

    say(f"proxy: {role}, {listen} to {connect}, keys by {socket}")
    run_until_stopped(serve())
