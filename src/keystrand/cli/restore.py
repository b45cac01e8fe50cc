"""keystrand restore"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.options import FILE, config_option, json_option, print_json, site_of
from keystrand.cli.terminal import complain, say


@click.command()
@click.argument("source", metavar="FILE", type=FILE)
@config_option
@click.option(
    "--passphrase-file", type=FILE, default=None, help="What sealed it.  [default: the file in root_key_file]"
)
@click.option(
    "--audit-copy",
    type=FILE,
    default=None,
    help="A newer copy of the audit log: an export, or from a sink of format json.",
)
@click.option(
    "--accept-rollback",
    metavar="REASON",
    default="",
    help="Let the audit log go back behind what a peer has cosigned; REASON goes into the log.",
)
@json_option
def command(
    source: Path,
    config_file: Path,
    passphrase_file: Path | None,
    audit_copy: Path | None,
    accept_rollback: str,
    as_json: bool,
) -> None:
    """Put the backup in FILE in the place of the site's store. The site must be stopped.

    A new epoch begins: nothing that the backup calls unused is used again, here or at the peers. The files of before are kept
    aside. Peers should run: they say how much of the audit log they have cosigned.
    """
    from keystrand.node.backup import restore

    done = restore(
        site_of(config_file), source, passphrase_file, accept_rollback=accept_rollback, audit_copy=audit_copy
    )
    if done.rollback:
        complain("THE AUDIT LOG WENT BACK: records of before are missing, and peers will not cosign this log any more")
    if as_json:
        print_json(done)
        return
    say(
        f"{done.manifest.site}: epoch {done.epoch}, {done.audit_size} audit records, {done.recovered} of them recovered"
    )
    if done.aside is not None:
        say(f"the files of before are in {done.aside}; they are keys: destroy them when the site runs well")
    say("next: keystrand doctor, then keystrand serve")
