"""keystrand link"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import link_drill, link_run, link_simulate
from keystrand.cli.cards import CARD, FINGERPRINT, compare
from keystrand.cli.options import FILE, config_option, json_option, print_json, site_of
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.config.founding import Role


@click.group()
def command() -> None:
    """Join this site to another by a QKD link."""


command.add_command(link_run.run)
command.add_command(link_simulate.simulate)
command.add_command(link_simulate.profiles)


@command.command("add")
@CARD
@config_option
@click.option("--name", "link", required=True, help="Name of the link, the same at both ends.")
@click.option(
    "--role", type=click.Choice(["transmitter", "receiver"]), required=True, help="This end; the transmitter listens."
)
@FINGERPRINT
@click.option(
    "--start-key", type=FILE, default=None, help="Secret file from the other end. Left out: a fresh one is made."
)
@click.option(
    "--length-km", default=25.0, show_default=True, help="Length of the simulated fibre, the same at both ends."
)
@click.option("--classical", default=None, help="host:port of the classical channel.  [default: as in the cards]")
@click.option(
    "--quantum-port", default=None, type=click.IntRange(1, 65_535), help="Of the simulated light, on loopback."
)
def add(
    card_file: Path,
    config_file: Path,
    link: str,
    role: Role,
    fingerprint: str | None,
    start_key: Path | None,
    length_km: float,
    classical: str | None,
    quantum_port: int | None,
) -> None:
    """Add the peer and the link of CARD to site.toml; prints the path of the module's file.

    Every link of a site needs channels of its own: from the second one on, state --classical and --quantum-port at both ends.
    """
    from keystrand.config.faults import require_private
    from keystrand.config.founding import join_link, read_card

    card = read_card(card_file.read_bytes())
    compare(card, fingerprint)
    if start_key is not None:
        require_private(start_key)
    secret = start_key.read_bytes() if start_key else None
    module_file = join_link(
        config_file,
        card,
        link=link,
        role=role,
        start_key=secret,
        length_km=length_km,
        classical=classical,
        quantum_port=quantum_port,
    )
    if start_key is None:
        say(
            f"carry {module_file.parent / 'start.key'} to {card.name} by a trusted way: whoever reads it can pose as this link"
        )
    say(f"next: keystrand policy allow SAE SAE --config {config_file}, then keystrand module {module_file}")
    click.echo(module_file)


command.add_command(link_drill.attack, "attack")
command.add_command(link_drill.drill, "drill")


@command.command("devices")
@config_option
@json_option
def devices(config_file: Path, as_json: bool) -> int:
    """Ask the devices that feed this site's links what they say of themselves; exit status 1 where it is not enough.

    No key is drawn. Devices that say nothing of themselves (streams, files, pushes) are only looked for.
    """
    import asyncio

    from keystrand.cli import exits
    from keystrand.cli.terminal import complain
    from keystrand.core.errors import KeystrandError
    from keystrand.node.makers import probe

    config, faults = site_of(config_file), 0
    for name, entry in config.sources.items():
        facts: dict[str, object] = {"link": name, "source": entry.label, "stated_bps": entry.device.rate_bps}
        try:
            told, findings = asyncio.run(probe(entry, config.limits))
        except KeystrandError as error:
            told, findings = {}, [str(error)]
        faults += len(findings)
        facts |= told
        print_json(facts) if as_json else click.echo("  ".join(f"{key}={value}" for key, value in facts.items()))
        for finding in findings:
            complain(f"{name}: {finding}", None)
    return exits.REFUSED if faults else exits.OK


@command.command("list")
@config_option
@json_option
def show(config_file: Path, as_json: bool) -> None:
    """List the links of this site."""
    config = site_of(config_file)
    for name, link in config.links.items():
        feeds = link.module or f"source {config.sources[name].kind}"
        facts = {"link": name, "peer": link.peer, "module": feeds, "address": config.peers[link.peer].address}
        print_json(facts) if as_json else click.echo("  ".join(facts.values()))
