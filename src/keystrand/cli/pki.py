"""keystrand pki"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli.options import READABLE, config_option, site_of
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.crypto.pki import Kind


@click.group()
def command() -> None:
    """Issue and revoke certificates, by the site's own certificate authority."""


@command.command("issue")
@click.argument("kind", type=click.Choice(["sae", "kme", "module", "admin"]))
@click.argument("name")
@config_option
@click.option(
    "--host", "hosts", multiple=True, help="DNS name or IP address of the holder; may be repeated. None: as before."
)
@click.option("--days", default=397.0, show_default=True, help="How long it is valid.")
@click.option("--force", is_flag=True, help="Replace the certificate and key that are there.")
def issue(kind: Kind, name: str, config_file: Path, hosts: tuple[str, ...], days: float, force: bool) -> None:
    """Issue a certificate; prints the paths of certificate and private key."""
    from keystrand.crypto import pki

    authority = site_of(config_file).tls.trust.parent
    for path in pki.issue(authority, kind=kind, name=name, hosts=hosts, days=days, force=force):
        click.echo(path)


@command.command("revoke")
@click.argument("certificate", type=READABLE)
@config_option
def revoke(certificate: Path, config_file: Path) -> None:
    """Revoke a certificate; prints the path of the revocation list.

    New connections are refused at once, open ones end within seconds.
    """
    from keystrand.crypto import pki

    config = site_of(config_file)
    click.echo(pki.revoke(config.tls.trust.parent, certificate))
    if config.tls.revoked is None:
        say('caution: [tls] names no revocation list, so nobody looks at it; add revoked = "pki/ca.crl"')


@command.command("renew-crl")
@config_option
def renew(config_file: Path) -> None:
    """Sign the revocation list again before it expires; prints its path."""
    from keystrand.crypto import pki

    click.echo(pki.renew_crl(site_of(config_file).tls.trust.parent))
