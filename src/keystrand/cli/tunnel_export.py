"""keystrand tunnel export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli.options import config_option, site_of
from keystrand.cli.terminal import say
from keystrand.config.values import Address
from keystrand.core.errors import ConfigError

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig
    from keystrand.config.tunnels import Tunnel
    from keystrand.transport.export.sheet import Make, Sheet

NAMES = ("cisco-skip", "fortios", "junos", "mikrotik", "panos")


@click.command("export")
@click.argument("name")
@click.option("--for", "make", required=True, type=click.Choice(NAMES), help="Whose device it is.")
@click.option(
    "--kme", default=None, metavar="HOST:PORT", help="Where the device reaches this site.  [default: as listened on]"
)
@config_option
def command(name: str, make: str, kme: str | None, config_file: Path) -> None:
    """Print settings for a device that takes the place of this end of tunnel NAME and draws its keys itself.

    The device is an SAE like the connector. No secret is printed. None of these settings has been tried on a device.
    """
    from keystrand.cli.tunnel import tunnel_of
    from keystrand.transport.export.makes import MAKES
    from keystrand.transport.export.sheet import render

    config = site_of(config_file)
    tunnel = tunnel_of(config, name, config_file)
    click.echo(render(MAKES[make], sheet_of(config, name, tunnel, MAKES[make], _address(kme))), nl=False)
    if MAKES[make].interface == "014" and config.tls.require_pqc_group:
        say(
            "this site lets in only who has X25519MLKEM768 in TLS; for a device without: require_pqc_group = false in [tls]"
        )
    say("not tested on the device; [tunnel] itself is for a connector: remove it where the device takes over")


def _address(text: str | None) -> Address | None:
    try:
        return Address(text) if text is not None else None
    except ValueError as error:
        raise ConfigError(f"--kme: {error}") from None


def sheet_of(config: SiteConfig, name: str, tunnel: Tunnel, make: Make, kme: Address | None) -> Sheet:
    """Raises ConfigError where this site does not serve what the device speaks, or nobody can tell where."""
    from keystrand.transport.export.sheet import Sheet

    listened, sae = _skip(config, tunnel) if make.interface == "SKIP" else (config.etsi014.listen, tunnel.sae)
    address = kme or listened
    if address.is_wildcard or not address.port:
        raise ConfigError(f"{address} is not where a device can connect", hint="say where: --kme HOST:PORT")
    return Sheet(
        tunnel=name,
        sae=sae,
        peer_sae=tunnel.peer_sae,
        kme_host=address.host,
        kme_port=address.port,
        rotate_s=tunnel.rotate_s,
        **_ends(tunnel),
    )


def _skip(config: SiteConfig, tunnel: Tunnel) -> tuple[Address, str]:
    """Where SKIP is served with pre-shared keys, and the identity that stands for the SAE there."""
    psk = config.skip.psk if config.skip is not None else None
    if config.skip is None or psk is None or tunnel.sae not in config.skip.encryptors:
        hint = f'add [skip.psk] and [skip.encryptors."{tunnel.sae}"], see the guide on encryptors'
        raise ConfigError(f"this site serves no SKIP with pre-shared keys for {tunnel.sae}", hint=hint)
    for identity, sae in psk.identities.items():
        if sae == tunnel.sae:
            return psk.listen, identity
    raise ConfigError(f"no PSK identity stands for {tunnel.sae}", hint="add one to identities in [skip.psk]")


def _ends(tunnel: Tunnel) -> dict[str, Any]:
    """What an IPsec table says about both ends; other kinds leave it to fill in."""
    if tunnel.kind != "ipsec":
        return {}
    fields = ("local_address", "remote_address", "local_id", "remote_id", "local_networks", "remote_networks")
    return {field: getattr(tunnel.settings, field) for field in fields}
