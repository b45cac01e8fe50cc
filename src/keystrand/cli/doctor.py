"""keystrand doctor"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE, json_option, print_json
from keystrand.cli.terminal import say
from keystrand.core.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig
    from keystrand.node.doctor import Finding

_STATUS: Final = {
    "tampered": exits.TAMPERED,
    "config": exits.CONFIG,
    "unavailable": exits.UNAVAILABLE,
    "other": exits.REFUSED,
}


@click.command()
@click.argument("file", type=FILE, default="site.toml", envvar="KEYSTRAND_CONFIG")
@click.option(
    "--bundle", "bundle_file", type=FILE, default=None, help="Write what support needs to this file (tar.gz)."
)
@click.option("--log", "log_file", type=FILE, default=None, help="What the site wrote to stderr, for the bundle.")
@json_option
def command(file: Path, bundle_file: Path | None, log_file: Path | None, as_json: bool) -> int:
    """Check everything that the site in FILE depends on; one line each, and the next step where one is needed.

    Reads only; works while the site runs and while it does not. Warnings leave the exit status at 0.

    The bundle has these findings, versions, the configuration, status, metrics, and the end of the audit log and of the
    program's log. It holds no key and no passphrase: it is searched for those of this site before it is written.
    """
    from keystrand.node.doctor import examine

    findings = examine(file)
    for finding in findings:
        if as_json:
            print_json(finding)
        else:
            click.echo(line_of(finding))
    if bundle_file is not None:
        _write(file, findings, bundle_file, log_file)
    return status_of(findings)


def _write(file: Path, findings: list[Finding], bundle_file: Path, log_file: Path | None) -> None:
    from keystrand.config.load import load_site
    from keystrand.node.bundle import bundle, write_bundle

    try:
        config = load_site(file)
    except ConfigError:
        config = None  # the findings say why
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines() if log_file is not None else []
    write_bundle(bundle_file, bundle(config, findings, _pages(config), lines))
    say(f"{bundle_file} has no secrets, but names, addresses and who drew keys when: give it only to whom you trust")


def _pages(config: SiteConfig | None) -> dict[str, bytes]:
    """What the site says of itself while it runs."""
    from keystrand.net.plain import fetch

    pages: dict[str, bytes] = {}
    if config is None or config.status is None:
        return pages
    listen = config.status.listen
    for name, path in (("status.json", "/api/v1/status"), ("metrics.txt", "/metrics")):
        try:
            pages[name] = fetch(listen.host, listen.port, path)
        except Unavailable as error:
            pages[f"{name}.problem"] = f"{error}\n".encode()
    return pages


def line_of(finding: Finding) -> str:
    step = f"  -> {finding.next}" if finding.next else ""
    return f"{finding.verdict:4}  {finding.check:12}  {finding.words}{step}"


def status_of(findings: list[Finding]) -> int:
    """Of the gravest failure: tampered, then the configuration, then what does not answer."""
    kinds = {finding.kind for finding in findings if finding.verdict == "fail"}
    return next((status for kind, status in _STATUS.items() if kind in kinds), exits.OK)
