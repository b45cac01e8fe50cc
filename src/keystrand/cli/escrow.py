"""keystrand escrow"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli.admin_client import REASON, Order, admin_options
from keystrand.cli.options import FILE, FOLDER, config_option, json_option, site_of
from keystrand.cli.tables import moment, show_list
from keystrand.cli.terminal import say
from keystrand.core.errors import BadRequest, ConfigError

if TYPE_CHECKING:
    from keystrand.crypto.shares import EscrowRecord
    from keystrand.node.escrow import Subject

LINE = 76


@click.group()
def command() -> None:
    """Share a secret of a site among custodians, any M of whom can give it back, and fewer can do nothing with it.

    \b
      1. each custodian:  keystrand escrow key --output me.key > me.pub
      2. the site:        keystrand escrow make --tenant NAME --threshold 2 --custodian ann=ann.pub …
                          (stopped; it writes record.json, which the site keeps, and one NAME.share for each)
      3. on the day:      keystrand escrow open NAME.share --custodian ann --key me.key --output ann.open
      4. the site:        keystrand escrow combine record.json ann.open bob.open --tenant NAME
                          (stopped; while it runs, `escrow ask` and each custodian's `escrow give` do the same)
    """


@command.command("key")
@click.option("--output", type=FILE, required=True, help="New file for the private key, mode 600.")
def key(output: Path) -> None:
    """Make a custodian's key (X25519 with ML-KEM-768); prints the public one."""
    from keystrand.config.founding import write_private
    from keystrand.crypto.escrow import CustodianKey

    made = CustodianKey.generate()
    write_private(output, armour(made.secret.reveal()))
    click.echo(armour(made.public), nl=False)


@command.command("make")
@config_option
@click.option("--tenant", default=None, help="Share the keys of this tenant.")
@click.option(
    "--key", "key_file", type=FILE, default=None, help="Share this key, as `keystrand key get --output` wrote it."
)
@click.option("--key-id", default=None, help="ID of that key; the register tells whether it may be escrowed.")
@click.option("--passphrase", is_flag=True, help="Share the passphrase that seals the store.")
@click.option("--threshold", type=click.IntRange(2, 255), required=True, help="How many custodians it takes.")
@click.option(
    "--custodian", "custodians", multiple=True, required=True, help="NAME=FILE with the public key; repeated."
)
@click.option("--dir", "folder", type=FOLDER, required=True, help="New folder for record and shares.")
@REASON
@click.option("--waive", default="", help="Escrow what [escrow] forbids, for this reason; recorded.")
def make(
    config_file: Path,
    tenant: str | None,
    key_file: Path | None,
    key_id: str | None,
    passphrase: bool,
    threshold: int,
    custodians: tuple[str, ...],
    folder: Path,
    reason: str,
    waive: str,
) -> None:
    """Share a secret out; the site must be stopped, as this is recorded in its audit log."""
    from keystrand.node.escrow import check_permitted, escrow, secret_of
    from keystrand.node.stopped import stopped

    subject = _subject(tenant, key_file, key_id, passphrase, site_of(config_file).site.name)
    publics = dict(_custodian(entry) for entry in custodians)
    if len(publics) < len(custodians):
        raise click.UsageError("a custodian is named twice")
    if folder.exists():
        raise ConfigError("exists already", path=str(folder), hint="name a new folder")
    with stopped(site_of(config_file)) as site:
        if not waive:
            check_permitted(site, subject)
        secret = secret_of(site, subject, key_file.read_bytes() if key_file else None)
        record, sealed = escrow(site, subject, secret, threshold, publics, reason=reason, waived=waive)
    _write(folder, record, sealed)
    for name in sorted(sealed):
        click.echo(folder / f"{name}.share")
    say(f"keep {folder / 'record.json'}: without it no share can be checked; try the way back before you need it")


def _subject(tenant: str | None, key_file: Path | None, key_id: str | None, passphrase: bool, site: str) -> Subject:
    from keystrand.node.escrow import Subject

    if sum((tenant is not None, key_file is not None, passphrase)) != 1 or (key_file is None) != (key_id is None):
        raise click.UsageError("state one of --tenant, --passphrase, or --key with --key-id")
    if tenant is not None:
        return Subject(kind="tenant", name=tenant)
    return Subject(kind="key", name=key_id) if key_id is not None else Subject(kind="passphrase", name=site)


def _custodian(entry: str) -> tuple[str, bytes]:
    from keystrand.core.identity import check_name

    name, _, file = entry.partition("=")
    check_name(name, what="custodian")
    if not file:
        raise click.UsageError(f"--custodian {entry}: write NAME=FILE")
    return name, unarmour(Path(file))


def _write(folder: Path, record: EscrowRecord, sealed: dict[str, bytes]) -> None:
    import msgspec

    from keystrand.config.founding import write_private

    folder.mkdir(mode=0o700, parents=True)
    (folder / "record.json").write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    for name, share in sealed.items():
        write_private(folder / f"{name}.share", armour(share))


@command.command("open")
@click.argument("share", type=FILE)
@click.option("--custodian", required=True, help="For whom it was sealed.")
@click.option("--key", "key_file", type=FILE, required=True, help="The custodian's private key.")
@click.option("--output", type=FILE, required=True, help="New file for the open share, mode 600: it is a secret.")
def open_share(share: Path, custodian: str, key_file: Path, output: Path) -> None:
    """Open a share, at the custodian's."""
    from keystrand.config.faults import require_private
    from keystrand.config.founding import write_private
    from keystrand.core.secret import Secret
    from keystrand.crypto.escrow import CustodianKey

    require_private(key_file)
    opened = CustodianKey(Secret(unarmour(key_file))).open(custodian, unarmour(share))
    write_private(output, armour(opened.encode().reveal()))
    say(f"share {opened.index} of escrow {opened.escrow_id.hex()[:8]}; {opened.threshold} are needed")


@command.command("combine")
@config_option
@click.argument("record", type=FILE)
@click.argument("shares", type=FILE, nargs=-1, required=True)
@click.option("--tenant", default=None, help="Put the keys of this tenant back; the site must be stopped.")
@click.option("--output", type=FILE, default=None, help="Write the secret to a new file instead, mode 600.")
@click.option("--reason", default="", help="Why; goes into the audit log, with --tenant.")
def combine(
    config_file: Path, record: Path, shares: tuple[Path, ...], tenant: str | None, output: Path | None, reason: str
) -> None:
    """Put open shares together. A share that is not the one handed out is named, and nothing is done."""
    from keystrand.config.founding import write_private
    from keystrand.core.secret import Secret
    from keystrand.crypto import shares as sharing
    from keystrand.node.escrow import restore_tenant
    from keystrand.node.stopped import stopped

    if (tenant is None) == (output is None) or (tenant is not None and not reason):
        raise click.UsageError("state --tenant with --reason, or --output")
    kept = _record(record)
    given = [sharing.Share.decode(Secret(unarmour(share))) for share in shares]
    if output is not None:
        write_private(output, sharing.combine(kept, given).reveal())
        return
    assert tenant is not None
    with stopped(site_of(config_file)) as site:
        restore_tenant(site, tenant, kept, given, reason=reason)


def _record(path: Path) -> EscrowRecord:
    import msgspec

    from keystrand.crypto.shares import EscrowRecord

    try:
        return msgspec.json.decode(path.read_bytes(), type=EscrowRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ConfigError("not the record of an escrow", path=str(path)) from None


# at a site that runs --------------------------------------------------------------------------------------------------


@command.command("ask")
@click.argument("record", type=FILE)
@click.option("--tenant", required=True, help="Whose keys are wanted back.")
@REASON
@admin_options
def ask(record: Path, tenant: str, reason: str, order: Order) -> None:
    """Ask the custodians of RECORD for the keys of a tenant; prints the ID of the release."""
    import msgspec

    _record(record)
    wish = {"tenant": tenant, "record": msgspec.json.decode(record.read_bytes()), "reason": reason}
    with order.client() as client:
        release = client.post("/escrow/releases", wish)
    click.echo(release["release_id"])
    say(f"{release['needed']} custodians must give: keystrand escrow give {release['release_id']} SHARE --as NAME")


@command.command("give")
@click.argument("release_id")
@click.argument("share", type=FILE)
@REASON
@admin_options
def give(release_id: str, share: Path, reason: str, order: Order) -> None:
    """Give one's open share, as a custodian; the last one that is needed puts the keys back."""
    from keystrand.config.faults import require_private
    from keystrand.core.identity import check_key_id

    require_private(share)
    wish = {"share": base64.b64encode(unarmour(share)).decode(), "reason": reason}
    with order.client() as client:
        release = client.post(f"/escrow/releases/{check_key_id(release_id)}/shares", wish)
    say(f"{len(release['given_by'])} of {release['needed']} given{'; the keys are back' if release['done'] else ''}")


@command.command("releases")
@admin_options
@json_option
def releases(order: Order, as_json: bool) -> None:
    """List what is asked back, and who has given a share."""
    with order.client() as client:
        found = client.get("/escrow/releases")["releases"]
    show_list(found, ("release", "tenant", "shares", "until", "asked by"), _row, as_json=as_json)


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    given = "done" if one["done"] else f"{len(one['given_by'])} of {one['needed']}"
    return one["release_id"], one["tenant"], given, moment(one["expires_s"]), f"{one['requester']}: {one['reason']}"


# files ----------------------------------------------------------------------------------------------------------------


def armour(raw: bytes) -> bytes:
    """Base64 in lines, to be mailed or printed."""
    text = base64.b64encode(raw).decode()
    return "".join(f"{text[at : at + LINE]}\n" for at in range(0, len(text), LINE)).encode()


def unarmour(path: Path) -> bytes:
    """What `armour` made. Raises BadRequest."""
    try:
        return base64.b64decode(b"".join(path.read_bytes().split()), validate=True)
    except binascii.Error:
        raise BadRequest(f"{path} is not base64", hint="is it complete?") from None
