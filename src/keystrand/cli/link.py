"""keystrand link"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli.options import FILE, config_option, json_option, print_json, site_of
from keystrand.cli.terminal import say
from keystrand.core.errors import NotPermitted

if TYPE_CHECKING:
    from keystrand.config.founding import Role, SiteCard


@click.group()
def command() -> None:
    """Join this site to another by a QKD link."""


@command.command("add")
@click.argument("card_file", metavar="CARD", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@config_option
@click.option("--name", "link", required=True, help="Name of the link, the same at both ends.")
@click.option(
    "--role", type=click.Choice(["transmitter", "receiver"]), required=True, help="This end; the transmitter listens."
)
@click.option(
    "--fingerprint", default=None, help="Of CARD, as its owner read it out. Asked for on a terminal if left out."
)
@click.option(
    "--start-key", type=FILE, default=None, help="Secret file from the other end. Left out: a fresh one is made."
)
@click.option(
    "--length-km", default=25.0, show_default=True, help="Length of the simulated fibre, the same at both ends."
)
def add(
    card_file: Path,
    config_file: Path,
    link: str,
    role: Role,
    fingerprint: str | None,
    start_key: Path | None,
    length_km: float,
) -> None:
    """Add the peer and the link of CARD to site.toml; prints the path of the module's file."""
    from keystrand.config.checks import require_private
    from keystrand.config.founding import join_link, read_card

    card = read_card(card_file.read_bytes())
    _compare(card, fingerprint)
    if start_key is not None:
        require_private(start_key)
    secret = start_key.read_bytes() if start_key else None
    module_file = join_link(config_file, card, link=link, role=role, start_key=secret, length_km=length_km)
    if start_key is None:
        say(
            f"carry {module_file.parent / 'start.key'} to {card.name} by a trusted way: whoever reads it can pose as this link"
        )
    say(f"next: keystrand policy allow SAE SAE --config {config_file}, then keystrand module {module_file}")
    click.echo(module_file)


def _compare(card: SiteCard, told: str | None) -> None:
    """The fingerprint that the owner read out must be that of the card. Raises NotPermitted."""
    if told is None:
        if not sys.stdin.isatty():
            raise NotPermitted(
                "this card is not confirmed", hint="state --fingerprint, as its owner read it out to you"
            )
        say(f"card of site {card.name}; fingerprint: {card.fingerprint}")
        click.confirm("Does its owner read out the same?", abort=True, err=True)
    elif "".join(told.split()).lower() != "".join(card.fingerprint.split()):
        raise NotPermitted(
            "the fingerprint does not fit this card", hint="it may have been swapped on its way; get it again"
        )


@command.command("list")
@config_option
@json_option
def show(config_file: Path, as_json: bool) -> None:
    """List the links of this site."""
    config = site_of(config_file)
    for name, link in config.links.items():
        facts = {"link": name, "peer": link.peer, "module": link.module, "address": config.peers[link.peer].address}
        print_json(facts) if as_json else click.echo("  ".join(facts.values()))
