"""keystrand site"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli.options import FILE, FOLDER, config_option, require_free, site_of
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.crypto.pki import Algorithm


@click.group()
def command() -> None:
    """Found a site, and export what other sites must know of it.

    \b
    Two people, two machines, two sites:
      1. each:   keystrand site init NAME --dir DIR --host HOST
      2. each:   keystrand site export > NAME.card       (public; send it by any way)
      3. each reads out the fingerprint of the own card to the other, by voice
      4. one:    keystrand link add OTHER.card --name LINK --role transmitter
      5. carries the start key to the other by a trusted way (it is a secret: by hand, sealed)
      6. other:  keystrand link add ONE.card --name LINK --role receiver --start-key FILE
      7. each:   keystrand policy allow GATEWAY-ONE GATEWAY-OTHER, and the other way round
      8. each:   keystrand serve, and keystrand module links/LINK/module.toml
    """


@command.command("init")
@click.argument("name")
@click.option("--dir", "folder", type=FOLDER, required=True, help="Folder to make; mode 700.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Name or address by which other sites reach it.")
@click.option(
    "--listen-host", default=None, help="Address to listen on.  [default: loopback for a loopback --host, else all]"
)
@click.option("--base-port", default=8440, show_default=True, help="First of eight consecutive ports.")
@click.option(
    "--officer",
    "officers",
    multiple=True,
    help="Person who may administer keys and policy; name two, for dual control.",
)
@click.option(
    "--certificates",
    type=click.Choice(["ecdsa-p256", "ml-dsa-65"]),
    default="ecdsa-p256",
    show_default=True,
    help="How this site's certificates sign; each site of a network chooses for itself.",
)
def init(
    name: str,
    folder: Path,
    host: str,
    listen_host: str | None,
    base_port: int,
    officers: tuple[str, ...],
    certificates: Algorithm,
) -> None:
    """Make CA, certificates, passphrase, audit key and site.toml; prints the path of the file.

    Without an officer, nobody administers the site and no listener is there for it; `keystrand admin invite` adds people later.
    """
    from keystrand.config.founding import found_site
    from keystrand.config.inviting import invite_admin
    from keystrand.govern.roles import Role

    listen = listen_host or (host if host in ("127.0.0.1", "localhost", "::1") else "0.0.0.0")  # noqa: S104  a site serves others
    file = found_site(folder, name, host=host, listen_host=listen, base_port=base_port, certificates=certificates)
    for officer in officers:
        invite_admin(file, officer, Role.SECURITY_OFFICER)
    say(f"site {name} stands in {folder}; keep a copy of {folder / 'passphrase'} in a safe place")
    if len(officers) < 2:
        say(f"for people: keystrand admin invite NAME --role security-officer --config {file}, twice for dual control")
    say(f"next: keystrand site export --config {file} > {name}.card")
    click.echo(file)


@command.command("export")
@config_option
@click.option(
    "--host", default=None, help="Name or address by which others reach this site.  [default: as in its certificate]"
)
def export(config_file: Path, host: str | None) -> None:
    """Print the site's card: public facts as JSON. The fingerprint goes to stderr, for reading out."""
    from keystrand.config.founding import card_of

    card = card_of(config_file, host)
    click.echo(card.text(), nl=False)
    say(f"fingerprint of this card: {card.fingerprint}")


@command.command("move")
@click.argument("target", metavar="FILE", type=FILE)
@config_option
@click.option(
    "--passphrase-file", type=FILE, default=None, help="Seals the backup.  [default: the file in root_key_file]"
)
def move(target: Path, config_file: Path, passphrase_file: Path | None) -> None:
    """Take a last backup of the stopped site to FILE, and never serve it from this host again.

    At the new host, with the same site.toml, certificates, audit key and passphrase: keystrand restore FILE.
    """
    from keystrand.node.backup import move as move_site

    require_free(target, hint="name a new file")
    manifest = move_site(site_of(config_file), config_file, target, passphrase_file)
    say(f"{manifest.site} does not start here any more; to undo that, restore {target} here")
    click.echo(target)
