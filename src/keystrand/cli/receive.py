"""keystrand receive"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli.options import config_option, gateway_of, json_option, print_json, site_of
from keystrand.cli.terminal import complain, say

if TYPE_CHECKING:
    from keystrand.transport.gateway.ports import TransferReport
    from keystrand.transport.gateway.receiver import Receiver


@click.command()
@config_option
@click.option("--once", is_flag=True, help="Stop after one whole transfer.")
@click.option(
    "--output", type=click.Choice(["-"]), default=None, help="Write one transfer to standard output; implies --once."
)
@click.option("--overwrite", is_flag=True, help="Let a new file replace one of the same name.")
@json_option
def command(config_file: Path, once: bool, output: str | None, overwrite: bool, as_json: bool) -> None:
    """Receive files and directories from the gateways of other sites into the inbox. Prints SHA-256, or transcript, and
    path of each."""
    from keystrand.cli.gateway import gateway_keys
    from keystrand.transport.gateway.inbox import Inbox
    from keystrand.transport.gateway.outflow import StreamOut
    from keystrand.transport.gateway.ports import GatewayLimits
    from keystrand.transport.gateway.receiver import Receiver

    config = site_of(config_file)
    gateway = gateway_of(config, config_file)

    def done(report: TransferReport) -> None:
        _tell(report, as_json=as_json, quiet=output is not None)  # standard output belongs to the content

    with gateway_keys(config, gateway.sae) as (keys, watch):
        receiver = Receiver(
            (gateway.listen.host, gateway.listen.port),
            keys=keys,
            me=gateway.sae,
            senders={peer.sae for peer in gateway.peers.values()},
            destination=StreamOut(sys.stdout.buffer) if output else Inbox(gateway.inbox, overwrite=overwrite),
            pads={peer.sae: peer.one_time_pad for peer in gateway.peers.values()},
            limits=GatewayLimits(pad_bytes_max=gateway.pad_bytes_max),
            report=watch,
            done=done,
            failed=lambda fault: complain(str(fault), getattr(fault, "hint", None)),
        )
        say(f"listening on {gateway.listen.host}:{receiver.port} as {gateway.sae}")
        _serve(receiver, done if once or output else None)


def _serve(receiver: Receiver, once: Callable[[TransferReport], None] | None) -> None:
    """One transfer, told to `once`; or all of them until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: receiver.stop())
    try:
        if once is None:
            receiver.serve_forever()
        else:
            once(receiver.serve_once())
    finally:
        receiver.stop()


def _tell(report: TransferReport, *, as_json: bool, quiet: bool) -> None:
    from keystrand.cli.gateway import facts_of, words_of

    say(words_of(report, "received"))
    if not quiet:
        print_json(facts_of(report)) if as_json else click.echo(f"{report.fingerprint}  {report.path}")
