"""keystrand send"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from keystrand.cli.options import config_option, gateway_of, json_option, print_json, site_of
from keystrand.cli.terminal import say
from keystrand.core.errors import BadRequest


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
    as_json: bool,
) -> None:
    """Send FILE or DIR to another site's gateway, under quantum-safe keys that rotate.

    Both ends compare a transcript of all records, and of what is resumed the SHA-256. Prints the SHA-256 where there is
    one, else the transcript, once all has arrived. A DIR keeps names, permissions and times, and appears over there when
    it is whole.
    """
    from keystrand.cli.transfer import facts_of, gateway_keys, words_of
    from keystrand.transport.gateway.sender import send

    config = site_of(config_file)
    gateway = gateway_of(config, config_file)
    if site not in gateway.peers:
        raise BadRequest(f"no gateway of {site} is known", hint=f"known: {', '.join(gateway.peers) or 'none'}")
    peer = gateway.peers[site]
    if str(source) == "-" and name is None:
        raise click.UsageError("state --name for standard input")
    with gateway_keys(config, gateway.sae) as (keys, watch):
        report = send(
            sys.stdin.buffer if str(source) == "-" else source,
            keys=keys,
            connect=(peer.address.host, peer.address.port),
            from_sae=gateway.sae,
            to_sae=peer.sae,
            name=name,
            streams=streams,
            symlinks=symlinks,
            skipped=lambda path: say(f"left out: {path}"),
            rotate_bytes=gateway.rotate_bytes,
            rotate_s=gateway.rotate_s,
            transfer_id=transfer_id,
            content_hash=content_hash,
            progress=watch,
        )
    say(words_of(report, "sent"))
    print_json(facts_of(report)) if as_json else click.echo(f"{report.fingerprint}  {report.name}")
