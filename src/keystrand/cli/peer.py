"""keystrand peer"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.cards import CARD, FINGERPRINT, compare
from keystrand.cli.options import config_option, json_option, print_json, site_of
from keystrand.cli.terminal import say


@click.group()
def command() -> None:
    """Know other sites, with or without a QKD link to them."""


@command.command("add")
@CARD
@config_option
@FINGERPRINT
def add(card_file: Path, config_file: Path, fingerprint: str | None) -> None:
    """Add the site of CARD as a peer without a QKD link: the far end of a relayed link, say."""
    from keystrand.config.founding import join_peer, read_card

    card = read_card(card_file.read_bytes())
    compare(card, fingerprint)
    join_peer(config_file, card)
    say(f"{card.name} is a peer; restart the site, and let {card.name} add this one")


@command.command("list")
@config_option
@json_option
def show(config_file: Path, as_json: bool) -> None:
    """List the peers of this site, and the links to each."""
    config = site_of(config_file)
    ends = {name: link.peer for name, link in config.links.items()} | dict(config.relayed_links)
    for name, peer in config.peers.items():
        links = [link for link, end in ends.items() if end == name]
        facts = {"peer": name, "kme_id": peer.kme_id, "address": str(peer.address), "links": links}
        print_json(facts) if as_json else click.echo(f"{name}  {peer.address}  {', '.join(links) or 'no QKD link'}")
