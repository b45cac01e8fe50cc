"""keystrand sae"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.options import config_option, json_option, print_json, site_of
from keystrand.core.errors import ConfigError


@click.group()
def command() -> None:
    """Add applications that may hold keys."""


@command.command("add")
@click.argument("name")
@config_option
@click.option("--site", default=None, help="Site that serves it.  [default: this one]")
@click.option("--host", "hosts", multiple=True, help="Host of the application; may be repeated.")
def add(name: str, config_file: Path, site: str | None, hosts: tuple[str, ...]) -> None:
    """Make NAME known; for an SAE of this site, issue its certificate too and print its path and its key's."""
    from keystrand.config.founding import append_policy
    from keystrand.core.identity import check_name
    from keystrand.crypto import pki

    config = site_of(config_file)
    check_name(name, what="SAE ID")
    if name in config.saes:
        raise ConfigError(f"SAE {name} is known already", path=str(config_file), hint="keystrand pki issue sae NAME")
    home = site or config.site.name
    issued = pki.issue(config.tls.trust.parent, kind="sae", name=name, hosts=hosts) if home == config.site.name else ()
    append_policy(config_file, f'\n[saes.{quoted(name)}]\nsite = "{home}"\n')
    for path in issued:
        click.echo(path)


def quoted(name: str) -> str:
    """A name as a TOML key: legal names hold dots and colons, which bare keys must not."""
    return f'"{name}"'


@command.command("list")
@config_option
@json_option
def show(config_file: Path, as_json: bool) -> None:
    """List the known SAEs and their sites."""
    for name, sae in site_of(config_file).saes.items():
        print_json({"sae": name, "site": sae.site}) if as_json else click.echo(f"{name}  {sae.site}")
