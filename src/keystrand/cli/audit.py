"""keystrand audit"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE, audit_signer, config_option, json_option, print_json, site_of
from keystrand.cli.terminal import complain, say
from keystrand.core.errors import BadRequest, Tampered

if TYPE_CHECKING:
    from keystrand.crypto.sign import Verifier
    from keystrand.observe.audit_verify import Row

Log = tuple["Iterable[Row]", list[tuple[int, str]]]


@click.group()
def command() -> None:
    """Verify, export and search the audit log. Reads beside a running site; needs no secret."""


@command.command("verify")
@config_option
@click.option(
    "--export", "export_file", type=FILE, default=None, help="Verify this export instead of the site's own store."
)
@click.option("--site", default=None, help="Site that wrote the export.  [default: this site]")
@json_option
def verify(config_file: Path, export_file: Path | None, site: str | None, as_json: bool) -> int:
    """Find any edit, deletion, insertion, reordering or truncation, and say at which record."""
    from keystrand.observe import audit_verify

    config = site_of(config_file)
    name = site or config.site.name
    keys = _verifiers(config_file)
    if name not in keys:
        raise BadRequest(f"no key verifies the log of {name}", hint=f"known: {', '.join(keys)}")
    rows, checkpoints = _log(config_file, export_file)
    witnesses = [key for owner, key in keys.items() if owner != name]
    report = audit_verify.verify(rows, checkpoints, site=name, signer=keys[name], witnesses=witnesses)
    for finding in report.findings:
        complain(str(finding))
    if as_json:
        findings = [str(finding) for finding in report.findings]
        print_json(
            {
                "site": name,
                "records": report.size,
                "cosigned": report.cosigned,
                "intact": report.intact,
                "findings": findings,
            }
        )
    else:
        verdict = "intact" if report.intact else "TOUCHED"
        click.echo(
            f"{name}: {report.size} records, {verdict}, head {report.head.hex()[:16]}, {report.cosigned} cosigned by a peer"
        )
    if report.cosigned < report.size:
        say(f"the last {report.size - report.cosigned} records are vouched for by this site alone so far")
    return exits.OK if report.intact else exits.TAMPERED


def _verifiers(config_file: Path) -> dict[str, Verifier]:
    """Site -> the key that verifies its log."""
    from keystrand.crypto.sign import Verifier

    config = site_of(config_file)
    own = audit_signer(config).verifier
    return {config.site.name: own, **{n: Verifier.parse(p.audit_key.read_text()) for n, p in config.peers.items()}}


def _log(config_file: Path, export_file: Path | None) -> Log:
    from keystrand.node.replicas import open_audit
    from keystrand.observe.audit_verify import read_jsonl, rows_of

    if export_file is not None:
        with export_file.open(encoding="utf-8") as lines:
            return read_jsonl(lines)
    store = open_audit(site_of(config_file))
    return rows_of(store), store.checkpoints()


@command.command("verify-report")
@click.argument("report_file", metavar="FILE", type=FILE)
@config_option
def verify_report(report_file: Path, config_file: Path) -> None:
    """Print the report of a drill (`keystrand lab tunnel --report`) if this site or a peer signed every byte of it."""
    from keystrand.lab.behaviour import verified

    try:
        note = report_file.read_bytes().decode()
    except FileNotFoundError:
        raise BadRequest(f"{report_file} is not there", hint="name what --report wrote") from None
    except UnicodeDecodeError:
        raise Tampered(f"{report_file} is not a report") from None
    report, signers = verified(note, _verifiers(config_file).values())
    say(f"signed by {', '.join(signers)}")
    print_json(report)


@command.command("export")
@config_option
def export(config_file: Path) -> None:
    """Print the whole log with its checkpoints as JSON lines, for keeping and checking elsewhere."""
    from keystrand.observe.audit_verify import export_jsonl

    for line in export_jsonl(*_log(config_file, None)):
        click.echo(line, nl=False)


@command.command("pack")
@config_option
@click.option(
    "--out", "out_file", type=FILE, required=True, help="The archive to write (tar.gz); it must not be there."
)
def pack(config_file: Path, out_file: Path) -> int:
    """Write all that an auditor asks for: log, checkpoints with cosignatures, custody of every key, policies, waivers, roles.

    It has the result of the verification, and says what is missing. It needs no secret to be checked, and holds none.
    """
    from keystrand.node.audit_pack import write_pack

    config, keys = site_of(config_file), _verifiers(config_file)
    own = keys.pop(config.site.name)
    report = write_pack(out_file, config, own, list(keys.values()))
    for finding in report.findings:
        complain(str(finding))
    verdict = "intact" if report.intact else "TOUCHED"
    say(
        f"{out_file}: {report.size} records, {verdict}, {report.cosigned} cosigned; missing.json says what it does not show"
    )
    return exits.OK if report.intact else exits.TAMPERED


@command.command("custody")
@click.argument("key_id", metavar="KEY-ID")
@config_option
@click.option(
    "--export", "export_file", type=FILE, default=None, help="Search this export instead of the site's own store."
)
def custody(key_id: str, config_file: Path, export_file: Path | None) -> int:
    """Print every record about one key, oldest first: where it came from, who got it, how it ended."""
    from keystrand.core.identity import check_key_id
    from keystrand.observe import audit_verify

    rows, _ = _log(config_file, export_file)
    records = audit_verify.custody(rows, check_key_id(key_id))
    for record in records:
        print_json(record)
    if not records:
        complain(f"no record names key {key_id}", "ask the site of the other SAE as well")
    return exits.OK if records else exits.REFUSED
