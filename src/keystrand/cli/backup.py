"""keystrand backup"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.options import FILE, config_option, json_option, print_json, require_free, site_of
from keystrand.cli.terminal import say


@click.command()
@click.argument("target", metavar="FILE", type=FILE)
@config_option
@click.option(
    "--passphrase-file", type=FILE, default=None, help="Seals the backup.  [default: the file in root_key_file]"
)
@click.option("--force", is_flag=True, help="Write over a FILE that is there.")
@json_option
def command(target: Path, config_file: Path, passphrase_file: Path | None, force: bool, as_json: bool) -> None:
    """Write a backup of the site to FILE while it runs: store, keyring, salt and site.toml, sealed.

    It holds no certificate's key and no passphrase. Whoever has both the file and the passphrase can read every key that was
    in the store, used since or not: destroy old backups.
    """
    from keystrand.node.backup import take

    if not force:
        require_free(target, hint="name another file, or write over it with --force")
    manifest = take(site_of(config_file), config_file, target, passphrase_file)
    if as_json:
        print_json(manifest)
        return
    size = sum(part.bytes for part in manifest.files.values())
    say(f"{manifest.site}: {size} bytes, {manifest.audit_size} audit records, epoch {manifest.epoch}")
    say(f"to put it back, stop the site: keystrand restore {target}")
    click.echo(target)
