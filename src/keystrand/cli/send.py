"""keystrand send"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

import click

from keystrand.cli.options import config_option, gateway_of, gateway_peer, json_option, print_json, site_of
from keystrand.cli.terminal import say
from keystrand.core.errors import NotPermitted

if TYPE_CHECKING:
    from keystrand.config.schema import GatewayPeer
    from keystrand.transport.gateway.ports import KeySource, Progress


@click.command()
@click.argument("source", metavar="FILE|DIR", type=click.Path(path_type=Path, allow_dash=True))
@config_option
@click.option("--to", "site", required=True, help="Site to send to.")
@click.option("--name", default=None, help="Name over there; needed for - (standard input).")
@click.option(
    "--streams",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Connections side by side, each with keys of its own.",
)
@click.option(
    "--symlinks",
    type=click.Choice(["keep", "skip"]),
    default="keep",
    show_default=True,
    help="Of a DIR: keep symbolic links, which must not lead out of it, or leave all of them out.",
)
@click.option("--resume", "transfer_id", default=None, help="Go on with this transfer, after a failed try.")
@click.option("--sha256", "content_hash", is_flag=True, help="Have both ends hash the content too, and compare.")
@click.option(
    "--one-time-pad",
    "pad",
    is_flag=True,
    help="Spend a key bit for each bit, reserved beforehand; for small FILEs where the site's file allows it.",
)
@json_option
def command(
    source: Path,
    config_file: Path,
    site: str,
    name: str | None,
    streams: int,
    symlinks: Literal["keep", "skip"],
    transfer_id: str | None,
    content_hash: bool,
    pad: bool,
    as_json: bool,
) -> None:
    """Send FILE or DIR to another site's gateway, under quantum-safe keys that rotate.

    Both ends compare a transcript of all records, and of what is resumed the SHA-256. Prints the SHA-256 where there is
    one, else the transcript, once all has arrived. A DIR keeps names, permissions and times, and appears over there when
    it is whole.
    """
    from keystrand.cli.gateway import facts_of, gateway_keys, words_of
    from keystrand.cli.throughput import Throughputs
    from keystrand.transport.gateway.pad_sender import send_under_pad
    from keystrand.transport.gateway.ports import GatewayLimits
    from keystrand.transport.gateway.sender import send

    config = site_of(config_file)
    gateway = gateway_of(config, config_file)
    peer = gateway_peer(gateway, site)
    if str(source) == "-" and name is None:
        raise click.UsageError("state --name for standard input")
    _require_way(peer, site, pad=pad, plain_only=streams > 1 or content_hash or source.is_dir())
    content = sys.stdin.buffer if str(source) == "-" else source
    transfer_id = transfer_id or str(uuid.uuid4())
    with gateway_keys(config, gateway.sae) as (keys, watch):
        where = Common(
            keys=keys,
            connect=(peer.address.host, peer.address.port),
            from_sae=gateway.sae,
            to_sae=peer.sae,
            name=name,
            transfer_id=transfer_id,
            progress=watch,
        )
        if pad:
            report = send_under_pad(content, limits=GatewayLimits(pad_bytes_max=gateway.pad_bytes_max), **where)
        else:
            say(f"transfer {transfer_id}: after a break, go on with --resume {transfer_id}")
            report = send(
                content,
                streams=streams,
                symlinks=symlinks,
                skipped=lambda path: say(f"left out: {path}"),
                rotate_bytes=gateway.rotate_bytes,
                rotate_s=gateway.rotate_s,
                content_hash=content_hash,
                **where,
            )
    if not report.resumed:
        rate = report.throughput_bytes_per_s
        Throughputs(config.site.state_dir).add(site, size_bytes=report.bytes, bytes_per_s=rate)
    say(words_of(report, "sent"))
    print_json(facts_of(report)) if as_json else click.echo(f"{report.fingerprint}  {report.name}")


class Common(TypedDict):
    """What both ways of sending take."""

    keys: KeySource
    connect: tuple[str, int]
    from_sae: str
    to_sae: str
    name: str | None
    transfer_id: str
    progress: Callable[[Progress], None]


def _require_way(peer: GatewayPeer, site: str, *, pad: bool, plain_only: bool) -> None:
    """Raises NotPermitted where the site's file says otherwise, UsageError for options that a pad has no use for."""
    where = f"[gateway.peers.{site}] one_time_pad"
    if pad and peer.one_time_pad == "off":
        raise NotPermitted("one-time pads are off for this site", hint=f'set {where} = "allowed" at both sites')
    if not pad and peer.one_time_pad == "required":
        raise NotPermitted("this site takes one-time pads only", hint=f"add --one-time-pad, or change {where}")
    if pad and plain_only:
        raise click.UsageError("--one-time-pad takes one FILE, over one connection, without --sha256")
