"""keystrand hsm"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.options import config_option, json_option, print_json, site_of
from keystrand.cli.terminal import say


@click.group()
def command() -> None:
    """Keep the site's root key in a hardware security module: any token with a PKCS#11 library. Needs the extra `hsm`."""


@command.command("init")
@config_option
def init(config_file: Path) -> None:
    """Have the token of [hsm] make the root key, once."""
    from keystrand.node.sealing import create_hsm_root

    config = site_of(config_file)
    create_hsm_root(config)
    assert config.hsm is not None
    click.echo(config.hsm.key_label)
    if config.site.root_key == "pkcs11":
        say("back up the token by its vendor's means before the site holds keys")
    else:
        say("next: keystrand hsm move-in, with the site stopped")


@command.command("status")
@config_option
@json_option
def status(config_file: Path, as_json: bool) -> None:
    """Try the token and the root key in it, as a start of the site does."""
    from keystrand.core.errors import ConfigError
    from keystrand.node.roots import hsm_label, hsm_root

    config = site_of(config_file)
    hsm_root(config)  # finds the key, examines it and tries it out
    if config.hsm is None:
        raise ConfigError("no HSM is configured", hint="add a table [hsm]")
    facts = {
        "token": config.hsm.token_label,
        "key": hsm_label(config),
        "root_key": config.site.root_key,
        "keyring": config.keyring_file.exists(),
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"token {facts['token']}: root key {facts['key']} answers and cannot leave it")
    click.echo(f"the site is under {'this key' if config.site.root_key == 'pkcs11' else 'its passphrase'}")


@command.command("move-in")
@config_option
def move_in(config_file: Path) -> None:
    """Put a site that has a store under the HSM's key; the site must be stopped. No row is touched."""
    from keystrand.node.sealing import move_to_hsm

    move_to_hsm(site_of(config_file))
    say('write root_key = "pkcs11" in [site]; the passphrase opens copies from before this move only')


@command.command("move-out")
@config_option
def move_out(config_file: Path) -> None:
    """Put a site back under its passphrase, before an HSM is retired; the site must be stopped."""
    from keystrand.node.sealing import move_to_passphrase

    move_to_passphrase(site_of(config_file))
    say('write root_key = "passphrase" in [site], with root_key_file')
